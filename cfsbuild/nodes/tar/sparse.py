"""Sparse files: the four ways in which GNU tar writes where a file's data lies."""

from __future__ import annotations

from cfsbuild.nodes.tar import faults
from cfsbuild.nodes.tar.numbers import parse_decimal, parse_field
from cfsbuild.nodes.tar.pax import Records
from cfsbuild.nodes.tar.stream import BLOCK, ByteStream

EXTENTS = 1_000_000

Extent = tuple[int, int]
"""Offset and length in bytes."""

_OLD_MAP = 386
_OLD_PAIRS = 4
_OLD_EXTENDED = 482
_OLD_REAL_SIZE = slice(483, 495)
_MORE_PAIRS = 21
_MORE_EXTENDED = 504
_PAIR = 24


def old_gnu(block: bytes, stream: ByteStream) -> tuple[int, list[Extent]]:
    """Return (real size, extents) of a member of type S; reads the blocks that continue its header."""
    extents = _old_pairs(block, _OLD_MAP, _OLD_PAIRS)
    more = block[_OLD_EXTENDED]
    while more:
        block_of_pairs = stream.take(BLOCK)
        extents += _old_pairs(block_of_pairs, 0, _MORE_PAIRS)
        more = block_of_pairs[_MORE_EXTENDED]
        if len(extents) > EXTENTS:
            raise faults.over_limit(f"more than {EXTENTS} extents in a sparse file")
    return parse_field(block[_OLD_REAL_SIZE], "real size"), extents


def _old_pairs(block: bytes, start: int, count: int) -> list[Extent]:
    """Return the pairs in use; the first empty one ends them."""
    extents = []
    for offset in range(start, start + count * _PAIR, _PAIR):
        pair = block[offset : offset + _PAIR]
        if not pair.strip(b"\0"):
            break
        extents.append((parse_field(pair[:12], "sparse offset"), parse_field(pair[12:], "sparse length")))
    return extents


def from_records(records: Records) -> tuple[int, list[Extent]]:
    """Return (real size, extents) of the pax forms 0.0 and 0.1."""
    values = dict(records)
    size = parse_decimal(values.get(b"GNU.sparse.size", b""), "sparse size")
    if b"GNU.sparse.map" in values:
        numbers = values[b"GNU.sparse.map"].split(b",") if values[b"GNU.sparse.map"] else []
    else:
        numbers = [value for key, value in records if key in {b"GNU.sparse.offset", b"GNU.sparse.numbytes"}]
        keys = [key for key, _ in records if key in {b"GNU.sparse.offset", b"GNU.sparse.numbytes"}]
        if keys != [b"GNU.sparse.offset", b"GNU.sparse.numbytes"] * (len(keys) // 2):
            raise faults.malformed(faults.SPARSE, "offsets and lengths of a sparse file do not alternate")
    extents = _pair_up(numbers)
    blocks = values.get(b"GNU.sparse.numblocks")
    if blocks is not None and parse_decimal(blocks, "number of extents") != len(extents):
        raise faults.malformed(faults.SPARSE, "a sparse file has another number of extents than it says")
    return size, extents


def from_data(records: Records, stream: ByteStream) -> tuple[int, list[Extent], int]:
    """Return (real size, extents, bytes read) of the pax form 1.0, whose map precedes the data."""
    size = parse_decimal(dict(records).get(b"GNU.sparse.realsize", b""), "sparse size")
    text = stream.take(BLOCK)
    count_line, found, _ = text.partition(b"\n")
    if not found:
        raise faults.malformed(faults.SPARSE, "the map of a sparse file has no length")
    count = parse_decimal(count_line, "number of extents")
    if count > EXTENTS:
        raise faults.over_limit(f"more than {EXTENTS} extents in a sparse file")
    blocks = [text]
    lines = text.count(b"\n")
    while lines < 1 + 2 * count:
        blocks.append(stream.take(BLOCK))
        lines += blocks[-1].count(b"\n")
        if not blocks[-1].strip(b"\0"):
            raise faults.malformed(faults.SPARSE, "the map of a sparse file is cut off")
    numbers = b"".join(blocks).split(b"\n", 1 + 2 * count)[1:-1]
    return size, _pair_up(numbers), BLOCK * len(blocks)


def _pair_up(numbers: list[bytes]) -> list[Extent]:
    if len(numbers) % 2 or len(numbers) > 2 * EXTENTS:
        raise faults.malformed(faults.SPARSE, "the map of a sparse file is cut off or too long")
    values = [parse_decimal(number, "sparse map") for number in numbers]
    return list(zip(values[::2], values[1::2], strict=True))


def check_extents(extents: list[Extent], *, real_size: int, stored: int) -> list[Extent]:
    """Return the extents that hold data; raise unless they ascend, fit, and hold exactly `stored` bytes."""
    previous = total = 0
    for offset, length in extents:
        if offset < previous or length < 0 or offset + length > real_size:
            raise faults.malformed(faults.SPARSE, "extents of a sparse file overlap or lie outside of it")
        previous = offset + length
        total += length
    if total != stored:
        raise faults.malformed(
            faults.SPARSE, "a sparse file stores another number of bytes than its map says"
        )
    return [extent for extent in extents if extent[1]]
