"""Bytes as a TPM has them: big endian, lengths of two bytes before what varies (TPM2B)."""

from __future__ import annotations

from cfsbuild.errors import InputError


def u8(value: int) -> bytes:
    """Return one byte."""
    return value.to_bytes(1, "big")


def u16(value: int) -> bytes:
    """Return two bytes."""
    return value.to_bytes(2, "big")


def u32(value: int) -> bytes:
    """Return four bytes."""
    return value.to_bytes(4, "big")


def u64(value: int) -> bytes:
    """Return eight bytes."""
    return value.to_bytes(8, "big")


def sized(data: bytes) -> bytes:
    """Return a TPM2B: the length in two bytes, then `data`."""
    return u16(len(data)) + data


def malformed(what: str, details: str) -> InputError:
    """Return the error for bytes that are not the structure they should be (reason `tpm-structure`)."""
    return InputError(f"{what} is malformed", details=details, reason="tpm-structure")


class Reader:
    """A place in bytes that came from outside. All methods raise `InputError` (reason `tpm-structure`).

    `what` names the bytes in messages.
    """

    def __init__(self, data: bytes, what: str) -> None:
        self._data = data
        self._what = what
        self._at = 0

    @property
    def at(self) -> int:
        """How many bytes were taken."""
        return self._at

    def take(self, count: int) -> bytes:
        """Return the next `count` bytes."""
        if count > len(self._data) - self._at:
            raise self.error(f"{count} bytes should follow byte {self._at}; {self.left()} do")
        self._at += count
        return self._data[self._at - count : self._at]

    def u8(self) -> int:
        """Return the next byte."""
        return self.take(1)[0]

    def u16(self) -> int:
        """Return the next two bytes as a number."""
        return int.from_bytes(self.take(2), "big")

    def u32(self) -> int:
        """Return the next four bytes as a number."""
        return int.from_bytes(self.take(4), "big")

    def sized(self, limit: int) -> bytes:
        """Return the content of a TPM2B that may have `limit` bytes."""
        count = self.u16()
        if count > limit:
            raise self.error(f"{count} bytes before byte {self._at}; {limit} are allowed")
        return self.take(count)

    def expect(self, value: int, found: int, meaning: str) -> None:
        """Raise unless `found`, which was read for `meaning`, is `value`."""
        if found != value:
            raise self.error(f"{meaning} is {found:#x} and should be {value:#x}")

    def left(self) -> int:
        """Return how many bytes were not taken."""
        return len(self._data) - self._at

    def end(self) -> None:
        """Raise if bytes are left."""
        if self.left():
            raise self.error(f"{self.left()} bytes too many")

    def error(self, details: str) -> InputError:
        """Return the error to raise about these bytes."""
        return malformed(self._what, details)
