"""Reading what comes from outside: regular files only, and never more than there should be."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from cfsbuild.errors import InputError, UsageError


def read_regular(path: Path, *, limit: int, private: bool = False) -> bytes:
    """Return a file's content; nothing waits, whatever the file is.

    Raises `InputError` (reason `malformed`) for what is no regular file or has more than `limit` bytes,
    `UsageError` (reason `key-readable`) if it is to be `private` and others can reach it, `OSError`.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{path} is not a regular file", reason="malformed")
        if private and status.st_mode & 0o077:
            raise UsageError(
                f"others can read {path} (mode {stat.S_IMODE(status.st_mode):04o})",
                resolution=f"chmod 600 {path}; if they did read it, make a new one",
                reason="key-readable",
            )
        with open(fd, "rb", closefd=False) as file:
            data = file.read(limit + 1)
    finally:
        os.close(fd)
    if len(data) > limit:
        raise InputError(f"{path} is too long", details=f"more than {limit} bytes", reason="malformed")
    return data
