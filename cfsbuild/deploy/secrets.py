"""Where a bundle's secrets go: files in memory that only root can read."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from cfsbuild.errors import UsageError

_MEMORY = frozenset({"tmpfs", "ramfs"})


@contextmanager
def secrets_written(secrets: Mapping[str, bytes], directory: Path) -> Iterator[None]:
    """Write each secret to a new file (mode 0400) in `directory`, which is made (0700) if need be.

    They stay if the block ends well; else all of them are gone again. Raises `UsageError` (reason
    `secrets-place`) unless that is in memory, nobody else's, and without files of these names; `OSError`.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        status = os.fstat(fd)
        if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
            raise _refused(directory, "others can reach it")
        if _file_system(status.st_dev) not in _MEMORY:
            raise _refused(directory, "it is not in memory: what is written there stays on a disk")
        there = secrets.keys() & set(os.listdir(fd))  # noqa: PTH208 (a descriptor)
        if there:
            raise _refused(directory, f"there is {', '.join(sorted(there))} already")
        try:
            for name, data in secrets.items():
                _write_new(fd, name, data)
            yield
        except BaseException:
            for name in secrets:
                with suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=fd)
            raise
    finally:
        os.close(fd)


def _write_new(directory: int, name: str, data: bytes) -> None:
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o400, dir_fd=directory)
    with open(fd, "wb") as file:  # noqa: PTH123 (a descriptor)
        file.write(data)


def _file_system(device: int) -> str:
    """Return the type of the file system with this device number, as the kernel lists it."""
    wanted = f"{os.major(device)}:{os.minor(device)}"
    # Names of mount points have other ends of lines in them than this one.
    for line in (
        Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").split("\n")
    ):
        fields = line.split(" ")
        if len(fields) > 2 and fields[2] == wanted:
            return fields[fields.index("-") + 1]
    return ""


def _refused(directory: Path, why: str) -> UsageError:
    return UsageError(
        f"secrets are not written to {directory}",
        details=why,
        resolution="name a directory of root's in /run",
        reason="secrets-place",
    )
