"""Every node kind by its name; a kind's module is imported when the kind is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module

from cfsbuild.nodes.kind import NodeKind

MODULES = {
    "file": "cfsbuild.nodes.file",
    "dir": "cfsbuild.nodes.dir",
    "symlink": "cfsbuild.nodes.symlink",
    "device": "cfsbuild.nodes.device",
    "tree": "cfsbuild.nodes.tree",
    "archive": "cfsbuild.nodes.archive",
    "accounts": "cfsbuild.nodes.accounts",
    "attributes": "cfsbuild.nodes.attributes",
    "remove": "cfsbuild.nodes.remove",
    "image": "cfsbuild.nodes.image",
}


class LazyNodeKinds(Mapping[str, NodeKind]):
    """A mapping that knows all names and imports on access."""

    def __getitem__(self, name: str) -> NodeKind:
        """Return the kind called `name`; raises `KeyError`."""
        kind: NodeKind = import_module(MODULES[name]).KIND
        return kind

    def __iter__(self) -> Iterator[str]:
        """Yield the kinds' names, in the order of the reference."""
        return iter(MODULES)

    def __len__(self) -> int:
        """Return how many kinds there are."""
        return len(MODULES)

    def __contains__(self, name: object) -> bool:
        """Say whether there is a kind called `name`, without importing it."""
        return name in MODULES


NODE_KINDS: Mapping[str, NodeKind] = LazyNodeKinds()
