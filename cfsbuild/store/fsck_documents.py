"""fsck of what cfsbuild keeps beside objects and images: results, layers, trees, lists, leases, leftovers."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator

from cfsbuild.errors import InputError
from cfsbuild.store import contents, documents, layout, leases, results, staging
from cfsbuild.store.findings import Finding, Report
from cfsbuild.store.store import Store
from cfsbuild.tree.layer import Layer, Tree, decode_layer, decode_tree, document_digest, objects_of

_ROOMS = frozenset(name.partition("/")[2] for name in layout.DIRECTORIES if name.startswith("cfsbuild/"))


def check_documents(store: Store, report: Report) -> int:
    """Check all documents; return how many there are. Raises `OSError`."""
    for name in documents.list_documents(store.fd, layout.ROOM):
        if name not in _ROOMS:
            report(Finding(kind="stray", where=f"{layout.ROOM}/{name}", details="not known", damage=False))
    count = _check_entries(store, layout.LAYERS, "layer-damaged", decode_layer, report)
    count += _check_entries(store, layout.TREES, "tree-damaged", decode_tree, report)
    count += _check_results(store, report)
    count += _check_lists(store, report)
    count += _check_leases(store, report)
    if documents.list_documents(store.fd, layout.STAGING):
        for name in staging.leftovers(store.fd):
            where = f"{layout.STAGING}/{name}"
            report(Finding(kind="leftover", where=where, details="its builder was killed", damage=False))
    return count


def _documents(store: Store, directory: str, report: Report) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of each file of a directory whose documents are named by 64 hex digits."""
    for name in documents.list_documents(store.fd, directory):
        where = f"{directory}/{name}"
        status = _status(store, where)
        if status is None:
            continue
        if not layout.is_hex(name, 64) or not stat.S_ISREG(status.st_mode):
            report(Finding(kind="stray", where=where, details="not a document"))
            continue
        data = documents.read_document(store.fd, directory, name)
        if data is not None:
            yield name, data
        elif _status(store, where) is not None:
            report(Finding(kind="document-unreadable", where=where, details="cannot be read"))


def _status(store: Store, where: str) -> os.stat_result | None:
    """Return a file's status; None when gc took it meanwhile."""
    try:
        return os.stat(where, dir_fd=store.fd, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _check_entries(
    store: Store, directory: str, kind: str, decode: Callable[[bytes], Layer | Tree], report: Report
) -> int:
    """Check layers or trees; return their number. `kind` is that of the finding for a damaged one."""
    count = 0
    for name, data in _documents(store, directory, report):
        count += 1
        where = f"{directory}/{name}"
        if document_digest(data) != name:
            report(Finding(kind=kind, where=where, details="its digest is not its name"))
            continue
        try:
            needed = objects_of(decode(data).entries)
        except InputError as error:
            report(Finding(kind=kind, where=where, details=error.brief))
            continue
        if missing := store.objects.missing(needed):
            details = f"{len(missing)} of the objects that it names are gone: its node runs again"
            report(Finding(kind="stale", where=where, details=details, damage=False))
    return count


def _check_results(store: Store, report: Report) -> int:
    """Check the results of nodes; return their number."""
    count = 0
    for key, data in _documents(store, layout.NODES, report):
        count += 1
        where = f"{layout.NODES}/{key}"
        try:
            result = results.decode_result(data, key)
        except InputError as error:
            report(Finding(kind="result-damaged", where=where, details=error.details or error.brief))
            continue
        if not layout.is_hex(result.layer, 64):
            report(Finding(kind="result-damaged", where=where, details="it names no layer"))
        elif _status(store, f"{layout.LAYERS}/{result.layer}") is None:
            details = "its layer is gone: its node runs again"
            report(Finding(kind="stale", where=where, details=details, damage=False))
    return count


def _check_lists(store: Store, report: Report) -> int:
    """Check the lists of images' objects for themselves; `check_images` compares them with the images."""
    count = 0
    for name in documents.list_documents(store.fd, layout.CONTENTS):
        where = f"{layout.CONTENTS}/{name}"
        if layout.parse_digest(name, store.algorithm) is None:
            report(Finding(kind="stray", where=where, details="its name is no digest"))
            continue
        count += 1
        data = documents.read_document(store.fd, layout.CONTENTS, name)
        try:
            contents.decode_contents(data or b"", store.algorithm)
        except InputError as error:
            report(Finding(kind="list-damaged", where=where, details=error.brief))
    return count


def _check_leases(store: Store, report: Report) -> int:
    names = documents.list_documents(store.fd, layout.LEASES)
    for name in names:
        if not leases.is_lease(store.fd, name):
            report(Finding(kind="lease-damaged", where=f"{layout.LEASES}/{name}", details="not a lease"))
    return len(names)
