"""Which node gave each path of a merged tree."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

IMPLICIT = ""
"""The node of a directory that no node declares."""


class Provenance(msgspec.Struct, frozen=True):
    """`owners` maps a path to its node's position in `nodes`; implicit directories are absent.

    Of several nodes that gave equal entries the first in topological order counts.
    """

    nodes: tuple[str, ...]
    owners: dict[bytes, int]

    def node_of(self, path: bytes) -> str:
        """Return the name of the node that gave `path`; empty for implicit directories and unknown paths."""
        index = self.owners.get(path)
        return IMPLICIT if index is None else self.nodes[index]

    def paths_of(self, node: str) -> Iterator[bytes]:
        """Yield the paths that `node` gave, in no particular order."""
        if node in self.nodes:
            index = self.nodes.index(node)
            yield from (path for path, owner in self.owners.items() if owner == index)

    def by_node(self) -> dict[str, list[bytes]]:
        """Return every node's paths, nodes in topological order, paths depth first."""
        from cfsbuild.tree.paths import depth_first  # noqa: PLC0415 (only the manifest needs it)

        result: dict[str, list[bytes]] = {node: [] for node in self.nodes}
        lists = list(result.values())
        for path, owner in self.owners.items():
            lists[owner].append(path)
        for names in lists:
            names.sort(key=depth_first)
        return result
