"""Finding every damaged byte of a store, and mending what can be mended."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from cfsbuild import events
from cfsbuild.store import documents, layout, locks, repair
from cfsbuild.store.access import make_rooms
from cfsbuild.store.findings import Finding, FsckReport
from cfsbuild.store.fsck_documents import check_documents
from cfsbuild.store.fsck_images import check_images, check_refs
from cfsbuild.store.fsck_objects import check_objects
from cfsbuild.store.store import Store


def check_store(store: Store, *, threads: int = 1, listener: events.Listener = events.ignore) -> FsckReport:
    """Check everything in `store`; changes nothing. Raises `StoreError` when it cannot be read at all."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(store.errors("check"))
        if not store.read_only and documents.list_documents(store.fd, layout.LOCKS):
            # No sweep takes away what is being looked at. A read-only store has no sweep.
            stack.enter_context(locks.shared(store.fd))
        return _check(store, threads=threads, listener=listener)


def repair_store(
    store: Store,
    *,
    sources: Sequence[Store] = (),
    threads: int = 1,
    listener: events.Listener = events.ignore,
) -> FsckReport:
    """Check `store` and mend it: damaged and missing objects from `sources`, when they have them.

    Nothing is removed: what is damaged moves to a quarantine in `cfsbuild/trash`, and only after its
    replacement was verified, if there is one. Raises `StoreError` when the store cannot be written.
    """
    store.check_writable()
    with store.errors("repair"):
        make_rooms(store.fd)
        with locks.collector(store.fd), locks.shared(store.fd):
            report = _check(store, threads=threads, listener=listener)
            return repair.mend(store, report, sources)


def _check(store: Store, *, threads: int, listener: events.Listener) -> FsckReport:
    findings: list[Finding] = []
    objects, size = check_objects(store, findings.append, threads=threads, listener=listener)
    return FsckReport(
        objects=objects,
        bytes=size,
        images=check_images(store, findings.append),
        references=check_refs(store, findings.append),
        documents=check_documents(store, findings.append),
        findings=tuple(findings),
    )
