"""Kinds of nodes and targets by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import TypeVar

Kind = TypeVar("Kind")


class LazyKinds(Mapping[str, Kind]):
    """Knows all names; a kind's module, which holds it as `KIND`, is imported when the kind is asked for."""

    def __init__(self, modules: Mapping[str, str]) -> None:
        self._modules = modules

    def __getitem__(self, name: str) -> Kind:
        """Return the kind called `name`; raises `KeyError`."""
        kind: Kind = import_module(self._modules[name]).KIND
        return kind

    def __iter__(self) -> Iterator[str]:
        """Yield the kinds' names, in the order of the reference."""
        return iter(self._modules)

    def __len__(self) -> int:
        """Return how many kinds there are."""
        return len(self._modules)

    def __contains__(self, name: object) -> bool:
        """Say whether there is a kind called `name`, without importing it."""
        return name in self._modules
