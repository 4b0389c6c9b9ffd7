"""A tree as a tar archive: POSIX pax format, the same bytes for the same tree.

Names, times and owners that do not fit a ustar header, and xattrs (`SCHILY.xattr.NAME`, as GNU tar, bsdtar
and star read them), go to extended headers. Sockets cannot stand in a tar archive.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator

from cfsbuild.errors import InputError
from cfsbuild.tree import paths
from cfsbuild.tree.dump import DumpEntry

BLOCK = 512
RECORD = 20 * BLOCK

_NAME_BYTES = 100
_OCTAL_7 = 8**7 - 1
_OCTAL_11 = 8**11 - 1
_NO_OWNER = 0

_TYPES = {
    stat.S_IFREG: b"0",
    stat.S_IFLNK: b"2",
    stat.S_IFCHR: b"3",
    stat.S_IFBLK: b"4",
    stat.S_IFDIR: b"5",
    stat.S_IFIFO: b"6",
}
_HARD_LINK = b"1"
_EXTENDED = b"x"

ReadContent = Callable[[DumpEntry], Iterable[bytes]]
"""Gives the content of a regular file, all of its bytes."""


def tar_chunks(entries: Iterable[DumpEntry], read: ReadContent) -> Iterator[bytes]:
    """Yield the archive of `entries`, which are depth first with hard links filled in; sockets are left out.

    Raises `InputError` if a content has another size than its entry says, and whatever `read` raises.
    """
    written = 0
    for entry in entries:
        if stat.S_ISSOCK(entry.mode):
            continue
        for chunk in _member(entry, read):
            written += len(chunk)
            yield chunk
    yield bytes(2 * BLOCK + -(written + 2 * BLOCK) % RECORD)


def _member(entry: DumpEntry, read: ReadContent) -> Iterator[bytes]:
    has_content = stat.S_ISREG(entry.mode) and entry.hardlink is None
    size = entry.size if has_content else 0
    yield _headers(entry, size)
    if not has_content:
        return
    given = 0
    for chunk in read(entry):
        given += len(chunk)
        yield chunk
    if given != size:
        raise InputError(f"{paths.show(entry.path)} has {size} bytes in the image, but {given} in the store")
    yield bytes(-size % BLOCK)


def _headers(entry: DumpEntry, size: int) -> bytes:
    """Return the member's header, preceded by an extended one where ustar cannot say it all."""
    name = entry.path[1:] or b"."
    if stat.S_ISDIR(entry.mode):
        name += b"/"
    kind, target = _TYPES[stat.S_IFMT(entry.mode)], b""
    if entry.hardlink is not None:
        kind, target = _HARD_LINK, entry.hardlink[1:]
    elif stat.S_ISLNK(entry.mode):
        target = entry.payload or b""
    records = [
        *_text_records(name, target),
        *_number_records(entry, size),
        *((b"SCHILY.xattr." + _keyword(key), value) for key, value in entry.xattrs if entry.hardlink is None),
    ]
    device = (os.major(entry.rdev), os.minor(entry.rdev)) if kind in {b"3", b"4"} else (0, 0)
    header = _header(
        name=name,
        mode=stat.S_IMODE(entry.mode),
        owner=(_fitting(entry.uid, _OCTAL_7), _fitting(entry.gid, _OCTAL_7)),
        size=_fitting(size, _OCTAL_11),
        mtime=_fitting(entry.mtime_sec, _OCTAL_11),
        kind=kind,
        target=target,
        device=device,
    )
    return _extended(name, records) + header if records else header


def _text_records(name: bytes, target: bytes) -> Iterator[tuple[bytes, bytes]]:
    needed = [
        (key, text)
        for key, text in ((b"path", name), (b"linkpath", target))
        if len(text) > _NAME_BYTES or (not text.isascii() and _is_utf8(text))
    ]
    if any(not _is_utf8(text) for _, text in needed):
        yield b"hdrcharset", b"BINARY"
    yield from needed


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _number_records(entry: DumpEntry, size: int) -> Iterator[tuple[bytes, bytes]]:
    for key, value, most in (
        (b"uid", entry.uid, _OCTAL_7),
        (b"gid", entry.gid, _OCTAL_7),
        (b"size", size, _OCTAL_11),
    ):
        if value > most:
            yield key, b"%d" % value
    if entry.mtime_nsec or not 0 <= entry.mtime_sec <= _OCTAL_11:
        yield b"mtime", _decimal(entry.mtime_sec * 10**9 + entry.mtime_nsec)


def _decimal(nanoseconds: int) -> bytes:
    """Return seconds as an exact decimal fraction."""
    sign = b"-" if nanoseconds < 0 else b""
    seconds, rest = divmod(abs(nanoseconds), 10**9)
    fraction = (b".%09d" % rest).rstrip(b"0") if rest else b""
    return sign + b"%d" % seconds + fraction


def _keyword(name: bytes) -> bytes:
    """Return an xattr's name as GNU tar writes it in a keyword, which cannot hold an equals sign."""
    return name.replace(b"%", b"%25").replace(b"=", b"%3D")


def _fitting(value: int, most: int) -> int:
    """Return `value` for the ustar field, 0 where an extended header carries it."""
    return value if 0 <= value <= most else 0


def _extended(name: bytes, records: list[tuple[bytes, bytes]]) -> bytes:
    body = b"".join(_record(key, value) for key, value in records)
    header = _header(
        name=(b"PaxHeaders/" + name.rstrip(b"/"))[:_NAME_BYTES],
        mode=0o644,
        owner=(_NO_OWNER, _NO_OWNER),
        size=len(body),
        mtime=0,
        kind=_EXTENDED,
        target=b"",
        device=(0, 0),
    )
    return header + body + bytes(-len(body) % BLOCK)


def _record(key: bytes, value: bytes) -> bytes:
    r"""Return `LENGTH KEY=VALUE\n`, where the length counts itself."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    if length != rest + len(str(length)):
        length += 1
    return b"%d %b=%b\n" % (length, key, value)


def _header(  # noqa: PLR0913 (the fields of a ustar header)
    *,
    name: bytes,
    mode: int,
    owner: tuple[int, int],
    size: int,
    mtime: int,
    kind: bytes,
    target: bytes,
    device: tuple[int, int],
) -> bytes:
    """Return one ustar header (POSIX.1-2001, "ustar Interchange Format")."""
    fields = [
        name[:_NAME_BYTES].ljust(_NAME_BYTES, b"\0"),
        b"%07o\0%07o\0%07o\0%011o\0%011o\0" % (mode, *owner, size, mtime),
        b" " * 8,
        kind,
        target[:_NAME_BYTES].ljust(_NAME_BYTES, b"\0"),
        b"ustar\x0000",
        bytes(64),
        b"%07o\0%07o\0" % device,
        bytes(155 + 12),
    ]
    block = b"".join(fields)
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]
