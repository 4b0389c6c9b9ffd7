"""Header and superblock of a composefs image (offsets 0 and 1024)."""

from __future__ import annotations

import msgspec

from cfsbuild import limits
from cfsbuild.erofs import damage
from cfsbuild.erofs import format as fmt


class Superblock(msgspec.Struct, frozen=True):
    """What the first 1152 bytes say.

    `format` is the composefs version (0, 1, or 2 for composefs-rs's older layout); `build_sec` (signed) and
    `build_nsec` are the mtime of every compact inode; `xattr_offset` is where shared xattr id 0 lies.
    """

    format: int
    has_acl: bool
    root_nid: int
    inodes: int
    build_sec: int
    build_nsec: int
    blocks: int
    xattr_offset: int


def parse_superblock(data: bytes | bytearray) -> Superblock:
    """Return header and superblock of `data`; raises `InputError` if `data` cannot be a composefs image."""
    size = len(data)
    if size > limits.IMAGE_BYTES:
        raise damage.over_limit(f"{size} bytes, at most {limits.IMAGE_BYTES} are read")
    if size >= 4 and int.from_bytes(data[:4], "little") != fmt.COMPOSEFS_MAGIC:
        raise damage.damaged(damage.MAGIC, "it does not begin with the composefs magic number")
    if size < fmt.INODES_OFFSET:
        raise damage.damaged(damage.TRUNCATED, f"it has only {size} bytes")
    _, header_version, flags, image_format = fmt.HEADER.unpack_from(data)
    if header_version != fmt.COMPOSEFS_HEADER_VERSION:
        raise damage.damaged(damage.VERSION, f"its header has version {header_version}, only 1 is known")
    if image_format not in {*fmt.FORMATS, fmt.FORMAT_LEGACY}:
        raise damage.damaged(damage.VERSION, f"its format is {image_format}, only 0, 1 and 2 are known")
    fields = fmt.SUPERBLOCK.unpack_from(data, fmt.SUPERBLOCK_OFFSET)
    magic, _, _, block_bits, _, root_nid, inodes, build_sec, build_nsec, blocks, *rest = fields
    meta_block, xattr_block, feature_incompat = rest
    if magic != fmt.EROFS_MAGIC:
        raise damage.damaged(damage.MAGIC, "its EROFS superblock has the wrong magic number")
    if block_bits != fmt.BLOCK_BITS or meta_block or feature_incompat:
        raise damage.damaged(
            damage.VERSION, "its EROFS superblock asks for features that composefs never uses"
        )
    if blocks * fmt.BLOCK != size:
        kind = damage.TRUNCATED if blocks * fmt.BLOCK > size else damage.SIZE
        raise damage.damaged(kind, f"it has {size} bytes, its superblock says {blocks * fmt.BLOCK}")
    if build_nsec >= 10**9:
        raise damage.damaged(damage.BOUNDS, f"its time has {build_nsec} nanoseconds")
    return Superblock(
        format=image_format,
        has_acl=bool(flags & fmt.FLAG_HAS_ACL),
        root_nid=root_nid,
        inodes=inodes,
        build_sec=build_sec,
        build_nsec=build_nsec,
        blocks=blocks,
        xattr_offset=xattr_block * fmt.BLOCK,
    )
