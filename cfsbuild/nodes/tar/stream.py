"""Bytes in order: what the tar reader stands on."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from cfsbuild.nodes.tar import faults

READ_BYTES = 1 << 20
BLOCK = 512


class ByteStream:
    """Exact reads over a source that gives what it has.

    `read(n)` returns at least one and at most `n` bytes, or nothing at the end.
    """

    __slots__ = ("_buffer", "_position", "_read")

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self._buffer = b""
        self._position = 0

    def take(self, size: int) -> bytes:
        """Return the next `size` bytes, which are known to be few. Raises `InputError` at the end."""
        end = self._position + size
        if end <= len(self._buffer):
            data = self._buffer[self._position : end]
            self._position = end
            return data
        parts = list(self.pieces(size))
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def pieces(self, size: int) -> Iterator[bytes]:
        """Yield the next `size` bytes in pieces of at most READ_BYTES. Raises `InputError` at the end."""
        while size:
            piece = self._buffer[self._position : self._position + size]
            if piece:
                self._position += len(piece)
                size -= len(piece)
                yield piece
                continue
            self._buffer = self._read(READ_BYTES)
            self._position = 0
            if not self._buffer:
                raise faults.malformed(faults.TRUNCATED, "it ends in the middle")

    def skip(self, size: int) -> None:
        """Drop the next `size` bytes. Raises `InputError` at the end."""
        if self._position + size <= len(self._buffer):
            self._position += size
            return
        for _ in self.pieces(size):
            pass

    def take_padded(self, size: int) -> bytes:
        """Return the next `size` bytes and drop the padding to a whole block."""
        data = self.take(size)
        self.skip(-size % BLOCK)
        return data

    def rest(self) -> Iterator[bytes]:
        """Yield everything up to the end."""
        if self._position < len(self._buffer):
            yield self._buffer[self._position :]
        self._buffer = b""
        self._position = 0
        while data := self._read(READ_BYTES):
            yield data
