"""Turning fs-verity on for what a machine's state device holds, and checking that the kernel agrees.

That this was done for an image is noted on the device, in a file `.fs-verity-HEX` at its root. Who forges the
note gains nothing: what has no fs-verity cannot be read through a mount that requires it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from cfsbuild.errors import VerificationError
from cfsbuild.fsverity import kernel
from cfsbuild.fsverity.algorithm import algorithm_of_digest

_SHARD = 2


def is_done(state: Path, digest: str) -> bool:
    """Say whether the image with a digest in hex, and its objects, have been given fs-verity."""
    return _note(state, digest).exists()


def set_done(state: Path, digest: str) -> None:
    """Note that the image and its objects have fs-verity, once that is on the disk. Raises `OSError`."""
    os.sync()
    _note(state, digest).touch()


def _note(state: Path, digest: str) -> Path:
    return state / f".fs-verity-{digest}"


def enable_objects(directory: Path) -> int:
    """Let every object below `directory` (`xx/rest`) have fs-verity, with the digest that is its name.

    Returns how many did not have it. Raises `VerificationError` (reason `object-digest`) for one that is not
    what it is called, `VerityUnsupported`, `OSError`.
    """
    enabled = 0
    for path, digest in _objects(directory):
        enabled += enable_file(path, digest)
    return enabled


def enable_file(path: Path, digest: bytes) -> bool:
    """Let a file have fs-verity with the raw `digest`; return whether it had none. Raises as above."""
    algorithm = algorithm_of_digest(digest)
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        measured = kernel.measure(fd)
        fresh = measured is None
        if measured is None:
            kernel.enable(fd, algorithm)
            measured = kernel.measure(fd)
    finally:
        os.close(fd)
    if measured is None or measured.digest != digest:
        found = "no fs-verity" if measured is None else measured.digest.hex()
        raise VerificationError(
            f"{path} is not what it should be",
            details=f"expected {digest.hex()}\nfound    {found}",
            reason="object-digest",
        )
    return fresh


def _objects(directory: Path) -> Iterator[tuple[Path, bytes]]:
    for shard in sorted(directory.iterdir()):
        if len(shard.name) == _SHARD and shard.is_dir():
            for path in sorted(shard.iterdir()):
                try:
                    yield path, bytes.fromhex(shard.name + path.name)
                except ValueError as error:
                    raise VerificationError(f"{path} is not an object", reason="object-digest") from error
