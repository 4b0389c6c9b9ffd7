"""fsck of what cfsbuild keeps beside objects and images: results, layers, trees, lists, leases, leftovers."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable

from cfsbuild.errors import InputError
from cfsbuild.store import contents, documents, layout, leases, results, staging, trees
from cfsbuild.store.findings import Finding, Report
from cfsbuild.store.store import Store
from cfsbuild.tree.layer import decode_layer, document_digest

_ROOMS = frozenset(name.partition("/")[2] for name in layout.DIRECTORIES if name.startswith("cfsbuild/"))


def check_documents(store: Store, report: Report) -> int:
    """Check all documents; return how many there are. Raises `OSError`."""
    for name in documents.list_documents(store.fd, layout.ROOM):
        if name not in _ROOMS:
            report(Finding(kind="stray", where=f"{layout.ROOM}/{name}", details="not known", damage=False))
    count = _check_all(
        store, layout.LAYERS, report, lambda name, data: _check_layer(store, name, data, report)
    )
    count += _check_all(
        store, layout.TREES, report, lambda name, data: _check_tree(store, name, data, report)
    )
    count += _check_all(
        store, layout.NODES, report, lambda name, data: _check_result(store, name, data, report)
    )
    count += _check_lists(store, report)
    count += _check_leases(store, report)
    if documents.list_documents(store.fd, layout.STAGING):
        for name in staging.leftovers(store.fd):
            where = f"{layout.STAGING}/{name}"
            report(Finding(kind="leftover", where=where, details="its builder was killed", damage=False))
    return count


def _check_all(store: Store, directory: str, report: Report, check: Callable[[str, bytes], None]) -> int:
    """Check each file of a directory of documents with names of 64 hex digits; return their number."""
    count = 0
    for name in documents.list_documents(store.fd, directory):
        where = f"{directory}/{name}"
        status = _status(store, where)
        if status is None:
            continue
        if not layout.is_hex(name, 64) or not stat.S_ISREG(status.st_mode):
            report(Finding(kind="stray", where=where, details="not a document"))
            continue
        data = documents.read_document(store.fd, directory, name)
        if data is None:
            if _status(store, where) is not None:
                report(Finding(kind="document-unreadable", where=where, details="cannot be read"))
            continue
        count += 1
        check(name, data)
    return count


def _status(store: Store, where: str) -> os.stat_result | None:
    """Return a file's status; None when gc took it meanwhile."""
    try:
        return os.stat(where, dir_fd=store.fd, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _check_layer(store: Store, name: str, data: bytes, report: Report) -> None:
    where = f"{layout.LAYERS}/{name}"
    if document_digest(data) != name:
        report(Finding(kind="layer-damaged", where=where, details="its digest is not its name"))
        return
    try:
        layer = decode_layer(data)
    except InputError as error:
        report(Finding(kind="layer-damaged", where=where, details=error.brief))
        return
    _note_missing(store, where, documents.layer_objects(layer), report)


def _check_tree(store: Store, name: str, data: bytes, report: Report) -> None:
    where = f"{layout.TREES}/{name}"
    if document_digest(data) != name:
        report(Finding(kind="tree-damaged", where=where, details="its digest is not its name"))
        return
    try:
        tree = trees.decode_tree(data)
    except InputError as error:
        report(Finding(kind="tree-damaged", where=where, details=error.brief))
        return
    _note_missing(store, where, documents.tree_objects(tree), report)


def _note_missing(store: Store, where: str, needed: set[bytes], report: Report) -> None:
    if missing := store.objects.missing(needed):
        details = f"{len(missing)} of the objects that it names are gone: its node runs again"
        report(Finding(kind="stale", where=where, details=details, damage=False))


def _check_result(store: Store, key: str, data: bytes, report: Report) -> None:
    where = f"{layout.NODES}/{key}"
    try:
        result = results.decode_result(data, key)
    except InputError as error:
        report(Finding(kind="result-damaged", where=where, details=error.details or error.brief))
        return
    if not layout.is_hex(result.layer, 64):
        report(Finding(kind="result-damaged", where=where, details="it names no layer"))
    elif _status(store, f"{layout.LAYERS}/{result.layer}") is None:
        report(
            Finding(kind="stale", where=where, details="its layer is gone: its node runs again", damage=False)
        )


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
