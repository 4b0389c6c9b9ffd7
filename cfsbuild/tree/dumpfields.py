"""The fields of a dump line: numbers, times, paths, text and xattrs, each parsed strictly.

Each parser is a mapping from text to value, since few distinct texts occur: most fields cost one look-up.
"""

from __future__ import annotations

import stat
from binascii import unhexlify
from collections.abc import Collection
from typing import TypeVar

from cfsbuild import limits
from cfsbuild.errors import InputError
from cfsbuild.tree import paths
from cfsbuild.tree.inode import xattr_space

Key = TypeVar("Key")
Value = TypeVar("Value")

XATTR_LINE_BYTES = 65535
"""Most bytes of xattr text on one line."""

PAYLOAD_BYTES = limits.PATH_BYTES
CONTENT_BYTES = limits.INLINE_BYTES_MAX
CACHE_ENTRIES = 1 << 16
FILE_TYPES = frozenset(
    (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFBLK, stat.S_IFCHR, stat.S_IFSOCK, stat.S_IFIFO)
)


class FaultError(Exception):
    """A field that cannot be accepted; the parser adds the line."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(field, problem)
        self.field = field
        self.problem = problem


def quoted(text: bytes) -> str:
    """Return `text` for a message: printable, quoted, and cut where it goes on too long."""
    return repr(paths.show(text)) if len(text) <= 80 else repr(paths.show(text[:77]) + "...")


_PLAIN = {b"\\": b"\\", b"n": b"\n", b"r": b"\r", b"t": b"\t"}


def unescape(text: bytes, field: str) -> bytes:
    r"""Return `text` with `\\ \n \r \t \xHH` resolved; anything else after a backslash is a fault."""
    first, *rest = text.split(b"\\")
    parts = [first]
    pieces = iter(rest)
    for piece in pieces:
        code = piece[:1]
        if code == b"x":
            try:
                parts.append(unhexlify(piece[1:3]) + piece[3:])
            except ValueError:
                raise FaultError(field, r"\x needs two hexadecimal digits") from None
            if len(piece) < 3:
                raise FaultError(field, r"\x needs two hexadecimal digits")
        elif code:
            if code not in _PLAIN:
                raise FaultError(field, f"unknown escape \\{paths.show(code)}")
            parts.append(_PLAIN[code] + piece[1:])
        else:  # two backslashes in a row: the next piece is plain text
            following = next(pieces, None)
            if following is None:
                raise FaultError(field, "ends in a lone backslash")
            parts.append(b"\\" + following)
    return b"".join(parts)


class Numbers(dict[bytes, int]):
    """Unsigned numbers by their text: few distinct ones occur, so most parse by look-up."""

    def __init__(self, field: str, base: int, maximum: int) -> None:
        super().__init__()
        self.field = field
        self.base = base
        self.maximum = maximum

    def __missing__(self, text: bytes) -> int:
        # int() alone would take signs, spaces and underscores.
        if not text.isdigit():
            raise FaultError(self.field, f"{quoted(text)} is not a number")
        if len(text) > 24:
            raise FaultError(self.field, "number is too long")
        try:
            value = int(text, self.base)
        except ValueError:
            raise FaultError(self.field, f"{quoted(text)} is not an octal number") from None
        if value > self.maximum:
            raise FaultError(self.field, f"{quoted(text)} is out of range")
        self.check(value)
        return remember(self, text, value)

    def check(self, value: int) -> None:
        """Raise a fault if `value` is in range and still makes no sense."""


class Modes(Numbers):
    """Modes by their text."""

    def check(self, value: int) -> None:
        """Refuse a mode without one of the seven file types."""
        if stat.S_IFMT(value) not in FILE_TYPES:
            raise FaultError(self.field, f"{value:o} has no valid file type")


def remember(cache: dict[Key, Value], key: Key, value: Value) -> Value:
    """Return `value`, kept in `cache` unless that is full: memory stays bounded whatever the input."""
    if len(cache) < CACHE_ENTRIES:
        cache[key] = value
    return value


def timestamp(text: bytes) -> tuple[int, int]:
    """Return what `text` means: SECONDS "." NANOSECONDS, two integers, the first perhaps negative."""
    sec, dot, nsec = text.partition(b".")
    digits = sec[1:] if sec.startswith(b"-") else sec
    if not (dot and digits.isdigit() and nsec.isdigit()):
        raise FaultError("MTIME", f"{quoted(text)} is not SECONDS.NANOSECONDS")
    if len(text) > 40 or not -(2**63) <= int(sec) < 2**63 or int(nsec) >= 10**9:
        raise FaultError("MTIME", f"{quoted(text)} is out of range")
    return int(sec), int(nsec)


class XattrLists(dict[bytes, tuple[tuple[bytes, bytes], ...]]):
    """Lists of xattrs by their text."""

    def __missing__(self, text: bytes) -> tuple[tuple[bytes, bytes], ...]:
        if len(text) > XATTR_LINE_BYTES:
            raise FaultError("XATTR", f"{len(text)} bytes of xattrs, at most {XATTR_LINE_BYTES} are allowed")
        pairs: dict[bytes, bytes] = {}
        for item in text.split(b" "):
            name, equals, value = item.partition(b"=")
            if not equals:
                raise FaultError("XATTR", f"{quoted(item)} has no '='")
            name = unescape(name, "XATTR") if b"\\" in name else name
            pairs[_checked_xattr_name(name)] = unescape(value, "XATTR") if b"\\" in value else value
        _check_xattr_size(pairs.items())
        result = tuple(sorted(pairs.items()))
        return remember(self, text, result) if len(text) <= 256 else result


def _checked_xattr_name(name: bytes) -> bytes:
    if not 1 <= len(name) <= limits.XATTR_NAME_BYTES or b"\0" in name:
        raise FaultError("XATTR", f"name {quoted(name)} is not 1 to 255 bytes without NUL")
    return name


def _check_xattr_size(pairs: Collection[tuple[bytes, bytes]]) -> None:
    """Raise a fault if one inode cannot hold `pairs`."""
    for name, value in pairs:
        if len(value) > limits.XATTR_VALUE_BYTES:
            raise FaultError("XATTR", f"value of {quoted(name)} is {len(value)} bytes long")
    total = xattr_space(pairs)
    if total > limits.XATTR_INODE_BYTES:
        raise FaultError(
            "XATTR", f"{total} bytes of xattrs on one inode, at most {limits.XATTR_INODE_BYTES} are allowed"
        )


def leads_out(payload: bytes) -> bool:
    """Say whether a backing path could name something outside its directory, or no file at all."""
    return b"\0" in payload or (b".." in payload and b".." in payload.split(b"/"))


def is_normal(path: bytes) -> bool:
    """Say whether `path` is short and normal at a glance; if not, it may be in order all the same."""
    return (
        path.startswith(b"/")
        and len(path) <= limits.NAME_BYTES
        and b"//" not in path
        and b"/." not in path
        and not path.endswith(b"/")
    )


def tree_path(text: bytes, field: str) -> bytes:
    """Return the path that `text` (unescaped) means; as in the C tool, the leading slash may be missing."""
    if not text:
        raise FaultError(field, "empty path")
    if len(text) > 1 and text.endswith(b"/") and text.strip(b"/"):
        raise FaultError(field, f"{quoted(text)} ends in a slash")
    try:
        return paths.normalise(text)
    except InputError as error:
        raise FaultError(field, error.brief) from None


def text(field: bytes, name: str, longest: int) -> bytes:
    """Return the bytes that `field` stands for, at most `longest`."""
    value = unescape(field, name) if b"\\" in field else field
    if len(value) > longest:
        raise FaultError(name, f"is {len(value)} bytes long, at most {longest} are allowed")
    return value
