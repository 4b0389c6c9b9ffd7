"""POSIX ACLs: acl(5) short text to the bytes of `system.posix_acl_access` and `system.posix_acl_default`.

Layout: include/uapi/linux/posix_acl_xattr.h: a 32-bit version (2), then per entry tag (16 bits), permissions
(16) and id (32), little-endian, in the order owner, users by uid, owning group, groups by gid, mask, others.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from cfsbuild.errors import InputError

ACCESS_XATTR = b"system.posix_acl_access"
DEFAULT_XATTR = b"system.posix_acl_default"

_VERSION = 2
_USER_OBJ, _USER, _GROUP_OBJ, _GROUP, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
_NO_ID = 0xFFFFFFFF
_TAGS = {
    "u": (_USER_OBJ, _USER),
    "user": (_USER_OBJ, _USER),
    "g": (_GROUP_OBJ, _GROUP),
    "group": (_GROUP_OBJ, _GROUP),
    "m": (_MASK, _MASK),
    "mask": (_MASK, _MASK),
    "o": (_OTHER, _OTHER),
    "other": (_OTHER, _OTHER),
}

Resolve = Callable[[str, str], int]
"""From "user" or "group" and a name or number to an id; raises `CfsError`."""

Acl = dict[tuple[int, int], int]
"""(tag, id) → permissions; the id of entries without one is 0xffffffff."""


def parse_acl(text: str, resolve: Resolve) -> Acl:
    """Return the entries of `u:app:rwx,g::r-x`; raises `InputError` for a syntax error or a repetition."""
    acl: Acl = {}
    for entry in text.split(","):
        fields = [field.strip() for field in entry.split(":")]
        if len(fields) == 2 and fields[0] in {"m", "mask", "o", "other"}:
            fields.insert(1, "")
        if len(fields) != 3 or fields[0] not in _TAGS:
            raise InputError(
                f"ACL entry {entry.strip()!r} is malformed", resolution='write entries like "user:app:r-x"'
            )
        kind, name, permissions = fields
        plain, named = _TAGS[kind]
        if name and plain == named:
            raise InputError(f"ACL entry {entry.strip()!r} has a name where none can be")
        what = "user" if named == _USER else "group"
        key = (named, resolve(what, name)) if name else (plain, _NO_ID)
        if key in acl:
            raise InputError(f"ACL {text!r} has two entries for the same {kind}")
        acl[key] = _permissions(permissions, entry)
    return acl


def names_in(text: str) -> list[tuple[str, str]]:
    """Return ("user" or "group", name) for each name in an ACL that is not a number."""
    found: list[tuple[str, str]] = []

    def note(what: str, name: str) -> int:
        if not name.isdecimal():
            found.append((what, name))
        # Any two names must differ here: whether their numbers do is seen when they are known.
        return len(found) + 2**32 if not name.isdecimal() else int(name)

    parse_acl(text, note)
    return found


def complete_acl(acl: Acl, mode: int) -> tuple[Acl, int]:
    """Return (ACL with every entry it needs, mode that goes with it).

    Entries for owner, group and others that are not given come from `mode`; a mask that is needed and not
    given is the union of what it limits, as setfacl computes it. The mode's group bits become the mask.
    """
    acl = dict(acl)
    acl.setdefault((_USER_OBJ, _NO_ID), mode >> 6 & 7)
    acl.setdefault((_GROUP_OBJ, _NO_ID), mode >> 3 & 7)
    acl.setdefault((_OTHER, _NO_ID), mode & 7)
    if any(tag in {_USER, _GROUP} for tag, _ in acl):
        union = 0
        for (tag, _), permissions in acl.items():
            if tag in {_USER, _GROUP_OBJ, _GROUP}:
                union |= permissions
        acl.setdefault((_MASK, _NO_ID), union)
    group = acl.get((_MASK, _NO_ID), acl[_GROUP_OBJ, _NO_ID])
    bits = acl[_USER_OBJ, _NO_ID] << 6 | group << 3 | acl[_OTHER, _NO_ID]
    return acl, mode & ~0o777 | bits


def is_minimal(acl: Acl) -> bool:
    """Say whether a complete ACL says no more than a mode does."""
    return len(acl) == 3


def encode_acl(acl: Acl) -> bytes:
    """Return the xattr's value for a complete ACL."""
    entries = sorted(acl.items())
    return struct.pack("<I", _VERSION) + b"".join(
        struct.pack("<HHI", tag, permissions, number) for (tag, number), permissions in entries
    )


def with_mode(value: bytes, mode: int) -> bytes:
    """Return an access ACL's bytes after a chmod: owner, mask (else owning group) and others follow the mode.

    Raises `InputError` if `value` is no ACL.
    """
    acl = decode_acl(value)
    acl[_USER_OBJ, _NO_ID] = mode >> 6 & 7
    acl[(_MASK if (_MASK, _NO_ID) in acl else _GROUP_OBJ), _NO_ID] = mode >> 3 & 7
    acl[_OTHER, _NO_ID] = mode & 7
    return encode_acl(acl)


def decode_acl(value: bytes) -> Acl:
    """Return the entries in an xattr's value; raises `InputError` if it is malformed."""
    if len(value) % 8 != 4 or value[:4] != struct.pack("<I", _VERSION):
        raise InputError("value of an ACL attribute is malformed", details=value.hex())
    entries = list(struct.iter_unpack("<HHI", value[4:]))
    return {(tag, number): permissions for tag, permissions, number in entries}


def _permissions(text: str, entry: str) -> int:
    if len(text) == 1 and text in "01234567":
        return int(text)
    if not text or set(text) - set("rwx-"):
        raise InputError(f"ACL entry {entry.strip()!r} has permissions other than r, w, x and -")
    return sum(bit for char, bit in (("r", 4), ("w", 2), ("x", 1)) if char in text)
