"""The layer of a `tree` node, patched: when of a large directory only a few files have changed.

The stat cache holds the last scan of the directory. A small document beside it says which layer that file of
the cache gave to a node of these parameters: the base. When the names and types are still the same, the
entries that differ are a small scan of their own; they go through the same functions as a whole one, once as
they were and once as they are, and what comes out differently is replaced in the base (`tree.patching`).
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
from blake3 import blake3

from cfsbuild import limits
from cfsbuild.events import ignore
from cfsbuild.limits import RACY_NS
from cfsbuild.nodes.kind import NodeContext
from cfsbuild.nodes.treelisting import Listing, listing_of, make_listing
from cfsbuild.store.ingest import absent, objects_directory
from cfsbuild.store.replacing import replacing
from cfsbuild.store.shards import Shards, look
from cfsbuild.store.sink import HashOnly
from cfsbuild.store.statcache import StatCache
from cfsbuild.store.statfile import Remembered, Values
from cfsbuild.tree import walk
from cfsbuild.tree.inode import Inode
from cfsbuild.tree.layer import Layer, extent
from cfsbuild.tree.patching import MOST_CHANGES, Change, LayerPatch, patch_layer
from cfsbuild.tree.scan import Scan

_COMPARED = 1024
"""How many records are compared at once."""


class Base(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The document: the stat cache's file with the digest `stat` gave `layer`.

    It must be that very file: another one for the same scan may know other contents, of a file that changed
    twice within one tick of the clock. `entries` and `bytes` as in a result. `shards` is the store's objects
    when those of the layer were last seen there.
    """

    stat: str
    layer: str
    entries: int
    bytes: int
    shards: Shards


class Shaping(msgspec.Struct, frozen=True, kw_only=True):
    """How a node makes a layer of a scan.

    `choose` returns the numbers of the entries to take, `entries` the paths and inodes that a listing has in
    the layer. `chosen_alone`: whether a directory is taken does not depend on what it holds.
    """

    preserve: frozenset[str]
    choose: Callable[[Scan], Sequence[int]]
    entries: Callable[[NodeContext, Listing], tuple[list[bytes], list[Inode]]]
    chosen_alone: bool


class PatchBase:
    """What is known about the last layer of one node's directory and parameters."""

    def __init__(self, context: NodeContext, state: Path, path: Path) -> None:
        self.cache = StatCache(state)
        self._context = context
        self._path = path

    @classmethod
    def of(cls, context: NodeContext, source: Path, canonical: Any) -> PatchBase | None:  # noqa: ANN401 (msgpack)
        """Return it for what shapes the layer besides the scan; None without a place for caches."""
        if context.state is None:
            return None
        parts = (
            os.path.realpath(os.fsencode(source)),
            context.sink.algorithm.value,
            canonical,
            context.owners,
        )
        key = blake3(msgspec.msgpack.encode(parts)).hexdigest(length=16)
        return cls(context, context.state, context.state / f"base-{key}.json")

    def remember(self, name: str, layer: Layer) -> None:
        """Note that what `cache` loaded or saved last gave `layer`, whose document is called `name`."""
        entries, size = extent(layer)
        self._save(name, entries, size, Shards())

    def patch(self, scan: Scan, kind: Shaping) -> LayerPatch | None:
        """Return the layer of `scan`; None when it has to be made the slow way."""
        old = self.cache.recall(scan, self._context.sink.algorithm)
        base = self._load(old)
        if old is None or base is None or self._context.layer_document is None:
            return None
        before = Scan(scan.root, old.records, bytes(old.names), old.taken_ns)
        numbers = _changed(before, scan)
        data = None if numbers is None else self._context.layer_document(base.layer)
        if numbers is None or data is None:
            return None
        if not kind.chosen_alone and any(stat.S_ISDIR(scan.mode[number]) for number in numbers):
            return None
        shards = self._look_for_unchanged(base, old.values, scan, numbers)
        if shards is None:
            return None
        values, changes = self._read(before, scan, old.values, numbers, kind)
        if changes is None or not patch_layer(data, changes):
            return None
        patch = LayerPatch(
            base=base.layer,
            name=blake3(data).hexdigest(),
            data=data,
            changes=changes,
            entries=base.entries,
            bytes=base.bytes + sum(change.new.size - change.old.size for change in changes),
        )
        if not isinstance(self._context.sink, HashOnly):
            # The shards of new objects have not been seen with them yet.
            shards = shards.without({change.new.digest[0] for change in changes if change.new.digest})
            self.cache.save_changed(old, scan, self._context.sink.algorithm, values, numbers)
            self._save(patch.name, patch.entries, patch.bytes, shards)
        return patch

    def _read(
        self, before: Scan, scan: Scan, known: Values, numbers: list[int], kind: Shaping
    ) -> tuple[Values, tuple[Change, ...] | None]:
        """Take in the entries `numbers`; return all values, and the changes (None: not only of files)."""
        quiet = msgspec.structs.replace(self._context, listener=ignore)
        kept = scan.with_parents(numbers)
        new, was = scan.only(kept), before.only(kept)
        chosen = kind.choose(new)
        places = [kept[position] for position in chosen]
        listing = make_listing(quiet, new, chosen, kind.preserve)
        paths, inodes = kind.entries(quiet, listing)
        former_values = [known[number] or b"" for number in places]
        _, former = kind.entries(quiet, listing_of(was, chosen, kind.preserve, former_values, {}))
        values = known.copy()
        for number in numbers:
            values[number] = None
        changes = []
        for number, path, value, one, other in zip(
            places, paths, listing.values, former, inodes, strict=True
        ):
            values[number] = value or None
            if one != other and number in numbers:
                changes.append(Change(path, one, other))
        files = all(change.old.is_regular and change.new.is_regular for change in changes)
        return values, tuple(changes) if files else None

    def _look_for_unchanged(self, base: Base, known: Values, scan: Scan, numbers: list[int]) -> Shards | None:
        """Return the shards before the objects of all files but `numbers` were found; None if one was not."""
        shards = look(objects_directory(self._context.sink))
        unsettled = frozenset(range(256)) - base.shards.settled(shards)
        doubtful = [number for number, value in enumerate(known) if value and value[0] in unsettled]
        sizes = scan.size
        digests: dict[bytes, int] = {}
        for number in set(doubtful).difference(numbers):
            value = known[number]
            if value is not None and sizes[number] > limits.INLINE_BYTES:
                digests[value] = sizes[number]
        return None if absent(self._context.sink, digests) else shards

    def _load(self, old: Remembered | None) -> Base | None:
        """Return the base if what is remembered is what it was made from."""
        if old is None:
            return None
        try:
            with self._path.open("rb") as file:
                if os.fstat(file.fileno()).st_uid != os.geteuid():
                    return None
                base = msgspec.json.decode(file.read(), type=Base)
        except (OSError, msgspec.DecodeError, msgspec.ValidationError):
            # None, or one of another version of this program: the slow way makes a new one.
            return None
        return base if base.stat == old.digest.hex() else None

    def _save(self, layer: str, entries: int, size: int, shards: Shards) -> None:
        """Note that the cache's file, if it has one, gave `layer`: fields as in `Base`."""
        if self.cache.digest is None:
            return
        base = Base(stat=self.cache.digest.hex(), layer=layer, entries=entries, bytes=size, shards=shards)
        # What cannot be written costs time later, and nothing else.
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with replacing(self._path) as file:
                file.write(msgspec.json.encode(base))


def _changed(before: Scan, scan: Scan) -> list[int] | None:
    """Return the numbers of the entries that may differ; None when it is not just a few files.

    Directories whose times changed are among them, as their extended attributes may be new.
    """
    if before.name_bytes != scan.name_bytes or len(before) != len(scan):
        return None
    newest = before.taken_ns - RACY_NS
    numbers = set(islice(_differing(before, scan), MOST_CHANGES + 1))
    numbers.update(islice(_younger(scan, newest), MOST_CHANGES + 1))
    if len(numbers) > MOST_CHANGES or not all(_patchable(before, scan, number) for number in numbers):
        return None
    return sorted(numbers)


def _differing(before: Scan, after: Scan) -> Iterator[int]:
    """Yield the numbers of entries whose records are not the same; most of them are."""
    size = walk.RECORD.size
    for start in range(0, len(after.records), size * _COMPARED):
        part = slice(start, start + size * _COMPARED)
        # Copied, as views are compared number by number: thirty times slower.
        old, new = bytes(before.records[part]), bytes(after.records[part])
        if old != new:
            for at in range(0, len(new), size):
                if old[at : at + size] != new[at : at + size]:
                    yield (start + at) // size


def _younger(scan: Scan, newest: int) -> Iterator[int]:
    """Yield the numbers of entries that changed after `newest` (ns); hardly any did."""
    times = scan.ctime_ns
    for start in range(0, len(times), _COMPARED):
        part = times[start : start + _COMPARED]
        if max(part) > newest:
            yield from (start + place for place, ctime in enumerate(part) if ctime > newest)


def _patchable(before: Scan, after: Scan, number: int) -> bool:
    """Say whether an entry is a directory or a file with one name, was, and is where it was."""
    old, new = before.record(number), after.record(number)
    if old[walk.PARENT] != new[walk.PARENT]:
        return False
    modes = old[walk.MODE], new[walk.MODE]
    if stat.S_ISDIR(modes[0]) and stat.S_ISDIR(modes[1]):
        return True
    links = old[walk.NLINK], new[walk.NLINK]
    return links == (1, 1) and stat.S_ISREG(modes[0]) and stat.S_ISREG(modes[1])
