"""Reading extended attributes: names, values, and what the format itself keeps in them."""

from __future__ import annotations

import msgspec

from cfsbuild import limits
from cfsbuild.erofs import damage
from cfsbuild.erofs import format as fmt
from cfsbuild.erofs.extents import Extents
from cfsbuild.tree.inode import Xattrs

KEEP = 0
METACOPY = 1
REDIRECT = 2
OPAQUE = 3

INODE_BYTES_MAX = 2 * limits.XATTR_INODE_BYTES
"""What the writer adds counts against a budget of its own."""


class InodeXattrs(msgspec.Struct, frozen=True, gc=False):
    """An inode's attributes: those of its owner (names unescaped), and those that the format put there."""

    kept: Xattrs = ()
    metacopy: bytes | None = None
    redirect: bytes | None = None
    opaque: bytes | None = None


NO_XATTRS = InodeXattrs()


class XattrReader:
    """Reads xattr areas of one image; remembers names and shared entries, each of which is parsed once."""

    __slots__ = ("_data", "_extents", "_names", "_prefixes", "_shared", "_shared_offset")

    def __init__(self, data: bytes, *, shared_offset: int, legacy: bool, extents: Extents) -> None:
        self._data = data
        self._extents = extents
        self._shared_offset = shared_offset
        self._shared: dict[int, tuple[tuple[bytes, bytes], int]] = {}
        self._names: dict[tuple[int, bytes], tuple[bytes, int]] = {}
        self._prefixes = {0: b"", **{index: prefix for prefix, index in fmt.XATTR_PREFIXES}}
        if legacy:
            self._prefixes[5] = b"lustre."

    def read(self, start: int, end: int) -> InodeXattrs:
        """Return the attributes in the area from `start` to `end`, inline ones before shared ones."""
        data = self._data
        ids_end = position = start + fmt.XATTR_HEADER.size + 4 * data[start + 4]
        if position > end:
            raise damage.damaged(damage.XATTR, "more shared attributes than the inode has room for")
        kept: list[tuple[bytes, bytes]] = []
        roles: dict[int, bytes] = {}
        size = end - start
        while position < end:
            suffix_size, index, value_size = fmt.XATTR_ENTRY.unpack_from(data, position)
            value_start = position + 4 + suffix_size
            suffix = data[position + 4 : value_start]
            value = data[value_start : value_start + value_size]
            position = (value_start + value_size + 3) & ~3
            if position > end:
                raise damage.damaged(damage.XATTR, "an attribute is longer than the inode has room for")
            name, role = self._names.get((index, suffix)) or self._name(index, suffix)
            if role == KEEP:
                kept.append((name, value))
            else:
                _note_role(roles, role, value)
        for offset in range(start + fmt.XATTR_HEADER.size, ids_end, 4):
            number = int.from_bytes(data[offset : offset + 4], "little")
            pair, role = self._shared.get(number) or self._read_shared(number)
            size += 7 + len(pair[0]) + len(pair[1])
            if role == KEEP:
                kept.append(pair)
            else:
                _note_role(roles, role, pair[1])
        if size > INODE_BYTES_MAX:
            raise damage.over_limit(f"{size} bytes of extended attributes on one inode")
        if len(kept) > 1 and len({name for name, _ in kept}) != len(kept):
            raise damage.damaged(damage.XATTR, "an attribute is there twice")
        get = roles.get
        return InodeXattrs(tuple(kept), get(METACOPY), get(REDIRECT), get(OPAQUE))

    def _read_shared(self, number: int) -> tuple[tuple[bytes, bytes], int]:
        """Return the shared attribute with id `number`, and its role."""
        data = self._data
        start = self._shared_offset + 4 * number
        if start < fmt.INODES_OFFSET or start + fmt.XATTR_ENTRY.size > len(data):
            raise damage.damaged(damage.BOUNDS, f"shared attribute {number} lies outside of the image")
        suffix_size, index, value_size = fmt.XATTR_ENTRY.unpack_from(data, start)
        value_start = start + fmt.XATTR_ENTRY.size + suffix_size
        value_end = value_start + value_size
        if value_end > len(data):
            raise damage.damaged(damage.BOUNDS, f"shared attribute {number} ends outside of the image")
        self._extents.claim(start, value_end)
        name, role = self._name(index, data[start + fmt.XATTR_ENTRY.size : value_start])
        entry = ((name, data[value_start:value_end]), role)
        self._shared[number] = entry
        return entry

    def _name(self, index: int, suffix: bytes) -> tuple[bytes, int]:
        """Return the name that people see for a prefix index and suffix, and its role in the format."""
        prefix = self._prefixes.get(index)
        if prefix is None:
            raise damage.damaged(damage.XATTR, f"attribute name prefix {index} is unknown")
        name = prefix + suffix
        if not name or len(name) > limits.XATTR_NAME_BYTES + len(fmt.OVERLAY_ESCAPE) or b"\0" in name:
            raise damage.damaged(damage.XATTR, "an attribute's name is empty, too long or contains NUL")
        role = KEEP
        if name.startswith(fmt.OVERLAY_PREFIX):
            name, role = _overlay_name(name)
        self._names[index, suffix] = (name, role)
        return name, role


def _overlay_name(name: bytes) -> tuple[bytes, int]:
    """Return what an attribute in overlayfs's own name space stands for."""
    rest = name[len(fmt.OVERLAY_PREFIX) :]
    if rest.startswith(fmt.OVERLAY_ESCAPE):
        return fmt.OVERLAY_PREFIX + rest[len(fmt.OVERLAY_ESCAPE) :], KEEP
    if name == fmt.METACOPY:
        return name, METACOPY
    if name == fmt.REDIRECT:
        return name, REDIRECT
    if name == fmt.OPAQUE:
        return name, OPAQUE
    # Acting on the mount, not on the file: nobody but the format may use these.
    raise damage.damaged(
        damage.OVERLAY, "an attribute would steer overlayfs (trusted.overlay.*, not escaped)"
    )


def _note_role(roles: dict[int, bytes], role: int, value: bytes) -> None:
    """Remember what the format itself keeps on an inode."""
    if role in roles:
        raise damage.damaged(damage.XATTR, "an attribute is there twice")
    roles[role] = value
