"""Listing a directory tree without the extension module: gives the same bytes as `native/scan.c`."""

from __future__ import annotations

import errno
import os
import stat
import struct

RECORD = struct.Struct("=QqqqQQIIIIIIHHI")
"""ino, size, mtime_ns, ctime_ns, dev, rdev, mode, uid, gid, nlink, parent, name_offset, name_bytes, depth."""

MODE, NLINK, PARENT, NAME_OFFSET, NAME_BYTES = 6, 9, 10, 11, 12
"""Positions of fields in an unpacked record."""

IDENTITY_BYTES = 64
"""How much of a record says what the entry is, wherever it stands in the listing."""


class Walk:
    """A listing that is being made. Raises `OSError` with the path relative to the root."""

    def __init__(self, depth: int, path_bytes: int, entries: int, *, one_file_system: bool) -> None:
        self.records = bytearray()
        self.names = bytearray()
        self._depth = depth
        self._path_bytes = path_bytes
        self._entries = entries
        self._one_file_system = one_file_system
        self._device = 0

    def root(self, fd: int) -> None:
        """List everything below the directory `fd`."""
        status = os.fstat(fd)
        self._device = status.st_dev
        self._add(status, b"", 0, 0)
        self._directory(fd, b"", 0, 0)

    def _directory(self, fd: int, path: bytes, parent: int, depth: int) -> None:
        listed = os.listdir(fd)
        # No name has a NUL: one call encodes them all.
        for name in sorted(os.fsencode("\0".join(listed)).split(b"\0")) if listed else ():
            child = path + b"/" + name if path else name
            try:
                self._child(fd, name, child, parent, depth + 1)
            except OSError as error:
                if not isinstance(error.filename, bytes) or error.filename == name:
                    error.filename = child
                raise

    def _child(self, fd: int, name: bytes, path: bytes, parent: int, depth: int) -> None:
        if depth > self._depth or len(path) + 1 > self._path_bytes:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), path)
        status = os.stat(name, dir_fd=fd, follow_symlinks=False)
        index = len(self.records) // RECORD.size
        if index == self._entries:
            raise OSError(errno.EOVERFLOW, os.strerror(errno.EOVERFLOW), path)
        self._add(status, name, parent, depth)
        if not stat.S_ISDIR(status.st_mode) or (self._one_file_system and status.st_dev != self._device):
            return
        inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
        try:
            self._directory(inner, path, index, depth)
        finally:
            os.close(inner)

    def _add(self, status: os.stat_result, name: bytes, parent: int, depth: int) -> None:
        self.records += RECORD.pack(
            status.st_ino,
            status.st_size,
            status.st_mtime_ns,
            status.st_ctime_ns,
            status.st_dev,
            status.st_rdev,
            status.st_mode,
            status.st_uid,
            status.st_gid,
            status.st_nlink,
            parent,
            len(self.names),
            len(name),
            depth,
            0,
        )
        self.names += name + b"\0"


def match(old_records: bytes, old_names: bytes, records: bytes, names: bytes) -> list[int]:
    """Return for each record the number of the identical old record with the same path, or -1."""
    old = _identities(old_records, old_names)
    return [old.get(key, -1) for key in _identities(records, names)]


def _identities(records: bytes, names: bytes) -> dict[tuple[bytes, bytes], int]:
    """Map (path, what the entry is) to the entry's number; in order, since no path occurs twice."""
    result: dict[tuple[bytes, bytes], int] = {}
    known: list[bytes] = []
    for index, (name, fields) in enumerate(
        zip(names.split(b"\0"), RECORD.iter_unpack(records), strict=False)
    ):
        path = known[fields[10]] + b"/" + name if index else b""
        known.append(path)
        start = index * RECORD.size
        result[path, bytes(records[start : start + IDENTITY_BYTES])] = index
    return result
