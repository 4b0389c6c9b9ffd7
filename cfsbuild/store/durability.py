"""What a commit promises about power cuts, and the least number of syncs that keeps the promise."""

from __future__ import annotations

import enum
import os

from cfsbuild.store import syscalls

_FEW_DIRECTORIES = 2
"""Up to this many directories are synced one by one; beyond, one syncfs is cheaper."""


class Durability(enum.Enum):
    """How much of a committed transaction survives a power cut.

    `NONE`: whatever the kernel wrote by then (for stores that can be built again). `BATCH`: everything, for
    one syncfs per step. `EACH`: everything, by fsync of every file and directory; other programs' dirty
    data is left alone.
    """

    NONE = "none"
    BATCH = "batch"
    EACH = "each"


def sync_files(fd: int, durability: Durability) -> None:
    """Make the content of all staged files durable before they get their names. Raises `OSError`.

    `fd` is any descriptor on the store's file system. With `EACH` every file was synced when it was written.
    """
    if durability is Durability.BATCH:
        syscalls.sync_file_system(fd)


def sync_directories(store_fd: int, names: set[str], durability: Durability) -> None:
    """Make the entries of the directories `names`, relative to the store, durable. Raises `OSError`."""
    if durability is Durability.NONE or not names:
        return
    if durability is Durability.BATCH and len(names) > _FEW_DIRECTORIES:
        syscalls.sync_file_system(store_fd)
        return
    for name in sorted(names):
        fd = syscalls.open_directory(name, dir_fd=store_fd)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
