"""The two files of a stat cache: a scan with what was found out, and what little has changed since.

The scan, of magic `CFSSTAT2`: BLAKE3 of the rest (32 bytes), `_HEAD` (when the scan began in ns, its digest,
lengths of the three parts), records, names, and a MessagePack list with one element for each record: nil, or
the digest, or the content of a file of 1 to 64 bytes.

The changes, of magic `CFSSTATC`: BLAKE3 of the rest, and `Changes` as MessagePack. They make the scan that it
names a later one. A file that is damaged, foreign, or of another version counts as absent.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Collection
from pathlib import Path

import msgspec
from blake3 import blake3

from cfsbuild.store.replacing import replacing
from cfsbuild.tree import walk
from cfsbuild.tree.scan import Scan

Values = list[bytes | None]
"""What is known about each entry of a scan."""

_MAGIC = b"CFSSTAT2"
_CHANGES_MAGIC = b"CFSSTATC"
_HEAD = struct.Struct("=q32sQQQ")
_DIGEST = 32
_START = len(_MAGIC) + _DIGEST


class Changes(msgspec.Struct, frozen=True, array_like=True):
    """Entries of the scan whose file has the digest `base`, as a later scan found them: record and value.

    `taken_ns` is of the later scan, which differs in nothing else.
    """

    base: bytes
    taken_ns: int
    entries: dict[int, tuple[bytes, bytes | None]]


class Remembered(msgspec.Struct, frozen=True):
    """An old scan and what was found out about its files.

    `digest` is the scan's, or that of the file with its changes. `base` is the digest of the file that it was
    read from, `changed` the numbers of the entries that are not as they are there.
    """

    taken_ns: int
    digest: bytes
    records: memoryview
    names: memoryview
    values: Values
    base: bytes
    changed: frozenset[int] = frozenset()


def write_scan(path: Path, scan: Scan, values: Values) -> None:
    """Put `scan` and `values` into a file. Raises `OSError`."""
    encoded = msgspec.msgpack.encode(values)
    head = _HEAD.pack(scan.taken_ns, scan.digest, len(scan.records), len(scan.name_bytes), len(encoded))
    _write(path, _MAGIC, (head, scan.records, scan.name_bytes, encoded))


def write_changes(path: Path, base: bytes, scan: Scan, values: Values, numbers: Collection[int]) -> bytes:
    """Put the entries `numbers` of `scan` into a file, whose digest is returned. Raises `OSError`.

    All others are as they are in the file with the digest `base`.
    """
    size = walk.RECORD.size
    entries = {
        number: (bytes(scan.records[number * size : (number + 1) * size]), values[number])
        for number in sorted(numbers)
    }
    changes = Changes(base, scan.taken_ns, entries)
    return _write(path, _CHANGES_MAGIC, (msgspec.msgpack.encode(changes),))


def read_scan(path: Path, changes: Path) -> Remembered | None:
    """Return what the file `path` says, with what `changes` changes in it; None when there is none of use."""
    base, body = _read(path, _MAGIC)
    if body is None or len(body) < _HEAD.size:
        return None
    taken_ns, digest, records, names, values = _HEAD.unpack_from(body)
    body = body[_HEAD.size :]
    if records + names + values != len(body):
        return None
    try:
        decoded = msgspec.msgpack.decode(body[records + names :], type=Values)
    except (msgspec.DecodeError, msgspec.ValidationError):
        return None
    if records % walk.RECORD.size or len(decoded) != records // walk.RECORD.size:
        return None
    remembered = Remembered(taken_ns, digest, body[:records], body[records : records + names], decoded, base)
    digest, later = _read_changes(changes)
    return remembered if later is None or later.base != base else _changed(remembered, digest, later)


def _changed(old: Remembered, digest: bytes, changes: Changes) -> Remembered:
    """Return `old` with `changes`, made in place; `old` as it is when they do not fit."""
    size = walk.RECORD.size
    count = len(old.values)
    if any(
        number not in range(count) or len(record) != size for number, (record, _) in changes.entries.items()
    ):
        return old
    for number, (record, value) in changes.entries.items():
        old.records[number * size : (number + 1) * size] = record
        old.values[number] = value
    return msgspec.structs.replace(
        old, taken_ns=changes.taken_ns, digest=digest, changed=frozenset(changes.entries)
    )


def _read_changes(path: Path) -> tuple[bytes, Changes | None]:
    """Return the digest of the changes and them; None for them when there are none of use."""
    digest, body = _read(path, _CHANGES_MAGIC)
    try:
        return digest, None if body is None else msgspec.msgpack.decode(body, type=Changes)
    except (msgspec.DecodeError, msgspec.ValidationError):
        return digest, None


def _write(path: Path, magic: bytes, parts: Collection[bytes | memoryview]) -> bytes:
    """Put `parts` into a file, behind their digest, which is returned."""
    check = blake3()
    for part in parts:
        check.update(part)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with replacing(path) as file:
        file.writelines((magic, check.digest(), *parts))
    return check.digest()


def _read(path: Path, magic: bytes) -> tuple[bytes, memoryview | None]:
    """Return the digest in a file and what is behind it: None unless the digest and the magic are right."""
    data = _map(path)
    if data is None or data[: len(magic)] != magic:
        return b"", None
    digest, body = bytes(data[len(magic) : _START]), data[_START:]
    return digest, body if blake3(body).digest() == digest else None


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
