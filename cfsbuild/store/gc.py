"""Removing what nothing uses any more, beside running builds and without losing what a build is about to use.

Mark without a lock; then, alone in the store, mark again and move the unused objects to the trash. The
trash is emptied a grace time later; until then a lookup that misses an object takes it back from there.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator

import msgspec

from cfsbuild import events
from cfsbuild.store import documents, images, layout, leases, locks, staging, syscalls
from cfsbuild.store.access import make_rooms
from cfsbuild.store.mark import Marker, Marks
from cfsbuild.store.objects import trash_batches
from cfsbuild.store.store import Store

GRACE_SECONDS = 600.0
KEEP_SECONDS = 30 * 86400.0
WAIT_SECONDS = 60.0
_STEP = 1024


class Kept(msgspec.Struct, frozen=True):
    """An object that stays, and why: the first reason found."""

    object: str
    why: str


class Removed(msgspec.Struct, frozen=True):
    """What goes: `kind` is "object", "image", "result", "layer", "tree" or "list"; `bytes` its size."""

    kind: str
    name: str
    bytes: int


class GcReport(msgspec.Struct, frozen=True, kw_only=True):
    """What gc did, or would do (`dry_run`).

    `removed` objects are in the trash until the grace time is over; `purged` counts the objects of earlier
    runs that are gone for good now, `purged_bytes` what that freed. `kept` is filled in by a dry run only.
    `foreign` says that composefs-rs keeps streams in the store, whose needs only `cfsctl gc` knows: no
    object was removed then.
    """

    version: int = 1
    dry_run: bool
    objects: int
    removed: tuple[Removed, ...]
    kept: tuple[Kept, ...] = ()
    purged: int = 0
    purged_bytes: int = 0
    leftovers: int = 0
    foreign: bool = False

    @property
    def removed_bytes(self) -> int:
        """Return the size of everything removed."""
        return sum(item.bytes for item in self.removed)


def collect(  # noqa: PLR0913 (the policy, each part by keyword)
    store: Store,
    *,
    dry_run: bool = False,
    grace: float = GRACE_SECONDS,
    keep_age: float = KEEP_SECONDS,
    wait: float = WAIT_SECONDS,
    listener: events.Listener = events.ignore,
) -> GcReport:
    """Remove what nothing uses; times in seconds.

    `keep_age` is how long a node result lives after its last use, `wait` how long to wait for builds that
    run. Raises `StoreError` when the store is in use for longer, when an image in use is damaged, or cannot
    be written.
    """
    marker = Marker(store, keep_age=keep_age)
    with store.errors("clean up"):
        if dry_run:
            return _plan(store, marker)
        store.check_writable()
        make_rooms(store.fd)
        with locks.collector(store.fd):
            leftovers = len(staging.remove_leftovers(store.fd))
            purged = _purge(store, grace)
            leases.living(store.fd, store.algorithm, remove_dead=True)
            marker.mark()
            note = events.Note(text=f"waiting up to {wait:g} seconds for the builds that use the store")
            with locks.exclusive(store.fd, seconds=wait, waiting=lambda: listener(note)):
                report = _sweep(store, marker.mark(), listener)
            if grace <= 0:
                purged = _add(purged, _purge(store, grace))
    return msgspec.structs.replace(report, leftovers=leftovers, purged=purged[0], purged_bytes=purged[1])


def _plan(store: Store, marker: Marker) -> GcReport:
    marks = marker.mark()
    kept = tuple(
        Kept(digest.hex(), marks.objects[digest]) for digest in store.objects.all() if digest in marks.objects
    )
    removed = (*_unused_documents(store, marks), *(item for _, item in _unused_objects(store, marks)))
    return GcReport(
        dry_run=True,
        objects=len(kept),
        removed=removed,
        kept=kept,
        leftovers=len(staging.leftovers(store.fd)),
        foreign=_has_streams(store),
    )


def _sweep(store: Store, marks: Marks, listener: events.Listener) -> GcReport:
    """Remove documents, then links, then objects, so that nothing ever names what is gone already."""
    removed = list(_unused_documents(store, marks))
    for item in removed:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{_DIRECTORIES[item.kind]}/{item.name}", dir_fd=store.fd)
    doomed = list(_unused_objects(store, marks))
    if doomed:
        batch = f"{layout.TRASH}/{layout.GC_TRASH}{time.time_ns():020d}-{os.urandom(4).hex()}"
        os.mkdir(batch, 0o700, dir_fd=store.fd)
        for done, (name, item) in enumerate(doomed):
            os.rename(name, f"{batch}/{item.name}", src_dir_fd=store.objects.fd, dst_dir_fd=store.fd)
            if done % _STEP == 0:
                listener(events.Progress(job="gc", unit="objects", done=done, total=len(doomed)))
        for shard in {name[:2] for name, _ in doomed}:
            syscalls.remove_if_empty(store.objects.fd, shard)
        listener(events.Progress(job="gc", unit="objects", done=len(doomed), total=len(doomed)))
    kept = sum(1 for _ in store.objects.all())
    return GcReport(
        dry_run=False,
        objects=kept,
        removed=(*removed, *(item for _, item in doomed)),
        foreign=_has_streams(store),
    )


_DIRECTORIES = {
    "result": layout.NODES,
    "layer": layout.LAYERS,
    "tree": layout.TREES,
    "image": layout.IMAGES,
    "list": layout.CONTENTS,
}


def _unused_documents(store: Store, marks: Marks) -> Iterator[Removed]:
    """Yield results before the layers that they name; strays are left to fsck."""
    in_use: dict[str, set[str]] = {
        "result": set(marks.results),
        "layer": set(marks.layers),
        "tree": set(marks.trees),
    }
    for kind, names in in_use.items():
        for name in documents.list_documents(store.fd, _DIRECTORIES[kind]):
            if layout.is_hex(name, 64) and name not in names:
                yield _removed(store, kind, name)
    for digest in images.list_images(store.fd, store.algorithm):
        if digest not in marks.images:
            yield _removed(store, "image", digest.hex())
    for name in documents.list_documents(store.fd, layout.CONTENTS):
        listed = layout.parse_digest(name, store.algorithm)
        if listed is not None and listed not in marks.images:
            yield _removed(store, "list", name)


def _removed(store: Store, kind: str, name: str) -> Removed:
    return Removed(kind, name, _size(store.fd, f"{_DIRECTORIES[kind]}/{name}"))


def _unused_objects(store: Store, marks: Marks) -> Iterator[tuple[str, Removed]]:
    """Yield (name below objects/, what it is) of each object that nothing needs."""
    if _has_streams(store):
        return
    for digest in store.objects.all():
        if digest not in marks.objects:
            name = layout.object_name(digest)
            yield name, Removed("object", digest.hex(), _size(store.objects.fd, name))


def _has_streams(store: Store) -> bool:
    """Say whether composefs-rs keeps streams here; which objects they need only it knows."""
    return bool(set(documents.list_documents(store.fd, layout.STREAMS)) - {"refs"})


def _size(directory_fd: int, name: str) -> int:
    try:
        return os.stat(name, dir_fd=directory_fd, follow_symlinks=False).st_size
    except FileNotFoundError:
        return 0


def _purge(store: Store, grace: float) -> tuple[int, int]:
    """Empty the trash of what has been there for `grace` seconds; return (objects, bytes)."""
    total = (0, 0)
    for batch in trash_batches(store.fd):
        path = f"{layout.TRASH}/{batch}"
        age = time.time() - os.stat(path, dir_fd=store.fd, follow_symlinks=False).st_mtime
        if grace > 0 and age < grace:
            continue
        names = documents.list_documents(store.fd, path)
        total = _add(total, (len(names), sum(_size(store.fd, f"{path}/{name}") for name in names)))
        syscalls.remove_tree(store.fd, path)
    return total


def _add(one: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
    return one[0] + other[0], one[1] + other[1]
