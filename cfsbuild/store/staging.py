"""The private directory of one transaction: everything is written there before it gets a name in the store.

`cfsbuild/staging/TXN/xx/rest` holds objects, in one directory per shard so that threads do not wait for one
directory's lock; `cfsbuild/staging/TXN/new-N` holds everything else. The builder holds `flock` on TXN, so
that anybody can tell, and remove, what a killed builder left.
"""

from __future__ import annotations

import contextlib
import os
import threading

from cfsbuild.store import layout, locks, syscalls


class Staging:
    """A staging directory that this process holds. `name` is its name below `cfsbuild/staging`.

    It is made inside the block that removes it, by `make`: a signal at any moment leaves nothing behind.
    """

    def __init__(self, store_fd: int) -> None:
        self._parent = syscalls.open_directory(layout.STAGING, dir_fd=store_fd)
        self.name = ""
        self.fd = -1
        self._settled = False
        self._lock = threading.Lock()
        self._count = 0
        self._shards: set[str] = set()

    def __enter__(self) -> Staging:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        """Remove the directory if it is still there. Raises `OSError`, unless an error is on its way."""
        with contextlib.suppress(*([] if error is None else [OSError])):
            self.close()

    def make(self) -> None:
        """Make and lock the directory. Raises `OSError`."""
        while self.fd < 0:
            self.name = f"{os.getpid()}-{os.urandom(8).hex()}"
            os.mkdir(self.name, 0o700, dir_fd=self._parent)
            # Another process's cleaning may be faster than our lock.
            self.fd = _hold(self.name, self._parent)

    def new_name(self) -> str:
        """Return a name in the directory that nothing has yet."""
        with self._lock:
            self._count += 1
            return f"new-{self._count}"

    def make_shard(self, shard: str) -> None:
        """Make the directory for objects whose digests begin with `shard`. Raises `OSError`."""
        if shard not in self._shards:
            with contextlib.suppress(FileExistsError):
                os.mkdir(shard, 0o777, dir_fd=self.fd)
            self._shards.add(shard)

    def shard_entries(self, shard: str) -> int:
        """Return how many entries a shard's directory has. Raises `OSError`."""
        return len(syscalls.names_in(shard, dir_fd=self.fd))

    def forget_shard(self, shard: str) -> None:
        """Take note that the shard's directory has been moved away."""
        self._shards.discard(shard)

    def leave(self) -> None:
        """Let the directory be: a thread still writes there. The next transaction of anybody removes it."""
        self._settled = True

    def close(self) -> None:
        """Remove the directory and all that is in it, once.

        Raises `OSError`; the lock is given up then too. After anything else that interrupts it, close again.
        """
        if self._settled:
            return
        try:
            if self.name:
                syscalls.remove_tree(self._parent, self.name)
        except OSError:
            self._release()
            raise
        self._release()

    def _release(self) -> None:
        self._settled = True
        if self.fd >= 0:
            os.close(self.fd)
        os.close(self._parent)


def _hold(name: str, parent: int) -> int:
    """Return a locked descriptor of a new staging directory; -1 when somebody has removed it already."""
    try:
        fd = syscalls.open_directory(name, dir_fd=parent)
    except FileNotFoundError:
        return -1
    try:
        if locks.try_flock(fd, exclusive=True) and os.fstat(fd).st_nlink > 0:
            return fd
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    return -1


def leftovers(store_fd: int) -> list[str]:
    """Return the staging directories whose builders are dead. Raises `OSError`."""
    return _dead(store_fd, remove=False)


def remove_leftovers(store_fd: int) -> list[str]:
    """Remove what killed builders left; return its names. Safe beside live builders. Raises `OSError`."""
    return _dead(store_fd, remove=True)


def _dead(store_fd: int, *, remove: bool) -> list[str]:
    result = []
    parent = syscalls.open_directory(layout.STAGING, dir_fd=store_fd)
    try:
        for name in syscalls.names_in(".", dir_fd=parent):
            try:
                fd = syscalls.open_directory(name, dir_fd=parent)
            except (FileNotFoundError, NotADirectoryError, PermissionError):
                # Gone meanwhile, a stray that fsck reports, or another user's.
                continue
            try:
                if not locks.try_flock(fd, exclusive=True):
                    continue
                if remove:
                    syscalls.remove_tree(parent, name)
                result.append(name)
            finally:
                os.close(fd)
    finally:
        os.close(parent)
    return result
