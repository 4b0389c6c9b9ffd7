"""pax extended headers: `LENGTH KEY=VALUE` records (POSIX.1-2001)."""

from __future__ import annotations

from cfsbuild.nodes.tar import faults

HEADER_BYTES = 2**20
RECORDS = 10_000
_LENGTH_DIGITS = 7

Records = list[tuple[bytes, bytes]]


def parse_records(data: bytes) -> Records:
    """Return the (key, value) records in `data`, in order. Raises `InputError`.

    Work is linear in the size of `data`, whatever the lengths claim.
    """
    records: Records = []
    position = 0
    while position < len(data):
        space = data.find(b" ", position, position + _LENGTH_DIGITS + 1)
        digits = data[position:space] if space > 0 else b""
        if not digits.isdigit():
            raise faults.malformed(faults.EXTENSION, "a pax record has no length")
        end = position + int(digits)
        equals = data.find(b"=", space + 1, end)
        if end > len(data) or equals <= space + 1 or data[end - 1 : end] != b"\n":
            raise faults.malformed(faults.EXTENSION, "a pax record's length is wrong")
        records.append((data[space + 1 : equals], data[equals + 1 : end - 1]))
        if len(records) > RECORDS:
            raise faults.over_limit(f"more than {RECORDS} pax records for one member")
        position = end
    return records
