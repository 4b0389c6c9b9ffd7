"""Reading what is to become an object, and copying it into the staging directory while it is hashed."""

from __future__ import annotations

import os

from cfsbuild.errors import InputError
from cfsbuild.fsverity import digest as fsverity
from cfsbuild.fsverity.algorithm import Algorithm
from cfsbuild.store.syscalls import write_all

_CHUNK = 1 << 20


def read(fd: int, size: int) -> bytes:
    """Return the next `size` bytes of `fd`, fewer only at its end. Raises `InputError`."""
    parts = []
    while size > 0:
        try:
            part = os.read(fd, size)
        except OSError as error:
            raise InputError(f"cannot read a file's content: {error.strerror}", reason="read") from error
        if not part:
            break
        parts.append(part)
        size -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def copy(fd: int, head: bytes, target: int, algorithm: Algorithm) -> tuple[bytes, int]:
    """Write `head` and the rest of `fd` to `target`; return (raw digest, size) of what was written.

    Raises `InputError` when `fd` cannot be read, `OSError` when `target` cannot be written.
    """
    hasher = fsverity.Hasher(algorithm)
    data = head
    while data:
        hasher.update(data)
        write_all(target, data)
        data = read(fd, _CHUNK)
    return hasher.digest(), hasher.size
