"""Opening a store: is it one, is it ours to read, is it ours to write."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Collection
from pathlib import Path

import msgspec

from cfsbuild.errors import StoreError
from cfsbuild.store import layout, syscalls, verity
from cfsbuild.store.meta import META_BYTES, Meta, parse_meta


class Opened(msgspec.Struct, frozen=True):
    """What opening found out.

    `owners`: users whose files are trusted; `shared`: others can write too; `verity`: see `verity.promised`.
    """

    fd: int
    meta: Meta
    owners: frozenset[int]
    shared: bool
    read_only_reason: str
    verity: tuple[bool, str]


def open_store(path: Path, *, read_only: bool, trusted_uids: Collection[int], shared: bool) -> Opened:
    """Open the directory of a store and read its `meta.json`.

    Raises `StoreError` when it is not a store, of a foreign version, or open to other users' writing; or
    `OSError`.
    """
    owners = frozenset((os.geteuid(), 0, *trusted_uids))
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _no_store(path, "the directory does not exist") from error
    try:
        meta = _read_meta(fd, path)
        others = _others_can_write(fd)
        _check_safety(path, fd, safe=shared or not others)
        reason = "it was opened for reading only" if read_only else _why_read_only(fd, meta, owners)
        return Opened(fd, meta, owners, others, reason, verity.promised(fd))
    except BaseException:
        os.close(fd)
        raise


def _read_meta(fd: int, path: Path) -> Meta:
    try:
        data = syscalls.read_file(fd, layout.META, limit=META_BYTES)
    except FileNotFoundError as error:
        if layout.OBJECTS in syscalls.names_in(".", dir_fd=fd):
            raise _no_store(
                path, "it has objects but no meta.json: it may be a composefs store of another program"
            ) from error
        raise _no_store(path, "there is no meta.json in it") from error
    meta = parse_meta(data, str(path))
    for name in (layout.OBJECTS, layout.IMAGES):
        try:
            os.close(syscalls.open_directory(name, dir_fd=fd))
        except OSError as error:
            raise _no_store(path, f"its directory {name} is missing") from error
    return meta


def _no_store(path: Path, details: str) -> StoreError:
    return StoreError(
        f"{path} is not a store",
        details=details,
        resolution=f"make one with: cfsbuild store init {path}",
        reason="no-store",
    )


def _others_can_write(fd: int) -> bool:
    return bool(os.fstat(fd).st_mode & 0o022)


def _check_safety(path: Path, fd: int, *, safe: bool) -> None:
    if not safe:
        raise StoreError(
            f"other users can write to the store {path}",
            details=f"its directory has mode {stat.S_IMODE(os.fstat(fd).st_mode):04o}",
            resolution=f"chmod go-w {path}, or set shared_store = true in cfsbuild.toml when that is meant",
            reason="unsafe",
        )


def _why_read_only(fd: int, meta: Meta, owners: frozenset[int]) -> str:
    """Return why the store cannot be written; empty when it can."""
    if meta.unknown_read_only:
        return f"it uses features that this program can only read: {', '.join(meta.unknown_read_only)}"
    if os.statvfs(fd).f_flag & os.ST_RDONLY:
        return "its file system is mounted read-only"
    owner = os.fstat(fd).st_uid
    if owner not in owners:
        return f"it belongs to user {owner}, who is not trusted"
    if not os.access(".", os.W_OK | os.X_OK, dir_fd=fd, effective_ids=True):
        return "this user may not write to it"
    return ""


def make_rooms(fd: int) -> None:
    """Make those directories that a store of composefs-rs lacks. Raises `OSError`."""
    for name in layout.DIRECTORIES:
        try:
            os.stat(name, dir_fd=fd)
        except FileNotFoundError:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, dir_fd=fd)
