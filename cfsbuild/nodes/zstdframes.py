"""Where zstd frames end (RFC 8878): the decoder itself does not tell a cut-off file from a complete one."""

from __future__ import annotations

from collections.abc import Callable

_MAGIC = 0xFD2FB528
_SKIPPABLE = 0x184D2A50
_SKIPPABLE_MASK = 0xFFFFFFF0
_RLE_BLOCK = 1


class FrameWatcher:
    """Follows the frames in a stream of compressed bytes; `complete` says whether it may end here.

    Anything that is no frame is left to the decoder to complain about.
    """

    def __init__(self) -> None:
        self._skip = 0
        self._wanted = 4
        self._collected = b""
        self._step: Callable[[bytes], None] = self._magic
        self._checksum = False
        self._started = False

    @property
    def complete(self) -> bool:
        """Say whether at least one frame was seen and the last one has ended."""
        return self._started and self._step == self._magic and not self._collected and not self._skip

    def feed(self, data: bytes) -> None:
        """Follow `data`, the next piece of the stream."""
        position = 0
        while position < len(data):
            if self._skip:
                step = min(self._skip, len(data) - position)
                self._skip -= step
                position += step
                continue
            piece = data[position : position + self._wanted - len(self._collected)]
            position += len(piece)
            self._collected += piece
            if len(self._collected) == self._wanted:
                collected, self._collected = self._collected, b""
                self._step(collected)

    def _expect(self, wanted: int, step: Callable[[bytes], None], *, skip: int = 0) -> None:
        self._skip = skip
        self._wanted = wanted
        self._step = step

    def _magic(self, data: bytes) -> None:
        magic = int.from_bytes(data, "little")
        self._started = True
        if magic & _SKIPPABLE_MASK == _SKIPPABLE:
            self._expect(4, self._skippable)
        elif magic == _MAGIC:
            self._expect(1, self._descriptor)

    def _skippable(self, data: bytes) -> None:
        self._expect(4, self._magic, skip=int.from_bytes(data, "little"))

    def _descriptor(self, data: bytes) -> None:
        descriptor = data[0]
        single_segment = descriptor >> 5 & 1
        self._checksum = bool(descriptor & 4)
        content_size = (single_segment, 2, 4, 8)[descriptor >> 6]
        dictionary_id = (0, 1, 2, 4)[descriptor & 3]
        self._expect(3, self._block, skip=1 - single_segment + dictionary_id + content_size)

    def _block(self, data: bytes) -> None:
        header = int.from_bytes(data, "little")
        size = 1 if header >> 1 & 3 == _RLE_BLOCK else header >> 3
        if not header & 1:
            self._expect(3, self._block, skip=size)
        else:
            self._expect(4, self._magic, skip=size + 4 * self._checksum)
