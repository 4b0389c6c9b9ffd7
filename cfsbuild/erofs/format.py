"""Constants and codecs of the composefs image format (EROFS with a composefs header), versions 0 and 1.

All integers are little-endian. Sizes and offsets are in bytes unless said otherwise. `docs/formats/image.md`
describes the layout; `native/emit.h` has what the native emitter needs of this.
"""

from __future__ import annotations

import functools
import stat
import struct

from cfsbuild.fsverity.algorithm import Algorithm

FORMATS = (0, 1)
"""The versions that are written."""
FORMAT_LEGACY = 2
"""The layout of composefs-rs before 2026-06: read, never written."""

BLOCK = 4096
BLOCK_BITS = 12
SLOT = 32
"""Inodes start at multiples of this; an inode's nid is its offset divided by it."""

SUPERBLOCK_OFFSET = 1024
INODES_OFFSET = 1152

COMPOSEFS_MAGIC = 0xD078629A
COMPOSEFS_HEADER_VERSION = 1
FLAG_HAS_ACL = 1
EROFS_MAGIC = 0xE0F5E1E2
FEATURE_COMPAT = 6
"""MTIME (2) and XATTR_FILTER (4)."""

HEADER = struct.Struct("<4I16x")
"""magic, header version, flags, composefs version."""

SUPERBLOCK = struct.Struct("<3IBBHQq4I32xI44x")
"""magic, checksum, feature_compat, blkszbits, extslots, root nid, inodes, build time, its nanoseconds,
blocks, meta_blkaddr, xattr_blkaddr, uuid and volume name, feature_incompat, the rest."""

INODE_COMPACT = struct.Struct("<4HI4x2I2H4x")
"""format, xattr icount, mode, nlink, size, i_u, ino, uid, gid."""

INODE_EXTENDED = struct.Struct("<3H2xQ4Iq2I16x")
"""format, xattr icount, mode, size, i_u, ino, uid, gid, mtime, its nanoseconds, nlink."""

DIRENT = struct.Struct("<QHBx")
"""nid, offset of the name in the group, file type."""

XATTR_HEADER = struct.Struct("<IB7x")
"""name filter, number of shared xattrs."""

XATTR_ENTRY = struct.Struct("<BBH")
"""length of the name's suffix, prefix index, length of the value."""

LAYOUT_PLAIN = 0
LAYOUT_INLINE = 2
LAYOUT_CHUNKED = 4

FILE_TYPES = {
    stat.S_IFREG: 1,
    stat.S_IFDIR: 2,
    stat.S_IFCHR: 3,
    stat.S_IFBLK: 4,
    stat.S_IFIFO: 5,
    stat.S_IFSOCK: 6,
    stat.S_IFLNK: 7,
}

CHUNK_BITS_MIN = 12
CHUNK_BITS_MAX = 43
CHUNK_BITS_MASK = 31
CHUNKS_MAX = 1024
NULL_CHUNK = b"\xff\xff\xff\xff"

XATTR_PREFIXES = (
    (b"user.", 1),
    (b"system.posix_acl_access", 2),
    (b"system.posix_acl_default", 3),
    (b"trusted.", 4),
    (b"security.", 6),
)
"""First match wins; "lustre." has an index (5) in EROFS that only `FORMAT_LEGACY` uses."""

ACL_NAMES = frozenset((b"system.posix_acl_access", b"system.posix_acl_default"))
SHARED_MAX = 128
"""Most xattrs of one inode that are stored by reference."""

FILTER_SEED = 0x25BBE08F

# What overlayfs reads of an image.
OVERLAY_PREFIX = b"trusted.overlay."
OVERLAY_ESCAPE = b"overlay."
"""Inserted once more after `OVERLAY_PREFIX` when an input's xattr has that prefix."""
METACOPY = b"trusted.overlay.metacopy"
REDIRECT = b"trusted.overlay.redirect"
OPAQUE = b"trusted.overlay.opaque"
USER_OPAQUE = b"user.overlay.opaque"
USER_WHITEOUT = b"user.overlay.whiteout"
USER_WHITEOUTS = b"user.overlay.whiteouts"

ROOT_WHITEOUTS = tuple(b"%02x" % number for number in range(256))
"""Names in the root that hide the object directories of a lower layer that is not data-only."""


@functools.cache
def metacopy_header(algorithm: Algorithm) -> bytes:
    """Return what precedes the digest in a metacopy xattr: version, length of it all, flags, algorithm."""
    return bytes((0, 4 + algorithm.digest_size, 0, algorithm.kernel_id))


def round_up(value: int, multiple: int) -> int:
    """Return the smallest multiple of `multiple` that is at least `value`."""
    return -(-value // multiple) * multiple


def xattr_index(name: bytes) -> tuple[int, bytes]:
    """Return the prefix index of the xattr `name` and the rest of the name."""
    for prefix, index in XATTR_PREFIXES:
        if name.startswith(prefix):
            return index, name[len(prefix) :]
    return 0, name


_P1, _P2, _P3, _P4, _P5 = 0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D, 0x27D4EB2F, 0x165667B1
_M = 0xFFFFFFFF


def _rotate(value: int, bits: int) -> int:
    return ((value << bits) | (value >> (32 - bits))) & _M


def xxh32(data: bytes, seed: int) -> int:
    """Return the 32-bit xxHash of `data`: names are short, so speed does not matter here."""
    position = 0
    if len(data) >= 16:
        lanes = [(seed + _P1 + _P2) & _M, (seed + _P2) & _M, seed, (seed - _P1) & _M]
        while position <= len(data) - 16:
            words = struct.unpack_from("<4I", data, position)
            lanes = [
                _rotate((lane + word * _P2) & _M, 13) * _P1 & _M
                for lane, word in zip(lanes, words, strict=True)
            ]
            position += 16
        value = sum(_rotate(lane, bits) for lane, bits in zip(lanes, (1, 7, 12, 18), strict=True)) & _M
    else:
        value = (seed + _P5) & _M
    value = (value + len(data)) & _M
    while position <= len(data) - 4:
        (word,) = struct.unpack_from("<I", data, position)
        value = _rotate((value + word * _P3) & _M, 17) * _P4 & _M
        position += 4
    for byte in data[position:]:
        value = _rotate((value + byte * _P5) & _M, 11) * _P1 & _M
    value = (value ^ (value >> 15)) * _P2 & _M
    value = (value ^ (value >> 13)) * _P3 & _M
    return value ^ (value >> 16)


def filter_bit(name: bytes) -> int:
    """Return the bit of the inode's name filter that the xattr `name` clears."""
    index, suffix = xattr_index(name)
    return xxh32(suffix, FILTER_SEED + index) & 31


def chunk_bits(size: int) -> int:
    """Return log2 of the chunk size for an external file of `size` bytes (at least 1)."""
    if size <= BLOCK:
        return CHUNK_BITS_MIN
    return min(max((size - 1).bit_length(), CHUNK_BITS_MIN), CHUNK_BITS_MAX)
