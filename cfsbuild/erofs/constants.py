"""Numbers of the composefs image format, versions 0 and 1 (an EROFS subset), as the reader needs them.

The writer has a table of its own (`format.py`): a slip in one of them shows when the other disagrees.

All integers on disk are little-endian. `docs/formats/image.md` describes the layout.
"""

from __future__ import annotations

import stat
import struct

BLOCK_SIZE = 4096
BLOCK_BITS = 12
SLOT_SIZE = 32
"""An inode number (nid) counts slots of this many bytes from the start of the image."""

# Header and superblock.
HEADER = struct.Struct("<IIII16x")
"""Magic, header version, flags, composefs format; at offset 0."""
HEADER_MAGIC = 0xD078629A
HEADER_VERSION = 1
FLAG_HAS_ACL = 1
FORMATS = (0, 1)
"""The formats that the writer makes."""
FORMAT_LEGACY = 2
"""The layout of composefs-rs before 2026-06: read, never written."""

SUPERBLOCK_OFFSET = 1024
SUPERBLOCK = struct.Struct("<IIIBBHQQIIII16s16sI44s")
"""Magic, checksum, feature_compat, blkszbits, extslots, root nid, inos, build time (s, ns), blocks,
meta_blkaddr, xattr_blkaddr, uuid, volume name, feature_incompat, the rest."""
SUPERBLOCK_MAGIC = 0xE0F5E1E2
INODES_OFFSET = 1152

# Inodes.
COMPACT = struct.Struct("<HHHHIIIIHH4x")
"""format, xattr icount, mode, nlink, size, (reserved), i_u, ino, uid, gid."""
COMPACT_SIZE = 32
EXTENDED = struct.Struct("<HHHHQIIIIqII16x")
"""format, xattr icount, mode, (reserved), size, i_u, ino, uid, gid, mtime s, mtime ns, nlink."""
EXTENDED_SIZE = 64
LAYOUT_FLAT_PLAIN = 0
LAYOUT_FLAT_INLINE = 2
LAYOUT_CHUNK_BASED = 4

# Chunks of files whose bytes are elsewhere.
CHUNK_BITS_MIN = 12
CHUNKS_MAX = 1024
CHUNK_BITS_MASK = 31
CHUNK_NULL = b"\xff\xff\xff\xff"

# Directories.
DIRENT = struct.Struct("<QHBB")
"""nid, offset of the name from the start of the group, file type, reserved."""
DIRENT_SIZE = 12
FILE_TYPES = {
    stat.S_IFREG: 1,
    stat.S_IFDIR: 2,
    stat.S_IFCHR: 3,
    stat.S_IFBLK: 4,
    stat.S_IFIFO: 5,
    stat.S_IFSOCK: 6,
    stat.S_IFLNK: 7,
}
"""Dirent type by the file type bits of a mode."""


# Extended attributes.
XATTR_HEADER = struct.Struct("<IB7x")
"""Name filter, number of shared ids."""
XATTR_HEADER_SIZE = 12
XATTR_ENTRY = struct.Struct("<BBH")
"""Length of the name's suffix, index of its prefix, length of the value."""
XATTR_ENTRY_SIZE = 4
XATTR_PREFIXES = (
    (b"user.", 1),
    (b"system.posix_acl_access", 2),
    (b"system.posix_acl_default", 3),
    (b"trusted.", 4),
    (b"security.", 6),
)
"""Prefix and index; the first that matches counts. `lustre.` (5) is used by format 2 only."""

# Extended attributes that the format itself uses.
OVERLAY_PREFIX = b"trusted.overlay."
OVERLAY_ESCAPE = b"overlay."
"""Inserted once more after OVERLAY_PREFIX when an input's attribute has that prefix."""
METACOPY = b"trusted.overlay.metacopy"
REDIRECT = b"trusted.overlay.redirect"
OPAQUE = b"trusted.overlay.opaque"
USER_OPAQUE = b"user.overlay.opaque"
USER_WHITEOUT = b"user.overlay.whiteout"
USER_WHITEOUTS = b"user.overlay.whiteouts"

METACOPY_SHA256_HEADER = b"\x00\x24\x00\x01"
METACOPY_SHA512_HEADER = b"\x00\x44\x00\x02"
"""Version, length of the whole value, flags, algorithm; the raw digest follows."""

# The 256 whiteouts at the root hide the object directories of a lower layer that is not data-only.
ROOT_WHITEOUTS = tuple(f"{number:02x}".encode() for number in range(256))
