"""Patching: making a document again when only a few of its entries have changed.

A layer document and a dump hold the bytes of each entry one after the other, so the new document is the old
one with some entries' bytes replaced; in place, as to copy tens of megabytes would cost more than the rest.
Where an entry stands is not written down anywhere: its old bytes are looked for. They must be there exactly
once, or there is no patch, and the document is made the slow way. Whoever patches must know that nothing else
can have changed; a wrong belief about the old entry is no danger, since what is not found is not replaced.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import msgspec

from cfsbuild.tree.inode import Inode
from cfsbuild.tree.layer import Layer, decode_layer

MOST_CHANGES = 32
"""Beyond this many changed entries a document is made anew: every one costs a search of the whole."""

_encoder = msgspec.msgpack.Encoder()


class Change(msgspec.Struct, frozen=True):
    """An entry, a regular file with one name before and after, that is not what it was."""

    path: bytes
    old: Inode
    new: Inode


class LayerPatch(msgspec.Struct, frozen=True, kw_only=True):
    """A layer document, `data`, that differs from the document `base` in `changes` and nothing else.

    `entries` and `bytes` count its names and their content, as a node's result does.
    """

    base: str
    name: str
    data: bytearray
    changes: tuple[Change, ...]
    entries: int
    bytes: int

    @property
    def layer(self) -> Layer:
        """Return the layer that the document describes."""
        return decode_layer(self.data)


def replace_each(data: bytearray, pairs: Iterable[tuple[bytes, bytes]], *, shared: int = 0) -> bool:
    """Replace in `data` each first byte string of `pairs` by the second.

    False, and nothing is replaced, when one of them does not occur exactly once, or when two overlap. The
    last `shared` bytes of both are equal and may begin another one.
    """
    found: list[tuple[int, int, bytes]] = []
    for old, new in pairs:
        start = data.find(old)
        if start < 0 or data.find(old, start + 1) >= 0:
            return False
        found.append((start, start + len(old) - shared, new[: len(new) - shared]))
    return splice(data, found)


def splice(data: bytearray, pieces: Iterable[tuple[int, int, bytes]]) -> bool:
    """Replace in `data` each range (first byte, byte behind the last) of `pieces` by what it names.

    False, and nothing is replaced, when two overlap. What is behind a piece moves when its length is another:
    good for the few pieces of a patch.
    """
    ordered = sorted(pieces)
    if any(end > start for (_, end, _), (start, _, _) in pairwise(ordered)):
        return False
    for start, end, new in reversed(ordered):
        data[start:end] = new
    return True


def path_bytes(path: bytes) -> bytes:
    """Return how `path` stands in a layer document."""
    return _encoder.encode(path)


def patch_layer(data: bytearray, changes: Iterable[Change]) -> bool:
    """Make each of `changes` in the layer document `data`; False when that cannot be done."""
    return replace_each(
        data,
        (
            (
                path_bytes(change.path) + _encoder.encode(change.old),
                path_bytes(change.path) + _encoder.encode(change.new),
            )
            for change in changes
        ),
    )
