"""A member's content on its way to where objects are kept: in memory if small, else through a spool file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

from cfsbuild import limits
from cfsbuild.errors import StoreError
from cfsbuild.nodes.kind import ObjectSink
from cfsbuild.nodes.tar import faults
from cfsbuild.nodes.tar.members import Member, TarReader
from cfsbuild.nodes.tar.sparse import Extent

MEMORY_BYTES = 2**20
"""Larger members go through an anonymous temporary file."""


class Contents:
    """Takes the contents of one archive's members in.

    `sparse_budget` bounds the sizes of all sparse files together: their holes cost nothing in the archive,
    but every byte of them is hashed.
    """

    def __init__(self, reader: TarReader, sink: ObjectSink, *, sparse_budget: int) -> None:
        self._reader = reader
        self._sink = sink
        self._sparse_budget = sparse_budget

    def take(self, member: Member) -> tuple[bytes, bytes]:
        """Return (digest, content) of the regular file that the reader stands at; one or both are empty."""
        size = member.size
        if member.extents is not None:
            self._sparse_budget -= size
            if self._sparse_budget < 0:
                raise faults.over_limit("its sparse files are far larger than the archive")
        if size > MEMORY_BYTES:
            return self._spool(member), b""
        content = self._reader.whole_content(member)
        if member.extents is not None:
            content = _expand(content, size, member.extents)
        if size <= limits.INLINE_BYTES:
            return b"", content
        return self._sink.add_bytes(content), b""

    def _spool(self, member: Member) -> bytes:
        """Return the digest of a large file, whose bytes go through a temporary file without a name."""
        import tempfile  # noqa: PLC0415 (only for large members)

        extents = [(0, member.size)] if member.extents is None else member.extents
        with tempfile.TemporaryFile(buffering=0) as spool:
            fd = spool.fileno()
            _guard(lambda: os.ftruncate(fd, member.size))
            _write_extents(fd, self._reader.content(member), extents)
            digest, size = self._sink.add_fd(fd)
        if size != member.size:
            raise StoreError(f"a temporary file of {member.size} bytes was read back as {size} bytes")
        return digest


def _expand(stored: bytes, size: int, extents: list[Extent]) -> bytes:
    """Return a small sparse file with its holes filled."""
    content = bytearray(size)
    position = 0
    for offset, length in extents:
        content[offset : offset + length] = stored[position : position + length]
        position += length
    return bytes(content)


def _write_extents(fd: int, pieces: Iterable[bytes], extents: list[Extent]) -> None:
    """Write `pieces` into `extents` of `fd`, leave holes between them, and go back to the start."""
    remaining = iter(extents)
    offset, room = next(remaining, (0, 0))
    for piece in pieces:
        view = memoryview(piece)
        while view:
            if not room:
                offset, room = next(remaining)
            part = view[:room]
            written = _guard(lambda part=part, offset=offset: os.pwrite(fd, part, offset))  # type: ignore[misc]
            view = view[written:]
            offset += written
            room -= written
    os.lseek(fd, 0, os.SEEK_SET)


def _guard(action: Callable[[], int | None]) -> int:
    """Do something to the temporary file; raise `StoreError` if the file system cannot."""
    try:
        return action() or 0
    except OSError as error:
        raise StoreError(
            f"cannot write a temporary file: {error.strerror}",
            resolution="Set TMPDIR to a directory with enough room for the largest member.",
            reason="spool",
        ) from error
