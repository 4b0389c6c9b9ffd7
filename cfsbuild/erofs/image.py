"""The bytes of an image, once everything has its place. The pure-Python twin of the native emitter."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator

from cfsbuild.erofs import format as fmt
from cfsbuild.erofs.inodes import IFMT, Node, assemble
from cfsbuild.erofs.layout import Layout, Listing, place
from cfsbuild.fsverity.algorithm import Algorithm
from cfsbuild.tree.cycles import cycle_collector_paused
from cfsbuild.tree.dump import DumpEntry

_LINK_OR_DIRECTORY = frozenset((stat.S_IFLNK, stat.S_IFDIR))


def build(entries: Iterable[DumpEntry], *, formats: tuple[int, int], algorithm: Algorithm) -> bytes:
    """Return the image of the tree that `entries` describe, in a version from the range `formats`."""
    with cycle_collector_paused():
        root, version, flags = assemble(entries, formats=formats, algorithm=algorithm)
        return _write(place(root), version, flags)


def _write(layout: Layout, version: int, flags: int) -> bytes:
    image = bytearray()
    image += fmt.HEADER.pack(fmt.COMPOSEFS_MAGIC, fmt.COMPOSEFS_HEADER_VERSION, flags, version)
    image += bytes(fmt.SUPERBLOCK_OFFSET - len(image))
    image += _superblock(layout)
    first = layout.data_start // fmt.BLOCK
    base = layout.inodes_end % fmt.BLOCK
    area = layout.xattrs.area
    for node in layout.nodes:
        if node.padding:
            image += bytes(node.padding)
        image += inode_bytes(node, first)
        if node.xattrs:
            image += area(node, base)
        if node.tail:
            image += _tail(node, layout)
        first += node.nblocks
    image += bytes(layout.inodes_end - len(image))
    image += layout.xattrs.shared
    image += bytes(layout.data_start - len(image))
    for node in layout.nodes:
        if node.nblocks:
            for block in _blocks(node, layout):
                image += block
                image += bytes(-len(block) % fmt.BLOCK)
    return bytes(image)


def _superblock(layout: Layout) -> bytes:
    sec, nsec = layout.mtime
    return fmt.SUPERBLOCK.pack(
        fmt.EROFS_MAGIC,
        0,
        fmt.FEATURE_COMPAT,
        fmt.BLOCK_BITS,
        0,
        layout.nodes[0].nid,
        len(layout.nodes),
        sec,
        nsec,
        layout.data_start // fmt.BLOCK + layout.data_blocks,
        0,
        layout.inodes_end // fmt.BLOCK,
        0,
    )


def inode_bytes(node: Node, first_block: int) -> bytes:
    """Return the fixed part of the inode `node`, whose data blocks begin at the number `first_block`."""
    kind = node.mode & IFMT
    size = node.size
    data_layout = fmt.LAYOUT_INLINE if node.tail else fmt.LAYOUT_PLAIN
    pointer = first_block if node.nblocks else 0
    if kind == stat.S_IFREG:
        if size and node.content is None:
            data_layout = fmt.LAYOUT_CHUNKED
            # The chunk format takes the low half of the field that also holds the block number.
            pointer = pointer & 0xFFFF0000 | fmt.chunk_bits(size) - fmt.CHUNK_BITS_MIN
    elif kind not in _LINK_OR_DIRECTORY:
        pointer, size = node.rdev, 0
    icount = (node.xattr_size - 12) // 4 + 1 if node.xattr_size else 0
    i_format = data_layout << 1 | (not node.compact)
    if node.compact:
        return fmt.INODE_COMPACT.pack(
            i_format, icount, node.mode, node.nlink, size, pointer, node.ino, node.uid, node.gid
        )
    sec, nsec = node.mtime
    return fmt.INODE_EXTENDED.pack(
        i_format,
        icount,
        node.mode,
        size,
        pointer,
        node.ino,
        node.uid,
        node.gid,
        sec,
        nsec,
        node.nlink,
    )


def _group(names: Listing) -> bytes:
    """Return a directory group: all entries, then all names."""
    pack, types = fmt.DIRENT.pack, fmt.FILE_TYPES
    offset = fmt.DIRENT.size * len(names)
    parts = []
    for name, node in names:
        parts.append(pack(node.nid, offset, types[node.mode & IFMT]))
        offset += len(name)
    parts.extend([name for name, _ in names])
    return b"".join(parts)


def _tail(node: Node, layout: Layout) -> bytes:
    """Return what follows the inode and its xattrs, which is not nothing."""
    kind = node.mode & IFMT
    if kind == stat.S_IFDIR:
        return _group(layout.groups[node.ino][-1])
    if kind == stat.S_IFLNK:
        return node.target
    if node.content is not None:
        return node.content[node.size - node.tail :]
    return fmt.NULL_CHUNK * (node.tail // 4)


def _blocks(node: Node, layout: Layout) -> Iterator[bytes]:
    """Yield the data blocks of `node`, the last one perhaps short."""
    kind = node.mode & IFMT
    if kind == stat.S_IFDIR:
        for group in layout.groups[node.ino][: node.nblocks]:
            yield _group(group)
    elif kind == stat.S_IFLNK:
        yield node.target
    elif node.content is not None:
        yield node.content[: node.size - node.tail]
    else:
        yield fmt.NULL_CHUNK * fmt.CHUNKS_MAX
