"""The two files of a stat cache: a scan with what was found out, and what little has changed since.

The scan, of magic `CFSSTAT1`: BLAKE3 of the rest (32 bytes), `_HEAD` (when the scan began in ns, lengths of
the three parts), records, names, and a MessagePack list with one element for each record: nil, or the digest,
or the content of a file of 1 to 64 bytes.

The changes, of magic `CFSSTATC`: BLAKE3 of the rest, and `Changes` as MessagePack. They name the file that
they change by its BLAKE3, which covers all that it says: whoever writes which file when, changes are never
applied to another scan. A file that is damaged, foreign, or of another version counts as absent.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import msgspec
from blake3 import blake3

from cfsbuild.store.replacing import replacing
from cfsbuild.tree import walk
from cfsbuild.tree.scan import Scan

Values = list[bytes | None]
"""What is known about each entry of a scan."""

_MAGIC = b"CFSSTAT1"
_CHANGES_MAGIC = b"CFSSTATC"
_HEAD = struct.Struct("=qQQQ")
_DIGEST = 32
_START = len(_MAGIC) + _DIGEST


class Changes(msgspec.Struct, frozen=True, array_like=True):
    """Entries of a scan, whose file has the digest `whole`, as a later scan found them: record and value.

    `taken_ns` is of the later scan, which differs in nothing else.
    """

    whole: bytes
    taken_ns: int
    entries: dict[int, tuple[bytes, bytes | None]]


class Remembered(msgspec.Struct, frozen=True):
    """An old scan and what was found out about its files.

    `digest` is of the file that says so, the scan's or its changes'. `whole` is that of the scan's, and
    `changed` are the numbers of the entries that are not as they are there.
    """

    taken_ns: int
    digest: bytes
    records: memoryview
    names: memoryview
    values: Values
    whole: bytes
    changed: frozenset[int] = frozenset()


def write_scan(path: Path, scan: Scan, values: Values) -> bytes:
    """Put `scan` and `values` into a file, whose digest is returned. Raises `OSError`."""
    encoded = msgspec.msgpack.encode(values)
    head = _HEAD.pack(scan.taken_ns, len(scan.records), len(scan.name_bytes), len(encoded))
    return _write(path, _MAGIC, (head, scan.records, scan.name_bytes, encoded))


def write_changes(path: Path, whole: bytes, scan: Scan, values: Values, numbers: Collection[int]) -> bytes:
    """Put the entries `numbers` of `scan` into a file, whose digest is returned. Raises `OSError`.

    All others are as they are in the file with the digest `whole`.
    """
    size = walk.RECORD.size
    entries = {
        number: (bytes(scan.records[number * size : (number + 1) * size]), values[number])
        for number in sorted(numbers)
    }
    changes = Changes(whole, scan.taken_ns, entries)
    return _write(path, _CHANGES_MAGIC, (msgspec.msgpack.encode(changes),))


def read_scan(path: Path, changes: Path) -> Remembered | None:
    """Return what the file `path` says, with what `changes` changes in it; None when there is none of use."""
    read = _read(path, _MAGIC)
    if read is None or len(read.body) < _HEAD.size:
        return None
    taken_ns, records, names, values = _HEAD.unpack_from(read.body)
    body = read.body[_HEAD.size :]
    if records + names + values != len(body):
        return None
    try:
        decoded = msgspec.msgpack.decode(body[records + names :], type=Values)
    except (msgspec.DecodeError, msgspec.ValidationError):
        return None
    if records % walk.RECORD.size or len(decoded) != records // walk.RECORD.size:
        return None
    remembered = Remembered(
        taken_ns, read.digest, body[:records], body[records : records + names], decoded, read.digest
    )
    return _with_changes(remembered, changes)


def _with_changes(old: Remembered, path: Path) -> Remembered:
    """Return `old` with what a file changes in it, in place; as it is when nothing there fits."""
    read = _read(path, _CHANGES_MAGIC)
    if read is None:
        return old
    try:
        changes = msgspec.msgpack.decode(read.body, type=Changes)
    except (msgspec.DecodeError, msgspec.ValidationError):
        return old
    size, numbers = walk.RECORD.size, range(len(old.values))
    fits = all(number in numbers and len(record) == size for number, (record, _) in changes.entries.items())
    if changes.whole != old.whole or not fits:
        return old
    for number, (record, value) in changes.entries.items():
        old.records[number * size : (number + 1) * size] = record
        old.values[number] = value
    return msgspec.structs.replace(
        old, taken_ns=changes.taken_ns, digest=read.digest, changed=frozenset(changes.entries)
    )


def _write(path: Path, magic: bytes, parts: Collection[bytes | memoryview]) -> bytes:
    """Put `parts` into a file, behind their digest, which is returned."""
    check = blake3()
    for part in parts:
        check.update(part)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with replacing(path) as file:
        file.writelines((magic, check.digest(), *parts))
    return check.digest()


class _Read(NamedTuple):
    """What is behind the digest in a file, and the digest."""

    digest: bytes
    body: memoryview


def _read(path: Path, magic: bytes) -> _Read | None:
    """Return what a file holds, if its magic and digest are right; else None."""
    data = _map(path)
    if data is None or data[: len(magic)] != magic:
        return None
    read = _Read(bytes(data[len(magic) : _START]), data[_START:])
    return read if blake3(read.body).digest() == read.digest else None


def _map(path: Path) -> memoryview | None:
    """Return a file's content, which must be this user's own; None when it cannot be had.

    What the caller changes in it is changed in memory alone.
    """
    import mmap  # noqa: PLC0415 (only where a tree is read)

    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        status = os.fstat(fd)
        if status.st_uid != os.geteuid() or status.st_size < _START:
            return None
        return memoryview(mmap.mmap(fd, 0, access=mmap.ACCESS_COPY))
    except OSError:
        return None
    finally:
        os.close(fd)
