"""Which node gave each path of a merged tree."""

from __future__ import annotations

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
