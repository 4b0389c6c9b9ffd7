"""composefs-dump(5): the canonical text form of a tree, one line per name.

`PATH SIZE MODE NLINK UID GID RDEV MTIME PAYLOAD CONTENT DIGEST [NAME=VALUE…]`, fields separated by one space,
hexadecimal escapes after a backslash, "-" for unset (`docs/formats/dump.md`). The parser is stricter than the
C tool's: `docs/compat.md` lists what that one lets pass and this one refuses.
"""

from __future__ import annotations

import stat
from binascii import unhexlify
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from io import BytesIO
from itertools import islice
from typing import BinaryIO

import msgspec

from cfsbuild import limits
from cfsbuild.errors import InputError, Origin
from cfsbuild.tree import paths
from cfsbuild.tree.dumpfields import (
    CONTENT_BYTES,
    PAYLOAD_BYTES,
    FaultError,
    Modes,
    Numbers,
    XattrLists,
    is_normal,
    leads_out,
    quoted,
    text,
    timestamp,
    tree_path,
    unescape,
)


class DumpEntry(msgspec.Struct, frozen=True, gc=False):
    """One line of a dump: what a composefs image says about one name.

    `mtime_sec` may be negative. `payload` is the backing path of a regular file (relative to the object
    directory) or a symlink's target; `digest` is the raw fs-verity digest. `hardlink` is the absolute path of
    the name whose inode this one shares; the other fields are then ignored.
    """

    path: bytes
    size: int
    mode: int
    nlink: int
    uid: int
    gid: int
    rdev: int
    mtime_sec: int
    mtime_nsec: int
    payload: bytes | None = None
    content: bytes | None = None
    digest: bytes | None = None
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    hardlink: bytes | None = None


class _Parser:
    """Parses lines one by one; holds the caches."""

    def __init__(self, *, digest_size: int, strict: bool) -> None:
        self.digest_size = digest_size
        self.strict = strict
        self.sizes = Numbers("SIZE", 10, 2**64 - 1)
        self.modes = Modes("MODE", 8, 0o177777)
        self.nlinks = Numbers("NLINK", 10, 2**32 - 1)
        self.uids = Numbers("UID", 10, 2**32 - 1)
        self.gids = Numbers("GID", 10, 2**32 - 1)
        self.rdevs = Numbers("RDEV", 10, 2**32 - 1)
        self.xattrs = XattrLists()

    def parse(self, line: bytes) -> DumpEntry:
        """Return the entry that `line` (without its newline) describes; raises `FaultError`."""
        fields = line.split(b" ", 11)
        if len(fields) < 11 or b"\0" in line or len(line) > limits.DUMP_LINE_BYTES:
            raise _line_fault(line, len(fields))
        path, size, mode, nlink, uid, gid, rdev, mtime, payload, content, digest = fields[:11]
        # The usual line is short and without escapes: none of its fields is too long or needs decoding.
        plain = len(line) <= PAYLOAD_BYTES and b"\\" not in line
        if mode.startswith(b"@"):
            return self._hardlink(fields)
        sec, _, nsec = mtime.partition(b".")
        if sec.isdigit() and nsec.isdigit() and len(sec) <= 18 and len(nsec) <= 9:
            time = int(sec), int(nsec)
        else:
            time = timestamp(mtime)
        entry = DumpEntry(
            path if plain and is_normal(path) else self._path(path),
            self.sizes[size],
            self.modes[mode],
            self.nlinks[nlink],
            self.uids[uid],
            self.gids[gid],
            self.rdevs[rdev],
            *time,
            None if payload == b"-" else payload if plain else text(payload, "PAYLOAD", PAYLOAD_BYTES),
            None if content == b"-" else content if plain else text(content, "CONTENT", CONTENT_BYTES),
            None if digest == b"-" else self._digest(digest),
            self.xattrs[fields[11]] if len(fields) == 12 else (),
        )
        self._check(entry)
        return entry

    def _path(self, field: bytes) -> bytes:
        return tree_path(unescape(field, "PATH") if b"\\" in field else field, "PATH")

    def _digest(self, field: bytes) -> bytes:
        if len(field) != 2 * self.digest_size:
            raise FaultError("DIGEST", f"has {len(field)} characters instead of {2 * self.digest_size}")
        try:
            return unhexlify(field)
        except ValueError:
            raise FaultError("DIGEST", f"{quoted(field)} is not hexadecimal") from None

    def _check(self, entry: DumpEntry) -> None:
        """Raise a fault if the fields of `entry` do not fit each other."""
        kind = entry.mode & 0o170000
        if kind == stat.S_IFREG:
            _check_regular(entry)
        elif kind == stat.S_IFLNK and not entry.payload:
            raise FaultError("PAYLOAD", "a symbolic link needs a target")
        elif entry.content:
            raise FaultError("CONTENT", "only a regular file can have content")
        if self.strict:
            _check_strictly(entry)

    def _hardlink(self, fields: list[bytes]) -> DumpEntry:
        """Return the entry of a hard link, whose fields other than PATH, MODE and PAYLOAD may be unset."""
        size, nlink, uid, gid, rdev, mtime = (
            b"0" if field == b"-" else field for field in (fields[1], *fields[3:8])
        )
        entry = DumpEntry(
            self._path(fields[0]),
            self.sizes[size],
            self.modes[fields[2][1:]],
            self.nlinks[nlink],
            self.uids[uid],
            self.gids[gid],
            self.rdevs[rdev],
            *timestamp(b"0.0" if mtime == b"0" else mtime),
            None,
            None if fields[9] == b"-" else text(fields[9], "CONTENT", CONTENT_BYTES),
            None if fields[10] == b"-" else self._digest(fields[10]),
            self.xattrs[fields[11]] if len(fields) == 12 else (),
            tree_path(text(fields[8], "PAYLOAD", PAYLOAD_BYTES), "PAYLOAD"),
        )
        if stat.S_ISDIR(entry.mode):
            raise FaultError("MODE", "a directory cannot be a hard link")
        return entry


def _line_fault(line: bytes, fields: int) -> FaultError:
    if len(line) > limits.DUMP_LINE_BYTES:
        return FaultError("LINE", f"is over {limits.DUMP_LINE_BYTES} bytes long")
    if b"\0" in line:
        return FaultError("LINE", "contains a NUL byte")
    return FaultError("LINE", f"has {fields} fields, at least 11 are needed")


def _check_regular(entry: DumpEntry) -> None:
    if entry.content:
        if len(entry.content) != entry.size:
            raise FaultError("CONTENT", f"is {len(entry.content)} bytes long, SIZE says {entry.size}")
    elif entry.size:
        if not entry.payload:
            raise FaultError(
                "PAYLOAD", "a file with a size needs content or a backing path: without, nobody can read it"
            )
        if leads_out(entry.payload):
            raise FaultError("PAYLOAD", f"{quoted(entry.payload)} leads out of the object directory")
        if entry.size > limits.FILE_BYTES:
            raise FaultError("SIZE", f"{entry.size} is more than {limits.FILE_BYTES} bytes")


def _check_strictly(entry: DumpEntry) -> None:
    kind = stat.S_IFMT(entry.mode)
    if kind == stat.S_IFLNK and entry.size != len(entry.payload or b""):
        raise FaultError("SIZE", f"is {entry.size}, the target has {len(entry.payload or b'')} bytes")
    if kind not in {stat.S_IFCHR, stat.S_IFBLK} and entry.rdev:
        raise FaultError("RDEV", "must be 0 for what is not a device")


def parse_dump(
    lines: Iterable[bytes], *, digest_size: int = 32, strict: bool = False, name: str = "dump"
) -> Iterator[DumpEntry]:
    """Yield the entry of each of `lines` (with or without their newline).

    `digest_size` is the length of digests in bytes (64 for SHA-512). `strict` asks for what the C tool asks
    for when CFS_PARSE_STRICT is set. The first entry is the root; that parents precede children and no name
    comes twice is for whoever puts the tree together to check. Memory is bounded whatever the input.
    Raises `InputError` with the line number and the field.
    """
    parse = _Parser(digest_size=digest_size, strict=strict).parse
    number = 0
    field = problem = ""
    line = b""
    try:
        for number, line in enumerate(lines, 1):
            entry = parse(line[:-1] if line.endswith(b"\n") else line)
            if number == 1:
                _check_root(entry)
            yield entry
        if number == 0:
            field, problem = "LINE", "the dump is empty"
        elif strict and not line.endswith(b"\n"):
            field, problem = "LINE", "the last line has no newline"
    except FaultError as fault:
        field, problem = fault.field, fault.problem
    if problem:
        raise _refusal(name, number, field, problem)


def line_parser(*, digest_size: int = 32, name: str = "dump") -> Callable[[bytes, int], DumpEntry]:
    """Return a function from a line and its number (from 1) to its entry: `parse_dump`, line by line."""
    parse = _Parser(digest_size=digest_size, strict=False).parse

    def entry_of(line: bytes, number: int) -> DumpEntry:
        try:
            entry = parse(line[:-1] if line.endswith(b"\n") else line)
            if number == 1:
                _check_root(entry)
        except FaultError as fault:
            raise _refusal(name, number, fault.field, fault.problem) from None
        return entry

    return entry_of


def _refusal(name: str, number: int, field: str, problem: str) -> InputError:
    return InputError(
        f"{name}: line {number}: {field}: {problem}",
        resolution="see composefs-dump(5) for the format",
        origin=Origin(name, number, field),
        reason="dump",
    )


def _check_root(entry: DumpEntry) -> None:
    if entry.path != paths.ROOT or entry.hardlink is not None or not stat.S_ISDIR(entry.mode):
        raise FaultError("PATH", "the first line must be the root directory '/'")


def parse_dump_bytes(
    data: bytes, *, digest_size: int = 32, strict: bool = False, name: str = "dump"
) -> Iterator[DumpEntry]:
    """Yield the entries of the dump text `data`, as `parse_dump` does."""
    return parse_dump(BytesIO(data), digest_size=digest_size, strict=strict, name=name)


def read_lines(file: BinaryIO) -> Iterator[bytes]:
    """Return the lines of `file`, cut where one is too long for a dump: whoever parses them refuses it."""
    return iter(partial(file.readline, limits.DUMP_LINE_BYTES + 2), b"")


_SHORT = {ord("\\"): b"\\\\", ord("\n"): b"\\n", ord("\r"): b"\\r", ord("\t"): b"\\t"}
_ESCAPED = [
    _SHORT.get(byte, bytes((byte,)) if 0x21 <= byte <= 0x7E else b"\\x%02x" % byte) for byte in range(256)
]
_AT_ONCE = 64
_PLAIN = bytes(byte for byte in range(0x21, 0x7F) if byte != ord("\\"))


def escape(value: bytes) -> bytes:
    """Return `value` as a field of a dump: printable ASCII, without spaces."""
    # What is left after the plain bytes are deleted is what needs escaping: usually nothing.
    if not value.translate(None, _PLAIN):
        return value
    return b"".join([_ESCAPED[byte] for byte in value])


def _optional(value: bytes | None) -> bytes:
    if value is None:
        return b"-"
    return rb"\x2d" if value == b"-" else escape(value)


def _xattr(name: bytes, value: bytes) -> bytes:
    return escape(name).replace(b"=", rb"\x3d") + b"=" + escape(value).replace(b"=", rb"\x3d")


def formatting(entries: Iterable[DumpEntry], write: Callable[[bytes], object]) -> Iterator[DumpEntry]:
    """Yield `entries`, and give `write` their dump on the way: the line of each, ended by a newline."""
    entries = iter(entries)
    while some := list(islice(entries, _AT_ONCE)):
        write(_format_many(some))
        yield from some


def _format_many(entries: Sequence[DumpEntry]) -> bytes:
    """Return the lines of some entries; quickly if none has anything to escape, which one look tells."""
    fields = [entry.path for entry in entries]
    fields += [entry.payload or b"" for entry in entries]
    fields += [entry.content or b"" for entry in entries]
    if b"".join(fields).translate(None, _PLAIN) or b"-" in fields:
        return b"".join([format_entry(entry) + b"\n" for entry in entries])
    return b"".join([_format_plain(entry) for entry in entries])


def _format_plain(entry: DumpEntry) -> bytes:
    """Return the line, with its newline, of an entry whose path, payload and content need no escapes."""
    if entry.xattrs or entry.hardlink is not None:
        return format_entry(entry) + b"\n"
    return b"%b %d %o %d %d %d %d %d.%d %b %b %b\n" % (
        entry.path,
        entry.size,
        entry.mode,
        entry.nlink,
        entry.uid,
        entry.gid,
        entry.rdev,
        entry.mtime_sec,
        entry.mtime_nsec,
        b"-" if entry.payload is None else entry.payload,
        b"-" if entry.content is None else entry.content,
        b"-" if entry.digest is None else entry.digest.hex().encode(),
    )


def format_entry(entry: DumpEntry) -> bytes:
    """Return the line of `entry`, without newline, written as `composefs-info dump` writes it."""
    link = entry.hardlink
    line = b"%b %d %b%o %d %d %d %d %d.%d %b %b %b" % (
        escape(entry.path),
        entry.size,
        b"" if link is None else b"@",
        entry.mode,
        entry.nlink,
        entry.uid,
        entry.gid,
        entry.rdev,
        entry.mtime_sec,
        entry.mtime_nsec,
        _optional(entry.payload if link is None else link),
        _optional(entry.content),
        b"-" if entry.digest is None else entry.digest.hex().encode(),
    )
    if entry.xattrs:
        return b" ".join((line, *[_xattr(name, value) for name, value in entry.xattrs]))
    return line
