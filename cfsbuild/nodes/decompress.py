"""Decompression of untrusted streams: bounded windows, bounded output, nothing after the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from cfsbuild import limits
from cfsbuild.nodes.tar import faults
from cfsbuild.nodes.zstdframes import FrameWatcher

Read = Callable[[int], bytes]
"""Returns at least one and at most that many bytes, or nothing at the end."""

MEMORY_BYTES = 256 * 2**20
"""Largest memory of an xz decoder."""
WINDOW_BYTES = 128 * 2**20
"""Largest window of a zstd frame."""

# Leftovers behind a member are copied, so short members cost time in proportion to this.
_CHUNK = 64 * 1024

_MAGICS = {
    "gzip": b"\x1f\x8b",
    "bzip2": b"BZh",
    "xz": b"\xfd7zXZ\x00",
    "zstd": b"\x28\xb5\x2f\xfd",
}


def detect(head: bytes) -> str:
    """Return the compression whose magic number `head` begins with; `none` if there is none."""
    return next((name for name, magic in _MAGICS.items() if head.startswith(magic)), "none")


def decompressed(read: Read, compression: str) -> Read:
    """Return a reader of what `read` gives, decompressed.

    It raises `InputError` for damaged and truncated streams, for anything behind the last member but zero
    padding, and when the output exceeds limits.INPUT_BYTES, or limits.EXPANSION_RATIO times the input beyond
    limits.EXPANSION_FREE_BYTES.
    """
    counted = _Counted(read)
    if compression == "none":
        return _Bounded(counted.read, counted, ratio=False).read
    if compression == "zstd":
        return _Bounded(_Zstd(counted.read).read, counted, ratio=True).read
    return _Bounded(_Members(counted.read, compression).read, counted, ratio=True).read


class _Counted:
    """Counts what is read."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self.total = 0

    def read(self, size: int) -> bytes:
        data = self._read(size)
        self.total += len(data)
        return data


class _Bounded:
    """Stops a stream that gives too much."""

    def __init__(self, read: Read, source: _Counted, *, ratio: bool) -> None:
        self._read = read
        self._source = source
        self._ratio = ratio
        self._total = 0

    def read(self, size: int) -> bytes:
        data = self._read(size)
        self._total += len(data)
        if self._total > limits.INPUT_BYTES:
            raise faults.over_limit(f"it expands to more than {limits.INPUT_BYTES} bytes")
        free = limits.EXPANSION_FREE_BYTES
        if self._ratio and self._total > free + limits.EXPANSION_RATIO * self._source.total:
            raise faults.over_limit(
                f"it expands by more than {limits.EXPANSION_RATIO}, beyond the first {free} bytes"
            )
        return data


class _Decompressor(Protocol):
    """What bz2 and lzma offer, and `_Gzip` below."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = ...) -> bytes: ...


class _Gzip:
    """One member of a gzip file."""

    def __init__(self) -> None:
        import zlib  # noqa: PLC0415 (only when asked for)

        self._inner = zlib.decompressobj(wbits=31)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int = 0) -> bytes:
        result = self._inner.decompress(self._inner.unconsumed_tail + data, max_length)
        self.needs_input = not self._inner.unconsumed_tail and len(result) < max_length
        return result


def _new_decompressor(compression: str) -> _Decompressor:
    if compression == "gzip":
        return _Gzip()
    if compression == "bzip2":
        import bz2  # noqa: PLC0415 (only when asked for)

        return bz2.BZ2Decompressor()
    import lzma  # noqa: PLC0415 (only when asked for)

    return lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=MEMORY_BYTES)


def _stream_errors(compression: str) -> tuple[type[Exception], ...]:
    """Return what a decompressor raises on a damaged stream."""
    if compression == "gzip":
        import zlib  # noqa: PLC0415 (only when asked for)

        return (zlib.error,)
    if compression == "bzip2":
        return (OSError, ValueError)
    import lzma  # noqa: PLC0415 (only when asked for)

    return (lzma.LZMAError,)


class _Members:
    """A file of one or more gzip, bzip2 or xz members."""

    def __init__(self, read: Read, compression: str) -> None:
        self._read = read
        self._compression = compression
        self._errors = _stream_errors(compression)
        self._inner: _Decompressor | None = None
        self._pending = b""
        self._begun = False

    def read(self, size: int) -> bytes:
        while self._inner or self._begin():
            inner = self._inner
            if inner is None:
                continue
            data = b""
            if inner.needs_input:
                data = self._pending or self._read(_CHUNK)
                self._pending = b""
                if not data:
                    raise faults.malformed(faults.TRUNCATED, f"its {self._compression} stream is cut off")
            try:
                result = inner.decompress(data, size)
            except self._errors as error:
                raise faults.malformed(
                    faults.COMPRESSION, f"its {self._compression} stream is damaged ({error})"
                ) from error
            if inner.eof:
                self._pending = inner.unused_data
                self._inner = None
            if result:
                return result
        return b""

    def _begin(self) -> bool:
        """Start on the next member; say whether there is one."""
        magic = _MAGICS[self._compression]
        data = self._pending.lstrip(b"\0") if self._begun else self._pending
        self._pending = b""
        while len(data) < len(magic):
            more = self._read(_CHUNK)
            if not more:
                break
            # Members may be padded with zeros.
            data = (data + more).lstrip(b"\0") if self._begun else data + more
        if self._begun and not data:
            return False
        if not data.startswith(magic):
            raise faults.malformed(
                faults.TRAILING if self._begun else faults.COMPRESSION,
                f"something that is not {self._compression} data stands where a member should begin",
            )
        self._begun = True
        self._inner = _new_decompressor(self._compression)
        self._pending = data
        return True


class _Zstd:
    """A file of one or more zstd frames."""

    def __init__(self, read: Read) -> None:
        import zstandard  # noqa: PLC0415 (only when asked for)

        self._error = zstandard.ZstdError
        self._source = _Watched(read)
        decompressor = zstandard.ZstdDecompressor(max_window_size=WINDOW_BYTES)
        self._inner = decompressor.stream_reader(
            self._source,  # type: ignore[arg-type]  # only its read method is used
            read_size=_CHUNK,
            read_across_frames=True,
        )

    def read(self, size: int) -> bytes:
        try:
            data = self._inner.read(size)
        except self._error as error:
            raise faults.malformed(faults.COMPRESSION, f"its zstd stream is damaged ({error})") from error
        if not data and not self._source.frames.complete:
            raise faults.malformed(faults.TRUNCATED, "its zstd stream is cut off")
        return data


class _Watched:
    """What the zstd decoder reads from."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self.frames = FrameWatcher()

    def read(self, size: int) -> bytes:
        data = self._read(size)
        self.frames.feed(data)
        return data
