"""Good images to damage, and the places in them that are worth damaging."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable

from cfsbuild.erofs.writer import write_image
from cfsbuild.tree.dump import parse_dump_bytes

EXAMPLE_DUMP = b"""\
/ 4096 40755 3 0 0 0 1000.5 - - - user.a=1
/big 5000 100644 1 0 0 0 1000.5 ab/cd - 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff user.a=1
/d 41 40755 2 0 0 0 1001.0 - - -
/d/hl 5000 @100644 1 0 0 0 1000.5 /big - 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff user.a=1
/l 2 120777 1 0 0 0 1000.5 xy - -
/small 5 100644 1 0 0 0 1000.5 - hello -
"""
# What mkcomposefs 1.0.8 makes of it.
EXAMPLE_SHA256 = "baac33c94fdfc55a030306aa5e6a4cc9a7a2ede3bce191138a09d6ff5497ed31"

ROOT = 1152
BIG = 7392
DIRECTORY = 8064
SYMLINK = 9728
SMALL = 9792
SHARED = 9856
ROOT_BLOCK = 12288
BIG_NID = BIG // 32
DIRECTORY_NID = DIRECTORY // 32


def image(dump: bytes, *, format: int = 0) -> bytes:  # noqa: A002
    return bytes(write_image(parse_dump_bytes(dump), format=format))


def example() -> bytes:
    data = image(EXAMPLE_DUMP)
    assert hashlib.sha256(data).hexdigest() == EXAMPLE_SHA256
    return data


def patched(data: bytes, patches: Iterable[tuple[int, bytes]]) -> bytes:
    result = bytearray(data)
    for offset, replacement in patches:
        assert offset + len(replacement) <= len(result)
        result[offset : offset + len(replacement)] = replacement
    return bytes(result)


def dirent(data: bytes, name: bytes, *, group: int = ROOT_BLOCK, end: int = ROOT_BLOCK + 4096) -> int:
    """Return the offset of the directory entry `name`."""
    count = struct.unpack_from("<H", data, group + 8)[0] // 12
    offsets = [struct.unpack_from("<H", data, group + 12 * index + 8)[0] for index in range(count)]
    offsets.append(len(data[group:end].rstrip(b"\0")))
    for index in range(count):
        if data[group + offsets[index] : group + offsets[index + 1]] == name:
            return group + 12 * index
    raise KeyError(name)


def name_offset(data: bytes, entry: int, *, group: int = ROOT_BLOCK) -> int:
    """Return where the name of the directory entry at `entry` stands."""
    return group + int(struct.unpack_from("<H", data, entry + 8)[0])


u16 = struct.Struct("<H").pack
u32 = struct.Struct("<I").pack
u64 = struct.Struct("<Q").pack
