"""Which node gave each path of a merged tree."""

from __future__ import annotations

import msgspec

IMPLICIT = ""
"""The node of a directory that no node declares."""


class Provenance(msgspec.Struct, frozen=True):
    """`owners` maps a path to its node's position in `nodes`; implicit directories are absent.

    Of several nodes that gave equal entries the first in topological order counts. A node that reads its
    input and leaves type and content of a path alone is no owner: `changes` maps the path to all such nodes.
    """

    nodes: tuple[str, ...]
    owners: dict[bytes, int]
    changes: dict[bytes, tuple[int, ...]] = {}

    def node_of(self, path: bytes) -> str:
        """Return the name of the node that gave `path`; empty for implicit directories and unknown paths."""
        index = self.owners.get(path)
        return IMPLICIT if index is None else self.nodes[index]

    def changed(self) -> dict[str, list[bytes]]:
        """Return the nodes that changed attributes of paths of others, in order, and these paths."""
        found: dict[int, list[bytes]] = {}
        for path, indexes in self.changes.items():
            for index in indexes:
                found.setdefault(index, []).append(path)
        return {self.nodes[index]: found[index] for index in sorted(found)}
