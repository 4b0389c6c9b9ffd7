"""What differs between two trees: path, attribute, both values."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable

import msgspec

from cfsbuild.tree import paths
from cfsbuild.tree.inode import Inode
from cfsbuild.tree.layer import Tree

Value = str | int | list[str] | None
"""JSON-able: None when one side does not have the attribute."""

_TYPES = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}

_WEIGHT = {
    "present": 0,
    "type": 0,
    "content": 1,
    "target": 1,
    "rdev": 1,
    "size": 2,
    "uid": 3,
    "gid": 3,
    "mode": 4,
    "links": 6,
    "mtime": 7,
}
_XATTR_WEIGHT = 5


class Change(msgspec.Struct, frozen=True):
    r"""One attribute of one path that differs.

    `path` is text for people and JSON: UTF-8 where it is, other bytes as `\xHH`. `attribute` is one of
    `present` (a type name, or None where the path does not exist), `type`, `mode` (octal permission bits),
    `uid`, `gid`, `mtime` (nanoseconds), `size`, `content` (`inline:HEX`, or an object's digest in hex),
    `target`, `rdev` (`MAJOR:MINOR`), `links` (the other names of the inode) and `xattr:NAME`
    (text where printable, else `0xHEX`).
    """

    path: str
    attribute: str
    before: Value
    after: Value


def diff(a: Tree, b: Tree) -> list[Change]:
    """Return every difference, paths depth first, attributes in the order that `first_difference` uses."""
    changed = list(_different_names(a, b))
    links_a, links_b = _groups(a), _groups(b)
    changed.extend(path for path in links_a.keys() | links_b.keys() if links_a.get(path) != links_b.get(path))
    result: list[Change] = []
    for path in sorted(set(changed), key=paths.depth_first):
        before, after = _inode(a, path), _inode(b, path)
        shown = paths.show(path)
        if before is None or after is None:
            result.append(Change(shown, "present", _kind(before), _kind(after)))
            continue
        found = [Change(shown, *change) for change in inode_changes(before, after)]
        names = [_show_names(links.get(path, ())) for links in (links_a, links_b)]
        if names[0] != names[1]:
            found.append(Change(shown, "links", names[0], names[1]))
        result.extend(sorted(found, key=lambda change: weight(change.attribute)))
    return result


def inode_changes(a: Inode, b: Inode) -> list[tuple[str, Value, Value]]:
    """Return (attribute, before, after) for what differs between two inodes."""
    if a == b:
        return []
    values_a, values_b = attributes(a), attributes(b)
    if values_a["type"] != values_b["type"]:
        for name in ("content", "size", "target", "rdev"):
            values_a.pop(name, None)
            values_b.pop(name, None)
    return [
        (name, values_a.get(name), values_b.get(name))
        for name in dict.fromkeys((*values_a, *values_b))
        if values_a.get(name) != values_b.get(name)
    ]


def attributes(inode: Inode) -> dict[str, Value]:
    """Return all attributes of `inode` as `Change` names and shows them."""
    result: dict[str, Value] = {
        "type": _kind(inode),
        "mode": f"{stat.S_IMODE(inode.mode):04o}",
        "uid": inode.uid,
        "gid": inode.gid,
        "mtime": inode.mtime_ns,
    }
    if inode.is_regular:
        result["size"] = inode.size
        result["content"] = "inline:" + inode.content.hex() if not inode.digest else inode.digest.hex()
    elif inode.is_symlink:
        result["target"] = paths.show(inode.target)
    elif inode.is_device:
        result["rdev"] = f"{os.major(inode.rdev)}:{os.minor(inode.rdev)}"
    for name, value in inode.xattrs:
        result["xattr:" + paths.show(name)] = _show_value(value)
    return result


def first_difference(changes: Iterable[Change]) -> Change | None:
    """Return the difference that matters most: structure, content, ownership, mode, xattrs, links, mtime."""
    return min(changes, key=lambda change: weight(change.attribute), default=None)


def weight(attribute: str) -> int:
    """Return how much `attribute` matters: lower matters more."""
    return _WEIGHT.get(attribute, _XATTR_WEIGHT)


def _different_names(a: Tree, b: Tree) -> Iterable[bytes]:
    entries_a, entries_b = a.entries, b.entries
    if not a.links and not b.links:
        yield from entries_a.keys() ^ entries_b.keys()
        yield from (p for p, i in entries_a.items() if p in entries_b and entries_b[p] != i)
        return
    names = entries_a.keys() | entries_b.keys() | a.links.keys() | b.links.keys()
    yield from (path for path in names if _inode(a, path) != _inode(b, path))


def _inode(tree: Tree, path: bytes) -> Inode | None:
    return tree.entries.get(tree.links.get(path, path))


def _groups(tree: Tree) -> dict[bytes, tuple[bytes, ...]]:
    """Map each name of a link group to the group's other names, in depth-first order."""
    groups: dict[bytes, list[bytes]] = {}
    for link, target in tree.links.items():
        groups.setdefault(target, [target]).append(link)
    result: dict[bytes, tuple[bytes, ...]] = {}
    for names in groups.values():
        names.sort(key=paths.depth_first)
        for name in names:
            result[name] = tuple(other for other in names if other != name)
    return result


def _show_names(names: Iterable[bytes]) -> list[str]:
    return [paths.show(name) for name in names]


def _kind(inode: Inode | None) -> str | None:
    return None if inode is None else _TYPES.get(inode.kind, f"type {inode.kind:#o}")


def _show_value(value: bytes) -> str:
    text = value.decode("utf-8", "replace")
    printable = text.isprintable() and "\ufffd" not in text and not text.startswith("0x")
    return text if printable else "0x" + value.hex()
