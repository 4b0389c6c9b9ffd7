"""Who owns which bytes of an image: every structure claims its own, and no byte has two owners."""

from __future__ import annotations

from cfsbuild.erofs import damage
from cfsbuild.erofs import format as fmt


class Extents:
    """Claims on an image of `size` bytes (at most 2^31).

    The sum of all claims is kept below `size` at all times, so that work and memory spent on an image stay
    linear in its size even if its structures point to each other; `check` then finds any two that overlap.
    """

    __slots__ = ("_claims", "_free")

    def __init__(self, size: int) -> None:
        self._free = size - fmt.INODES_OFFSET
        self._claims = [fmt.INODES_OFFSET]

    def claim(self, start: int, end: int) -> None:
        """Take the bytes from `start` to `end`, which must lie inside the image."""
        self._free -= end - start
        if self._free < 0:
            raise damage.damaged(damage.OVERLAP, "its parts claim more bytes than it has")
        self._claims.append(start << 32 | end)

    def check(self) -> None:
        """Raise `InputError` if two claims overlap."""
        claims = sorted(self._claims)
        previous_end = 0
        for claim in claims:
            if claim >> 32 < previous_end:
                raise damage.damaged(damage.OVERLAP, f"two parts share the bytes at offset {claim >> 32}")
            previous_end = claim & 0xFFFFFFFF
