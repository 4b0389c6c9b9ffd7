"""Every target kind by its name; a kind's module is imported when the kind is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module

from cfsbuild.targets.kind import TargetKind

MODULES = {"image": "cfsbuild.targets.image"}


class LazyTargetKinds(Mapping[str, TargetKind]):
    """A mapping that knows all names and imports on access."""

    def __getitem__(self, name: str) -> TargetKind:
        """Return the kind called `name`; raises `KeyError`."""
        kind: TargetKind = import_module(MODULES[name]).KIND
        return kind

    def __iter__(self) -> Iterator[str]:
        """Yield the kinds' names."""
        return iter(MODULES)

    def __len__(self) -> int:
        """Return how many kinds there are."""
        return len(MODULES)

    def __contains__(self, name: object) -> bool:
        """Say whether there is a kind called `name`, without importing it."""
        return name in MODULES


TARGET_KINDS: Mapping[str, TargetKind] = LazyTargetKinds()
