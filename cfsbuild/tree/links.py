"""Hard-link groups while layers are merged."""

from __future__ import annotations

from cfsbuild.tree import paths

Group = tuple[int, bytes]
"""A group of one layer: the layer's position and the group's real name in it."""


class LinkGroups:
    """Which names share an inode. Equal groups of several layers that share a name become one group."""

    def __init__(self) -> None:
        self._parent: dict[Group, Group] = {}
        self._group_of: dict[bytes, Group] = {}

    def add(self, layer: int, target: bytes, name: bytes) -> None:
        """Note that `name` belongs to the group of `target` in `layer`."""
        group = self._root((layer, target))
        other = self._group_of.get(name)
        if other is None:
            self._group_of[name] = group
            return
        other = self._root(other)
        if other != group:
            self._parent[max(group, other)] = min(group, other)

    def links(self) -> dict[bytes, bytes]:
        """Return each further name with the first name, in depth-first order, of its group."""
        members: dict[Group, list[bytes]] = {}
        for name, group in self._group_of.items():
            members.setdefault(self._root(group), []).append(name)
        result: dict[bytes, bytes] = {}
        for names in members.values():
            names.sort(key=paths.depth_first)
            result.update(dict.fromkeys(names[1:], names[0]))
        return result

    def _root(self, group: Group) -> Group:
        while group in self._parent:
            group = self._parent[group]
        return group
