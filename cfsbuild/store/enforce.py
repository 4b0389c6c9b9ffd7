"""Turning fs-verity on for a store that was made without it."""

from __future__ import annotations

import msgspec

from cfsbuild import events
from cfsbuild.errors import VerificationError
from cfsbuild.fsverity import kernel
from cfsbuild.store import layout, locks
from cfsbuild.store.access import make_rooms
from cfsbuild.store.store import Store
from cfsbuild.store.verity import enable_meta, seal

_STEP = 256


class VerityReport(msgspec.Struct, frozen=True, kw_only=True):
    """What `enable_all` did: how many objects have fs-verity, and which do not, being damaged."""

    version: int = 1
    objects: int
    damaged: tuple[str, ...]
    enforced: bool


def enable_all(store: Store, *, listener: events.Listener = events.ignore) -> VerityReport:
    """Enable fs-verity for every object of a store, then for `meta.json`: new objects get it as well.

    Damaged objects are left for fsck, and `meta.json` then promises nothing yet. Raises `VerityUnsupported`
    when there is no fs-verity to be had here, `StoreError` when the store cannot be written.
    """
    store.check_writable()
    damaged = []
    with store.errors("enable fs-verity in"):
        make_rooms(store.fd)
    with (
        store.errors("enable fs-verity in"),
        locks.collector(store.fd),
        locks.shared(store.fd),
    ):
        digests = list(store.objects.all())
        for done, digest in enumerate(digests):
            if done % _STEP == 0:
                listener(events.Progress(job="enable-verity", unit="objects", done=done, total=len(digests)))
            try:
                seal(store.objects.fd, layout.object_name(digest), digest, store.algorithm)
            except VerificationError:
                damaged.append(digest.hex())
        listener(events.Progress(job="enable-verity", unit="objects", done=len(digests), total=len(digests)))
        reason = "damaged objects" if damaged else enable_meta(store.fd, store.algorithm)
    if reason and not damaged:
        raise kernel.VerityUnsupported(f"fs-verity cannot be enabled in store {store.path}", details=reason)
    return VerityReport(objects=len(digests) - len(damaged), damaged=tuple(damaged), enforced=not damaged)
