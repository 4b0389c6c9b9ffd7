"""What a commit promises about power cuts, and the least number of syncs that keeps the promise."""

from __future__ import annotations

import enum
import os
import threading

from cfsbuild.store import syscalls

WRITEBACK_BYTES = 64 << 20
"""From this much on to be staged, the disk had better begin early."""

_WRITEBACK_SECONDS = 0.25

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


class EarlyWriteback:
    """Lets the disk begin with staged files while more are staged, so that little is left for the commit.

    Nothing is promised and no failure told: the commit syncs once more, by a descriptor of its own, and is
    told of what was not written since that was opened.
    """

    def __init__(self, store_fd: int) -> None:
        self._fd = syscalls.open_directory(".", dir_fd=store_fd)
        self._stopped = threading.Event()
        threading.Thread(target=self._run, name="cfsbuild-writeback", daemon=True).start()

    def stop(self) -> None:
        """Begin nothing more; what was begun is not waited for."""
        self._stopped.set()

    def _run(self) -> None:
        try:
            while not self._stopped.wait(_WRITEBACK_SECONDS):
                syscalls.sync_file_system(self._fd)
        except OSError:
            # The commit meets it, too, and tells.
            return
        finally:
            os.close(self._fd)


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
