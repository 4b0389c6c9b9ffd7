"""What a commit promises about power cuts, and the least number of syncs that keeps the promise."""

from __future__ import annotations

import contextlib
import enum
import os
import threading

from cfsbuild.store import syscalls

WRITEBACK_BYTES = 64 << 20
"""From this much on that was staged, the disk had better begin early."""

_FEW_DIRECTORIES = 16
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


def begin_writeback(store_fd: int) -> None:
    """Let the disk write what is staged while the caller does other work, so that less is left to a commit.

    Once, and not while files are staged: each flush of the disk keeps those who create files waiting. Nothing
    is promised and no failure told: the commit syncs once more, by a descriptor of its own, and is told of
    what was not written since that was opened. Raises `OSError` when nothing can be begun.
    """
    fd = syscalls.open_directory(".", dir_fd=store_fd)

    def write() -> None:
        # The commit meets the same error, and tells.
        with contextlib.suppress(OSError):
            syscalls.sync_file_system(fd)
        os.close(fd)

    threading.Thread(target=write, name="cfsbuild-writeback", daemon=True).start()


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
