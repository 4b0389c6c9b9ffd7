"""The 512-byte header block (v7, ustar and GNU forms)."""

from __future__ import annotations

import struct

import msgspec

from cfsbuild.nodes.tar import faults
from cfsbuild.nodes.tar.numbers import parse_field

BLOCK = 512
ZERO_BLOCK = bytes(BLOCK)

_HEADER = struct.Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12s")
_MAGIC_USTAR = b"ustar\x0000"
_MAGIC_GNU = b"ustar  \0"
_CHECKSUM = slice(148, 156)
_CHECKSUM_AS_SPACES = 8 * 0x20


class Header(msgspec.Struct, frozen=True, gc=False):
    """A header block as it stands: names up to their NUL, numbers read, nothing combined."""

    name: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    type: bytes
    link: bytes
    device_major: int
    device_minor: int


def parse_header(block: bytes) -> Header:
    """Return the header in `block`; raises `InputError` if checksum or a field is wrong."""
    (name, mode, uid, gid, size, mtime, checksum, kind, link, magic, _, _, major, minor, prefix, _) = (
        _HEADER.unpack(block)
    )
    if sum(block) - sum(block[_CHECKSUM]) + _CHECKSUM_AS_SPACES != parse_field(checksum, "checksum"):
        raise faults.malformed(faults.CHECKSUM, "a header's checksum is wrong")
    name = name.partition(b"\0")[0]
    if magic == _MAGIC_USTAR:
        prefix = prefix.partition(b"\0")[0]
        if prefix:
            name = prefix + b"/" + name
    elif magic != _MAGIC_GNU and magic.strip(b"\0"):
        raise faults.malformed(faults.TYPE, "a header is neither v7, ustar nor GNU")
    device = kind in {b"3", b"4"}
    return Header(
        name,
        parse_field(mode, "mode"),
        parse_field(uid, "uid"),
        parse_field(gid, "gid"),
        parse_field(size, "size"),
        parse_field(mtime, "mtime"),
        kind,
        link.partition(b"\0")[0],
        parse_field(major, "device major") if device else 0,
        parse_field(minor, "device minor") if device else 0,
    )
