"""Header and superblock of a composefs image (offsets 0 and 1024)."""

from __future__ import annotations

import msgspec

from cfsbuild import limits
from cfsbuild.erofs import constants, damage


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


def parse_superblock(data: bytes) -> Superblock:
    """Return header and superblock of `data`; raises `InputError` if `data` cannot be a composefs image."""
    size = len(data)
    if size > limits.IMAGE_BYTES:
        raise damage.over_limit(f"{size} bytes, at most {limits.IMAGE_BYTES} are read")
    if size >= 4 and int.from_bytes(data[:4], "little") != constants.HEADER_MAGIC:
        raise damage.damaged(damage.MAGIC, "it does not begin with the composefs magic number")
    if size < constants.INODES_OFFSET:
        raise damage.damaged(damage.TRUNCATED, f"it has only {size} bytes")
    _, header_version, flags, image_format = constants.HEADER.unpack_from(data)
    if header_version != constants.HEADER_VERSION:
        raise damage.damaged(damage.VERSION, f"its header has version {header_version}, only 1 is known")
    if image_format not in {*constants.FORMATS, constants.FORMAT_LEGACY}:
        raise damage.damaged(damage.VERSION, f"its format is {image_format}, only 0, 1 and 2 are known")
    fields = constants.SUPERBLOCK.unpack_from(data, constants.SUPERBLOCK_OFFSET)
    magic, block_bits, root_nid, inodes, build_sec, build_nsec, blocks, meta_block, xattr_block = (
        fields[0],
        *(fields[index] for index in (3, 5, 6, 7, 8, 9, 10, 11)),
    )
    feature_incompat = fields[14]
    if magic != constants.SUPERBLOCK_MAGIC:
        raise damage.damaged(damage.MAGIC, "its EROFS superblock has the wrong magic number")
    if block_bits != constants.BLOCK_BITS or meta_block or feature_incompat:
        raise damage.damaged(
            damage.VERSION, "its EROFS superblock asks for features that composefs never uses"
        )
    if blocks * constants.BLOCK_SIZE != size:
        kind = damage.TRUNCATED if blocks * constants.BLOCK_SIZE > size else damage.SIZE
        raise damage.damaged(
            kind, f"it has {size} bytes, its superblock says {blocks * constants.BLOCK_SIZE}"
        )
    if build_nsec >= 10**9:
        raise damage.damaged(damage.BOUNDS, f"its time has {build_nsec} nanoseconds")
    return Superblock(
        format=image_format,
        has_acl=bool(flags & constants.FLAG_HAS_ACL),
        root_nid=root_nid,
        inodes=inodes,
        build_sec=build_sec - (1 << 64) if build_sec >> 63 else build_sec,
        build_nsec=build_nsec,
        blocks=blocks,
        xattr_offset=xattr_block * constants.BLOCK_SIZE,
    )
