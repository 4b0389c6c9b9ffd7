"""Patching: making a document again when only a few of its entries have changed.

A layer document and a dump hold the bytes of each entry one after the other, so the new document is the old
one with some entries' bytes replaced. Where an entry stands is not written down anywhere: its old bytes are
looked for. They must be there exactly once, or there is no patch, and the document is made the slow way.
Whoever patches must know that nothing else can have changed; a wrong belief about the old entry is no danger,
since what is not found is not replaced.
"""

from __future__ import annotations

from collections.abc import Iterable

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
    data: bytes
    changes: tuple[Change, ...]
    entries: int
    bytes: int

    @property
    def layer(self) -> Layer:
        """Return the layer that the document describes."""
        return decode_layer(self.data)


def replace_each(data: bytes, pairs: Iterable[tuple[bytes, bytes]], *, shared: int = 0) -> bytes | None:
    """Return `data` with each first byte string of `pairs` replaced by the second.

    None when one of them does not occur exactly once, or when two overlap. The last `shared` bytes of both
    are equal and may begin another one.
    """
    found: list[tuple[int, int, bytes]] = []
    for old, new in pairs:
        start = data.find(old)
        if start < 0 or data.find(old, start + 1) >= 0:
            return None
        found.append((start, start + len(old) - shared, new[: len(new) - shared]))
    return splice(data, found)


def splice(data: bytes, pieces: Iterable[tuple[int, int, bytes]]) -> bytes | None:
    """Return `data` with each range (first byte, byte behind the last) of `pieces` replaced by what it names.

    None when two overlap.
    """
    parts: list[bytes | memoryview] = []
    view, at = memoryview(data), 0
    for start, end, new in sorted(pieces):
        if start < at:
            return None
        parts += (view[at:start], new)
        at = end
    return b"".join((*parts, view[at:]))


def path_bytes(path: bytes) -> bytes:
    """Return how `path` stands in a layer document."""
    return _encoder.encode(path)


def patch_layer(data: bytes, changes: Iterable[Change]) -> bytes | None:
    """Return the layer document `data` with each of `changes` made; None when that cannot be done."""
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
