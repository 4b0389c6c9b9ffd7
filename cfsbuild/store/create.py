"""Making a store."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from cfsbuild.errors import StoreError
from cfsbuild.fsverity.algorithm import Algorithm
from cfsbuild.store import layout, syscalls, verity
from cfsbuild.store.access import make_rooms
from cfsbuild.store.meta import new_meta
from cfsbuild.store.staging import Staging


def create(path: Path, algorithm: Algorithm, *, shared: bool) -> None:
    """Make the directories and, last, `meta.json`, all of it durable. What is there already stays as it is.

    Raises `StoreError` when `path` holds something that is not a store, or `OSError`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o777 if shared else 0o700)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        names = set(syscalls.names_in(".", dir_fd=fd))
        if layout.META not in names:
            _check_names(path, names)
            _fill(fd, algorithm)
    finally:
        os.close(fd)


def check_place(path: Path) -> None:
    """Raise as `create` does when `path`, where no store is, holds something else; change nothing."""
    try:
        _check_names(path, {entry.name for entry in path.iterdir()})
    except FileNotFoundError:
        # `create` makes the directory.
        return


def _check_names(path: Path, names: set[str]) -> None:
    if strays := names - {layout.OBJECTS, layout.IMAGES, layout.ROOM, "lost+found"}:
        raise StoreError(
            f"{path} is not empty and not a store",
            details=f"it holds {min(strays)!r}",
            resolution="name a directory that is empty or does not exist",
            reason="no-store",
        )
    if layout.OBJECTS in names and layout.ROOM not in names:
        raise StoreError(
            f"{path} holds objects of a program that wrote no meta.json",
            resolution="name a directory that is empty or does not exist",
            reason="no-store",
        )


def _fill(fd: int, algorithm: Algorithm) -> None:
    """Make what makes a directory a store; several processes may do so at once."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(layout.ROOM, dir_fd=fd)
    make_rooms(fd)
    with Staging(fd) as staged:
        staged.make()
        name = staged.new_name()
        syscalls.write_file(staged.fd, name, new_meta(algorithm), sync=True)
        with contextlib.suppress(FileExistsError):
            syscalls.rename_new(staged.fd, name, fd, layout.META)
            verity.enable_meta(fd, algorithm)
    syscalls.sync_file_system(fd)
