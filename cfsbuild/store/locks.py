"""Locks between processes that share a store.

Three kinds: OFD locks on files below `cfsbuild/locks`, which are never deleted (who deletes a lock file lets
two processes hold "the" lock); `flock` on the store's directory, shared while a transaction is open and
exclusive for the sweep of gc, as composefs-rs does it; and `flock` on a staging directory, which says that
its builder lives. All vanish with the process that holds them.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
import time
from collections.abc import Callable, Iterator

from cfsbuild.errors import StoreError
from cfsbuild.store import layout, syscalls

_FLOCK = "hhqqi4x"
"""struct flock of 64-bit Linux: type, whence, start, length, pid."""

_POLL_SECONDS = 0.01
_GATE_SECONDS = 2.0
"""How long a waiting sweep keeps new transactions out before it lets them pass again."""


def _ofd(fd: int, kind: int, *, wait: bool) -> bool:
    """Set an OFD lock on the whole file; False when another holder is in the way."""
    request = fcntl.F_OFD_SETLKW if wait else fcntl.F_OFD_SETLK
    try:
        fcntl.fcntl(fd, request, struct.pack(_FLOCK, kind, os.SEEK_SET, 0, 0, 0))
    except OSError as error:
        if error.errno in {errno.EAGAIN, errno.EACCES} and not wait:
            return False
        raise
    return True


def _open_lock(store_fd: int, name: str) -> int:
    """Return a descriptor of a lock file, which is made when it is not there yet."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(f"{layout.LOCKS}/{name}", flags, 0o666, dir_fd=store_fd)


def try_flock(fd: int, *, exclusive: bool) -> bool:
    """Take `flock` on a descriptor without waiting; False when another holder is in the way."""
    try:
        fcntl.flock(fd, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def shared(store_fd: int) -> Iterator[None]:
    """Keep every sweep away, ours and that of composefs-rs, for the duration of the block.

    Waits for a sweep that is running or about to run. Raises `OSError`.
    """
    gate = _open_lock(store_fd, "gate")
    try:
        _ofd(gate, fcntl.F_RDLCK, wait=True)
        fd = syscalls.open_directory(".", dir_fd=store_fd)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH)
        except BaseException:
            os.close(fd)
            raise
    finally:
        os.close(gate)
    try:
        yield
    finally:
        os.close(fd)


@contextlib.contextmanager
def exclusive(store_fd: int, *, seconds: float, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Be alone in the store for the duration of the block.

    Waits up to `seconds` for open transactions; new ones wait meanwhile, but only for short times, so that
    one long build does not stop all others. Calls `waiting` once when it takes longer than
    that. Raises `StoreError` when the time is over, or `OSError`.
    """
    deadline = time.monotonic() + seconds
    gate = _open_lock(store_fd, "gate")
    fd = syscalls.open_directory(".", dir_fd=store_fd)
    try:
        while not _try_exclusive(gate, fd, min(deadline, time.monotonic() + _GATE_SECONDS)):
            if time.monotonic() >= deadline:
                raise StoreError(
                    "store is in use",
                    details=f"a build or another program held it for {seconds:g} seconds",
                    resolution="try again when the builds are done",
                    reason="busy",
                )
            if waiting is not None:
                waiting()
                waiting = None
            time.sleep(_POLL_SECONDS)
        yield
    finally:
        os.close(fd)
        os.close(gate)


def _try_exclusive(gate: int, fd: int, until: float) -> bool:
    """Close the gate, wait until `until` for the transactions behind it; open it again on failure."""
    while not _ofd(gate, fcntl.F_WRLCK, wait=False):
        if time.monotonic() >= until:
            return False
        time.sleep(_POLL_SECONDS)
    while not try_flock(fd, exclusive=True):
        if time.monotonic() >= until:
            _ofd(gate, fcntl.F_UNLCK, wait=False)
            return False
        time.sleep(_POLL_SECONDS)
    return True


@contextlib.contextmanager
def collector(store_fd: int) -> Iterator[None]:
    """Be the only gc, fsck --repair or enable-verity of the store.

    Raises `StoreError` at once when another one runs, or `OSError`.
    """
    fd = _open_lock(store_fd, "gc")
    try:
        if not _ofd(fd, fcntl.F_WRLCK, wait=False):
            raise StoreError(
                "another gc, repair or enable-verity works on this store",
                details=os.pread(fd, 200, 0).decode("ascii", "replace").strip(),
                resolution="wait until it is done",
                reason="busy",
            )
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"process {os.getpid()} of user {os.geteuid()}\n".encode(), 0)
        yield
    finally:
        os.close(fd)
