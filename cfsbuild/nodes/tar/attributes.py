"""What pax records say about a member: names, numbers, extended attributes."""

from __future__ import annotations

import binascii
import os

import msgspec

from cfsbuild import limits
from cfsbuild.nodes.tar import faults
from cfsbuild.nodes.tar.numbers import parse_decimal, parse_time
from cfsbuild.nodes.tar.pax import Records
from cfsbuild.tree.inode import Xattrs, sorted_xattrs, xattr_space

_SCHILY = b"SCHILY.xattr."
_LIBARCHIVE = b"LIBARCHIVE.xattr."
_SELINUX = b"RHT.security.selinux"
_ACL = b"SCHILY.acl."
_REFUSED_GLOBALLY = (b"path", b"linkpath", b"size", b"GNU.sparse.")
_UNSUPPORTED = (b"SCHILY.realsize", b"SCHILY.offset", b"SCHILY.volhdr")
_STEERING = (b"trusted.overlay.", b"user.overlay.")


class Extension(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What extended headers override; None where they say nothing."""

    path: bytes | None = None
    link: bytes | None = None
    size: int | None = None
    uid: int | None = None
    gid: int | None = None
    mtime_ns: int | None = None
    device_major: int | None = None
    device_minor: int | None = None
    xattrs: Xattrs = ()
    has_text_acl: bool = False
    sparse: str = ""
    """The sparse form in use: `0` (0.0 and 0.1, map in records) or `1` (1.0, map in the data)."""


NOTHING = Extension()


def check_global(records: Records) -> Records:
    """Return the records of a global header; raises `InputError` for those that only one member can have."""
    for key, _ in records:
        if key.startswith(_REFUSED_GLOBALLY):
            raise faults.malformed(faults.EXTENSION, f"a global header sets {os.fsdecode(key)!r}")
    return records


def interpret(records: Records) -> Extension:
    """Return what `records` (global ones first) override. Raises `InputError`.

    A later record replaces an earlier one; an empty value withdraws it. Unknown keys are ignored, as POSIX
    asks, except those that change what a member's data means.
    """
    values: dict[bytes, bytes] = dict(records)
    if any(key in values for key in _UNSUPPORTED):
        raise faults.refused(
            faults.SPARSE,
            "it has sparse or multi-volume members of star",
            resolution="Use GNU tar or bsdtar.",
        )
    sparse = _sparse_form(values)
    path = values.get(b"GNU.sparse.name") or values.get(b"path") or None
    size = values.get(b"size") or None
    mtime = values.get(b"mtime") or None
    return Extension(
        path=_checked_name(path),
        link=_checked_name(values.get(b"linkpath") or None),
        size=parse_decimal(size, "size") if size else None,
        uid=_optional(values, b"uid"),
        gid=_optional(values, b"gid"),
        mtime_ns=parse_time(mtime) if mtime else None,
        device_major=_optional(values, b"SCHILY.devmajor"),
        device_minor=_optional(values, b"SCHILY.devminor"),
        xattrs=_xattrs(values),
        has_text_acl=any(key.startswith(_ACL) for key in values),
        sparse=sparse,
    )


def _sparse_form(values: dict[bytes, bytes]) -> str:
    """Return which of GNU's sparse forms the records describe."""
    major, minor = values.get(b"GNU.sparse.major"), values.get(b"GNU.sparse.minor")
    if major == b"1" and minor == b"0":
        return "1"
    if major not in {None, b"0"} or (major is None and minor is not None):
        raise faults.refused(
            faults.SPARSE,
            "it has sparse files of an unknown form",
            resolution="Use GNU tar --sparse-version=1.0.",
        )
    return "0" if b"GNU.sparse.size" in values else ""


def _optional(values: dict[bytes, bytes], key: bytes) -> int | None:
    value = values.get(key)
    return parse_decimal(value, os.fsdecode(key)) if value else None


def _checked_name(name: bytes | None) -> bytes | None:
    if name is not None and b"\0" in name:
        raise faults.malformed(faults.NAME, "a name contains NUL")
    return name


def _xattrs(values: dict[bytes, bytes]) -> Xattrs:
    """Return the extended attributes that the records carry."""
    found: dict[bytes, bytes] = {}
    for key, raw in values.items():
        name, value = _xattr(key, raw)
        if not name:
            continue
        if found.setdefault(name, value) != value:
            raise faults.malformed(faults.XATTR, f"attribute {os.fsdecode(name)!r} has two different values")
    size = xattr_space(found.items())
    if size > limits.XATTR_INODE_BYTES:
        raise faults.over_limit(f"a member has {size} bytes of extended attributes")
    for name, value in found.items():
        check_xattr(name, value)
    return sorted_xattrs(found)


def _xattr(key: bytes, raw: bytes) -> tuple[bytes, bytes]:
    """Return name and value of the attribute in a record; an empty name if there is none."""
    if key.startswith(_SCHILY):
        # GNU tar escapes the two bytes that a key cannot hold.
        return key[len(_SCHILY) :].replace(b"%3D", b"=").replace(b"%25", b"%"), raw
    if key == _SELINUX:
        return b"security.selinux", raw.rstrip(b"\0") + b"\0"
    if not key.startswith(_LIBARCHIVE):
        return b"", b""
    from urllib.parse import unquote_to_bytes  # noqa: PLC0415 (only archives of bsdtar)

    name = unquote_to_bytes(key[len(_LIBARCHIVE) :])
    try:
        # libarchive leaves the padding out.
        return name, binascii.a2b_base64(raw + b"=" * (-len(raw) % 4), strict_mode=True)
    except binascii.Error:
        raise faults.malformed(faults.XATTR, f"attribute {os.fsdecode(name)!r} is not base64") from None


def check_xattr(name: bytes, value: bytes) -> None:
    """Raise `InputError` unless an attribute from an archive can stand in an image."""
    if b"\0" in name or len(name) > limits.XATTR_NAME_BYTES or len(value) > limits.XATTR_VALUE_BYTES:
        raise faults.malformed(faults.XATTR, "an attribute's name or value is too long, or its name has NUL")
    if name.startswith(_STEERING):
        raise faults.refused(
            faults.XATTR,
            f"attribute {os.fsdecode(name)!r} would steer overlayfs when the image is mounted",
            resolution="Take such attributes off before making the archive (tar --xattrs-exclude).",
        )
