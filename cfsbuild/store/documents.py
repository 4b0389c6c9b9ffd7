"""Reading the documents of a store.

Whatever is missing, damaged or untrusted is a cache miss, never an error. fsck reports damage;
a build only builds again what it cannot read.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Callable, Collection
from typing import TypeVar

from cfsbuild import limits
from cfsbuild.errors import InputError
from cfsbuild.store import layout, results, syscalls
from cfsbuild.tree.layer import Layer, Tree, decode_layer, decode_tree, document_digest

Document = TypeVar("Document", Layer, Tree)

_TOUCH_SECONDS = 3600
"""A result that is used gets a new mtime, but not more often than this: gc counts its age from there."""


def list_documents(store_fd: int, directory: str) -> list[str]:
    """Return the names in a directory of documents, sorted, strays too; none when it is absent.

    Raises `OSError`.
    """
    try:
        return syscalls.names_in(directory, dir_fd=store_fd)
    except FileNotFoundError:
        return []


def read_document(
    store_fd: int, directory: str, name: str, *, limit: int = limits.DOCUMENT_BYTES
) -> bytes | None:
    """Return a document's bytes; None when it is not there or not a file that can be read."""
    try:
        return syscalls.read_file(store_fd, f"{directory}/{name}", limit=limit)
    except OSError:
        return None


def read_layer_document(store_fd: int, name: str) -> bytearray | None:
    """Return the bytes of the layer `name`; None when it is absent or not what its name says."""
    path = f"{layout.LAYERS}/{layout.check_document(name)}"
    try:
        data = syscalls.read_file_to_change(store_fd, path, limit=limits.DOCUMENT_BYTES)
    except OSError:
        return None
    return data if document_digest(data) == name else None


def read_layer(store_fd: int, name: str) -> Layer | None:
    """Return the layer `name`; None when it is absent or not what its name says."""
    return _read(store_fd, layout.LAYERS, name, decode_layer)


def read_tree(store_fd: int, name: str) -> Tree | None:
    """Return the tree `name`; None when it is absent or not what its name says."""
    return _read(store_fd, layout.TREES, name, decode_tree)


def _read(store_fd: int, directory: str, name: str, decode: Callable[[bytes], Document]) -> Document | None:
    data = read_document(store_fd, directory, layout.check_document(name))
    if data is None or document_digest(data) != name:
        return None
    try:
        return decode(data)
    except InputError:
        return None


def read_result(
    store_fd: int, key: str, owners: Collection[int] | None, *, use: bool = False
) -> results.NodeResult | None:
    """Return the result recorded under `key`; None when it is absent, damaged, or of a user not in `owners`.

    A result is only as good as who wrote it: unlike an object, nothing in it can be checked. `owners` of None
    are all users. With `use` its age begins anew.
    """
    name = f"{layout.NODES}/{layout.check_document(key)}"
    try:
        status = os.stat(name, dir_fd=store_fd, follow_symlinks=False)
    except OSError:
        return None
    if not stat.S_ISREG(status.st_mode) or (owners is not None and status.st_uid not in owners):
        return None
    data = read_document(store_fd, layout.NODES, key, limit=results.RESULT_BYTES)
    try:
        result = None if data is None else results.decode_result(data, key)
    except InputError:
        return None
    if use and time.time() - status.st_mtime > _TOUCH_SECONDS:
        with contextlib.suppress(OSError):
            # A read-only store, or another user's file: gc then counts from when it was written.
            os.utime(name, dir_fd=store_fd, follow_symlinks=False)
    return result
