"""Digests of local files that have not changed since they were read, so that they need not be read again.

One file for each source directory and digest algorithm: the scan as it was, and what was found out. Nothing
here is ever trusted beyond saving a read: a file that is damaged, foreign, or of another version counts as
absent. An entry is used only when its whole status is the same, and its ctime lies at least two seconds
before the scan that recorded it (younger ones could have changed again within one tick of the clock).

Format: magic, BLAKE3 of the rest (32 bytes), `_HEAD` (when the scan began in ns, lengths of the three parts),
records, names, and a MessagePack list with one element for each record: nil, or the digest, or the content
of a file of 1 to 64 bytes.
"""

from __future__ import annotations

import contextlib
import os
import struct
from pathlib import Path

import msgspec
from blake3 import blake3

from cfsbuild.fsverity.algorithm import Algorithm
from cfsbuild.limits import RACY_NS
from cfsbuild.store.replacing import replacing
from cfsbuild.tree import walk
from cfsbuild.tree.scan import Scan, match

Values = list[bytes | None]

_MAGIC = b"CFSSTAT1"
_HEAD = struct.Struct("=qQQQ")
_DIGEST = 32
_START = len(_MAGIC) + _DIGEST


class Remembered(msgspec.Struct, frozen=True):
    """An old scan and what was found out about its files."""

    taken_ns: int
    records: memoryview
    names: memoryview
    values: Values


class StatCache:
    """The stat cache of one user, below the directory `state`."""

    def __init__(self, state: Path) -> None:
        self._state = state

    def recall(self, scan: Scan, algorithm: Algorithm) -> Remembered | None:
        """Return the last scan of the same directory and what was found out; None when there is none."""
        return self._read(scan.root, algorithm)

    def load(self, scan: Scan, algorithm: Algorithm) -> Values:
        """Return for each entry of `scan` what is known about it, or None."""
        old = self.recall(scan, algorithm)
        if old is None:
            return [None] * len(scan)
        newest = old.taken_ns - RACY_NS
        if old.records == scan.records and old.names == scan.name_bytes and scan.newest_ns <= newest:
            return old.values
        values = old.values
        return [
            values[number] if number >= 0 and ctime <= newest else None
            for number, ctime in zip(match((old.records, old.names), scan), scan.ctime_ns, strict=True)
        ]

    def save(self, scan: Scan, algorithm: Algorithm, values: Values) -> None:
        """Remember `values` for `scan`, in the place of what was known. It is no error if that fails."""
        encoded = msgspec.msgpack.encode(values)
        head = _HEAD.pack(scan.taken_ns, len(scan.records), len(scan.name_bytes), len(encoded))
        check = blake3(head)
        parts = (scan.records, scan.name_bytes, encoded)
        for part in parts:
            check.update(part)
        target = self._file(scan.root, algorithm)
        # A cache that cannot be written costs time later, and nothing else.
        with contextlib.suppress(OSError):
            self._state.mkdir(mode=0o700, parents=True, exist_ok=True)
            with replacing(target) as file:
                file.writelines((_MAGIC, check.digest(), head, *parts))

    def _file(self, root: Path, algorithm: Algorithm) -> Path:
        key = blake3(os.fsencode(os.path.realpath(root))).hexdigest(length=16)
        return self._state / f"stat-{algorithm.value}-{key}"

    def _read(self, root: Path, algorithm: Algorithm) -> Remembered | None:
        """Return what the file says; None when there is none that can be used."""
        data = _map(self._file(root, algorithm))
        if data is None or data[: len(_MAGIC)] != _MAGIC:
            return None
        body = data[_START:]
        if len(body) < _HEAD.size or blake3(body).digest() != data[len(_MAGIC) : _START]:
            return None
        taken_ns, records, names, values = _HEAD.unpack_from(body)
        if _HEAD.size + records + names + values != len(body):
            return None
        body = body[_HEAD.size :]
        try:
            decoded = msgspec.msgpack.decode(body[records + names :], type=Values)
        except (msgspec.DecodeError, msgspec.ValidationError):
            return None
        if records % walk.RECORD.size or len(decoded) != records // walk.RECORD.size:
            return None
        return Remembered(taken_ns, body[:records], body[records : records + names], decoded)


def _map(path: Path) -> memoryview | None:
    """Return a file's content, which must be this user's own; None when it cannot be had."""
    import mmap  # noqa: PLC0415 (only where a tree is read)

    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        status = os.fstat(fd)
        if status.st_uid != os.geteuid() or status.st_size < _START:
            return None
        return memoryview(mmap.mmap(fd, 0, prot=mmap.PROT_READ))
    except OSError:
        return None
    finally:
        os.close(fd)
