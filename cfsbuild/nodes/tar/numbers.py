"""Numbers in tar headers and pax records."""

from __future__ import annotations

from cfsbuild.nodes.tar import faults

DECIMAL_DIGITS = 20
NANOSECONDS = 10**9
TIME_NS_MAX = 2**63 - 1
"""Times are kept as signed 64-bit nanoseconds: the years 1677 to 2262."""


def parse_field(field: bytes, name: str) -> int:
    """Return the number in a header field: octal ASCII, or base 256 if the first byte is 0x80 or 0xff.

    An empty field is 0. Raises `InputError`.
    """
    if field[0] >= 0x80:
        if field[0] == 0x80:
            return int.from_bytes(field[1:], "big")
        if field[0] == 0xFF:
            return int.from_bytes(field, "big", signed=True)
        raise faults.malformed(faults.NUMBER, f"{name} is a binary number of unknown form")
    digits = field.strip(b" \0")
    if not digits:
        return 0
    # int() alone would take signs, underscores and "0o".
    if not digits.isdigit():
        raise faults.malformed(faults.NUMBER, f"{name} is not an octal number")
    try:
        return int(digits, 8)
    except ValueError:
        raise faults.malformed(faults.NUMBER, f"{name} is not an octal number") from None


def parse_decimal(value: bytes, name: str) -> int:
    """Return a non-negative decimal number of at most 20 digits. Raises `InputError`."""
    if not value.isdigit() or len(value) > DECIMAL_DIGITS:
        raise faults.malformed(
            faults.NUMBER, f"{name} is not a decimal number of at most {DECIMAL_DIGITS} digits"
        )
    return int(value)


def parse_time(value: bytes) -> int:
    """Return a pax time (`[-]seconds[.fraction]`) in nanoseconds, rounded down. Raises `InputError`."""
    negative = value.startswith(b"-")
    seconds, dot, fraction = value[negative:].partition(b".")
    if not seconds.isdigit() or len(value) > 2 * DECIMAL_DIGITS or (dot and not fraction.isdigit()):
        raise faults.malformed(faults.NUMBER, "a time is not a decimal number")
    nanoseconds = int(seconds) * NANOSECONDS + int(fraction[:9].ljust(9, b"0"))
    if negative:
        nanoseconds = -nanoseconds - bool(fraction[9:].strip(b"0"))
    return check_time(nanoseconds)


def check_time(nanoseconds: int) -> int:
    """Return `nanoseconds` if they fit into 64 bits. Raises `InputError`."""
    if not -TIME_NS_MAX <= nanoseconds <= TIME_NS_MAX:
        raise faults.malformed(faults.NUMBER, "a time lies outside of the years 1677 to 2262")
    return nanoseconds
