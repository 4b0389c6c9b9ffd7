"""Replacing a file whole or not at all, without litter: what a killed process left goes with the next try."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

SUFFIX = ".cfsbuild-tmp"


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Yield a new file that takes the name `path` when the block ends, and vanishes when it raises.

    Its mode is 0644. It is not flushed to the disk. Raises `OSError`.
    """
    _remove_leftovers(path)
    temporary = f"{_prefix(path)}{os.getpid()}-{os.urandom(4).hex()}{SUFFIX}"
    where = os.path.join(path.parent, temporary)  # noqa: PTH118 (start-up)
    try:
        with open(_create(where), "wb") as file:
            yield file
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.replace(where, path)  # noqa: PTH105
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(where)  # noqa: PTH108
        raise


def _prefix(path: Path) -> str:
    return f".{path.name}."


def _create(where: str) -> int:
    """Return a descriptor of a new file that is locked: that says that its writer lives."""
    while True:
        descriptor = os.open(where, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            # Somebody's cleaning may have been faster than our lock.
            if _lock(descriptor) and os.fstat(descriptor).st_nlink > 0:
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(where)  # noqa: PTH108


def _lock(descriptor: int) -> bool:
    """Lock a file; False when another process holds it. True where there are no locks: nobody cleans then."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        # A file system without locks.
        return True
    return True


def _remove_leftovers(path: Path) -> None:
    """Remove what killed writers of `path` left beside it; what cannot be removed stays."""
    prefix = _prefix(path)
    with contextlib.suppress(OSError), os.scandir(path.parent) as entries:
        for entry in entries:
            if entry.name.startswith(prefix) and entry.name.endswith(SUFFIX):
                _remove_if_dead(entry.path)


def _remove_if_dead(where: str) -> None:
    descriptor = os.open(where, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(where)  # noqa: PTH108
    finally:
        os.close(descriptor)
