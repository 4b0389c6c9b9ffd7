"""Just enough DER (X.690) to write one form, and to take apart what claims to be in it.

Only definite lengths in their shortest form, and tags of one byte. What an element means is the caller's.
"""

from __future__ import annotations

from typing import NamedTuple

OCTET_STRING = 0x04
SEQUENCE = 0x30
SET = 0x31
CONTEXT_0 = 0xA0
CONTEXT_1 = 0xA1

_LENGTH_BYTES = 4


class Element(NamedTuple):
    """One element: its tag, what is in it, and all its bytes."""

    tag: int
    content: bytes
    whole: bytes


def encode(tag: int, *contents: bytes) -> bytes:
    """Return an element with `contents`, one after the other, in it."""
    content = b"".join(contents)
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + content


def elements(data: bytes) -> list[Element]:
    """Return the elements that follow each other in `data`. Raises `ValueError` if anything else is in it."""
    found = []
    start = 0
    while start < len(data):
        tag = data[start]
        if tag & 0x1F == 0x1F:
            raise ValueError(f"a tag of several bytes at {start}")
        content, end = _extent(data, start + 1)
        whole = data[start:end]
        if len(whole) != end - start or encode(tag, data[content:end]) != whole:
            raise ValueError(f"no whole element in DER at {start}")
        found.append(Element(tag, data[content:end], whole))
        start = end
    return found


def _extent(data: bytes, at: int) -> tuple[int, int]:
    """Return where the content begins whose length stands at `at`, and where it ends."""
    first = data[at] if at < len(data) else 0
    if first < 0x80:
        return at + 1, at + 1 + first
    count = first & 0x7F
    if not 1 <= count <= _LENGTH_BYTES:
        raise ValueError(f"a length of {count} bytes at {at}")
    begin = at + 1 + count
    return begin, begin + int.from_bytes(data[at + 1 : begin], "big")


def only(data: bytes, tag: int) -> bytes:
    """Return the content of the one element, of this tag, that `data` is. Raises `ValueError`."""
    found = elements(data)
    if [element.tag for element in found] != [tag]:
        raise ValueError(f"not one element with tag {tag:#04x}")
    return found[0].content
