"""Reading inodes: 32 or 64 bytes, then extended attributes, then a tail of data."""

from __future__ import annotations

import stat

import msgspec

from cfsbuild import limits
from cfsbuild.erofs import damage
from cfsbuild.erofs import format as fmt
from cfsbuild.erofs.extents import Extents
from cfsbuild.erofs.reader_xattrs import NO_XATTRS, InodeXattrs, XattrReader
from cfsbuild.erofs.superblock import Superblock

BLOCK = fmt.BLOCK


class ImageInode(msgspec.Struct, frozen=True, gc=False):
    """An inode as it stands in the image, checked as far as it can be alone.

    `blocks` and `tail` are the extents of its own data (directory groups, symlink target, inline content),
    in this order; both are empty for everything else. `external` says that a regular file's bytes are
    elsewhere.
    """

    mode: int
    nlink: int
    size: int
    uid: int
    gid: int
    rdev: int
    mtime_sec: int
    mtime_nsec: int
    xattrs: InodeXattrs
    external: bool = False
    blocks: tuple[int, int] = (0, 0)
    tail: tuple[int, int] = (0, 0)


class InodeReader:
    """Reads the inodes of one image; claims every byte that belongs to them."""

    __slots__ = ("_build_nsec", "_build_sec", "_data", "_extents", "_xattrs")

    def __init__(self, data: bytes, superblock: Superblock, extents: Extents) -> None:
        self._data = data
        self._extents = extents
        self._build_sec = superblock.build_sec
        self._build_nsec = superblock.build_nsec
        self._xattrs = XattrReader(
            data,
            shared_offset=superblock.xattr_offset,
            legacy=superblock.format == fmt.FORMAT_LEGACY,
            extents=extents,
        )

    def read(self, nid: int) -> ImageInode:
        """Return the inode with number `nid`; raises `InputError`."""
        data = self._data
        start = nid * fmt.SLOT
        if not fmt.INODES_OFFSET <= start <= len(data) - fmt.INODE_COMPACT.size:
            raise damage.damaged(damage.BOUNDS, f"inode {nid} lies outside of the image")
        end = start + (fmt.INODE_EXTENDED.size if data[start] & 1 else fmt.INODE_COMPACT.size)
        if end > len(data):
            raise damage.damaged(damage.BOUNDS, f"inode {nid} ends outside of the image")
        if data[start] & 1:
            (form, icount, mode, size, union, _, uid, gid, sec, nsec, nlink) = fmt.INODE_EXTENDED.unpack_from(
                data, start
            )
            if nsec >= 10**9:
                raise damage.damaged(damage.BOUNDS, f"inode {nid} has {nsec} nanoseconds")
        else:
            form, icount, mode, nlink, size, union, _, uid, gid = fmt.INODE_COMPACT.unpack_from(data, start)
            sec, nsec = self._build_sec, self._build_nsec
        xattrs = NO_XATTRS
        if icount:
            xattr_start = end
            end += fmt.XATTR_HEADER.size + 4 * (icount - 1)
            if end > len(data):
                raise damage.damaged(damage.BOUNDS, f"the attributes of inode {nid} end outside of the image")
            xattrs = self._xattrs.read(xattr_start, end)
        layout = form >> 1
        if layout == fmt.LAYOUT_CHUNKED:
            self._claim_external(start, end, mode, size, union)
            return ImageInode(mode, nlink, size, uid, gid, 0, sec, nsec, xattrs, external=True)
        _check_type(mode, size, layout)
        if not size:
            self._extents.claim(start, end)
            rdev = union if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) else 0
            return ImageInode(mode, nlink, size, uid, gid, rdev, sec, nsec, xattrs)
        blocks, tail = self._claim_data(start, end, size, union, inline=layout == fmt.LAYOUT_INLINE)
        return ImageInode(mode, nlink, size, uid, gid, 0, sec, nsec, xattrs, False, blocks, tail)

    def _claim_external(self, start: int, end: int, mode: int, size: int, union: int) -> None:
        """Check and claim a regular file whose bytes are elsewhere: its chunk table holds no address."""
        chunk_format = union & 0xFFFF
        count = 1 + ((size - 1) >> (fmt.CHUNK_BITS_MIN + (chunk_format & fmt.CHUNK_BITS_MASK)))
        if not stat.S_ISREG(mode) or chunk_format > fmt.CHUNK_BITS_MASK:
            raise damage.damaged(damage.TYPE, "chunks on something that is not a file, or in an unknown form")
        if not 1 <= count <= fmt.CHUNKS_MAX:
            raise damage.damaged(damage.SIZE, f"a file of {size} bytes has {count} chunks")
        table_end = end + 4 * count
        if end // BLOCK != (table_end - 1) // BLOCK:
            # Only a table that fits into no block with its inode is moved away, to a block of its own, and
            # the inode then begins a block. Nothing tells where that block is.
            if start % BLOCK or table_end - start <= BLOCK - BLOCK // 64:
                raise damage.damaged(damage.BOUNDS, "a chunk table crosses a block boundary")
            table_end = end
        elif self._data[end:table_end] != fmt.NULL_CHUNK * count:
            raise damage.damaged(damage.TYPE, "a file's chunk table is cut off or points into the image")
        self._extents.claim(start, table_end)

    def _claim_data(
        self, start: int, end: int, size: int, union: int, *, inline: bool
    ) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return the extents of an inode's own data: whole blocks, and the tail behind the inode."""
        count = (size - 1) // BLOCK + (not inline)
        tail = (end, end)
        if inline:
            tail = (end, end + size - count * BLOCK)
            if end // BLOCK != (tail[1] - 1) // BLOCK:
                raise damage.damaged(damage.BOUNDS, "inline data crosses a block boundary")
        first = union * BLOCK if count else 0
        if tail[1] > len(self._data) or first + count * BLOCK > len(self._data):
            raise damage.damaged(damage.BOUNDS, "data lies outside of the image")
        self._extents.claim(start, tail[1])
        if not count:
            return (0, 0), tail
        self._extents.claim(first, first + count * BLOCK)
        return (first, min(first + count * BLOCK, first + size)), tail


def _check_type(mode: int, size: int, layout: int) -> None:
    """Raise `InputError` unless file type, size and layout of an inode with data of its own fit together."""
    kind = stat.S_IFMT(mode)
    if kind not in fmt.FILE_TYPES:
        raise damage.damaged(damage.TYPE, f"mode {mode:o} has no file type")
    if layout not in {fmt.LAYOUT_PLAIN, fmt.LAYOUT_INLINE}:
        raise damage.damaged(damage.TYPE, f"data layout {layout} is unknown")
    if not size:
        if kind in {stat.S_IFDIR, stat.S_IFLNK} or layout != fmt.LAYOUT_PLAIN:
            raise damage.damaged(damage.SIZE, "a directory or symbolic link is empty, or nothing is inline")
    elif kind == stat.S_IFREG:
        if size > limits.INLINE_BYTES_MAX:
            raise damage.over_limit(
                f"{size} bytes of inline content, at most {limits.INLINE_BYTES_MAX} are read"
            )
    elif kind == stat.S_IFLNK:
        if size > limits.PATH_BYTES:
            raise damage.over_limit(f"a symbolic link target of {size} bytes")
    elif kind != stat.S_IFDIR:
        raise damage.damaged(damage.SIZE, "a device, FIFO or socket has a size")
