"""Where everything stands in an image: order of inodes, their forms and offsets, data blocks.

Composefs format, "Inode order", "Compact or extended inode", "Data size per type" and "Placement".
"""

from __future__ import annotations

import stat
from collections.abc import Mapping

import msgspec

from cfsbuild.erofs import format as fmt
from cfsbuild.erofs.inodes import IFMT, Node
from cfsbuild.erofs.xattrs import XattrTable
from cfsbuild.errors import InputError

Listing = list[tuple[bytes, Node]]

MAX_ID = 0xFFFF
ROOT_NID_MAX = 0xFFFF

_COMPACT_BYTES = fmt.INODE_COMPACT.size
_EXTENDED_BYTES = fmt.INODE_EXTENDED.size


class Layout(msgspec.Struct, frozen=True):
    """A placed image: all inodes in order, offsets in bytes."""

    nodes: list[Node]
    groups: dict[int, list[Listing]]
    """The names of each directory, in groups that fit a block each, by its ino."""
    mtime: tuple[int, int]
    """The smallest mtime: seconds, nanoseconds."""
    xattrs: XattrTable
    inodes_end: int
    data_start: int
    data_blocks: int


def place(root: Node) -> Layout:
    """Return the layout of the tree below `root`; fills in what the nodes say about their place."""
    nodes, groups = _in_order(root)
    mtime = min(node.mtime for node in nodes)
    table = XattrTable(nodes)
    position = fmt.INODES_OFFSET
    blocks = 0
    for node in nodes:
        node.xattr_size = table.area_size(node)
        measure(node, groups)
        node.compact = is_compact(node, mtime)
        position = _place_node(node, position)
        blocks += node.nblocks
    if root.nid >= ROOT_NID_MAX:
        raise InputError("the root's xattrs push it further than an image's superblock can point")
    inodes_end = fmt.round_up(position, fmt.SLOT)
    return Layout(
        nodes=nodes,
        groups=groups,
        mtime=mtime,
        xattrs=table,
        inodes_end=inodes_end,
        data_start=fmt.round_up(inodes_end + len(table.shared), fmt.BLOCK),
        data_blocks=blocks,
    )


def is_compact(node: Node, mtime: tuple[int, int]) -> bool:
    """Say whether `node` has the short form in an image whose smallest mtime is `mtime`."""
    return (
        node.mtime == mtime
        and node.nlink <= MAX_ID
        and node.uid <= MAX_ID
        and node.gid <= MAX_ID
        and node.size <= 0xFFFFFFFF
    )


def _in_order(root: Node) -> tuple[list[Node], dict[int, list[Listing]]]:
    """Return all nodes breadth first, and the sorted names of each directory, in groups, by its ino."""
    nodes = [root]
    groups: dict[int, list[Listing]] = {}
    for node in nodes:  # grows while it is walked
        if node.children is not None:
            names = sorted(node.children)
            for name in names:
                child = node.children[name]
                child.ino = len(nodes)
                nodes.append(child)
            listing = sorted([*node.children.items(), *node.aliases.items()], key=_by_name)
            groups[node.ino] = _grouped(listing)
    return nodes, groups


def _by_name(item: tuple[bytes, Node]) -> bytes:
    return item[0]


def _grouped(names: Listing) -> list[Listing]:
    """Split the names of a directory into groups that fit a block each."""
    if group_size(names) <= fmt.BLOCK:
        return [names]
    result: list[Listing] = [[]]
    used = 0
    for item in names:
        cost = fmt.DIRENT.size + len(item[0])
        if used + cost > fmt.BLOCK:
            result.append([])
            used = 0
        used += cost
        result[-1].append(item)
    return result


def group_size(group: Listing) -> int:
    """Return the bytes that the names of `group` take."""
    return fmt.DIRENT.size * len(group) + sum([len(name) for name, _ in group])


def measure(node: Node, groups: Mapping[int, list[Listing]]) -> None:
    """Set how much data follows the inode and how many blocks it has; a directory's size too."""
    kind = node.mode & IFMT
    if kind == stat.S_IFREG:
        if node.content is not None:
            node.nblocks, node.tail = divmod(node.size, fmt.BLOCK)
            if node.tail > fmt.BLOCK // 2:
                node.nblocks, node.tail = node.nblocks + 1, 0
        elif node.size:
            node.tail = 4 * -(-node.size >> fmt.chunk_bits(node.size))
    elif kind == stat.S_IFDIR:
        parts = groups[node.ino]
        tail = group_size(parts[-1])
        node.nblocks, node.tail = (len(parts), 0) if tail > fmt.BLOCK // 2 else (len(parts) - 1, tail)
        node.size = node.nblocks * fmt.BLOCK + node.tail
    elif kind == stat.S_IFLNK:
        node.tail = node.size


def _place_node(node: Node, position: int) -> int:
    """Give `node` its nid at or after `position`; return where it ends."""
    fixed = (_COMPACT_BYTES if node.compact else _EXTENDED_BYTES) + node.xattr_size
    start = position + -position % fmt.SLOT
    if node.mode & IFMT == stat.S_IFLNK:
        # The kernel before 6.12 misread a target that crosses a block; the whole inode counts, moved or not.
        total = fixed + node.tail
        if total >= fmt.BLOCK:
            node.nblocks, node.tail = 1, 0
        if start // fmt.BLOCK != (start + total - 1) // fmt.BLOCK:
            start = fmt.round_up(start, fmt.BLOCK)
    else:
        rest = fmt.BLOCK - (start + fixed) % fmt.BLOCK
        if rest < node.tail:
            padding = fmt.round_up(rest, fmt.SLOT)
            if node.tail <= fmt.BLOCK - (start + fixed + padding) % fmt.BLOCK:
                start += padding
            else:
                node.nblocks, node.tail = node.nblocks + 1, 0
                start = fmt.round_up(start, fmt.BLOCK)
    node.padding = start - position
    node.nid = start // fmt.SLOT
    return start + fixed + node.tail
