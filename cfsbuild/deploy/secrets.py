"""Where a bundle's secrets go: files in memory that only root can read."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from cfsbuild.errors import UsageError

_MEMORY = frozenset({"tmpfs", "ramfs"})


def write_secrets(secrets: Mapping[str, bytes], directory: Path) -> None:
    """Write each secret to a new file (mode 0400) in `directory`, which is made (0700) if need be.

    Raises `UsageError` (reason `secrets-place`) unless that is in memory and nobody else's; `OSError`.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        status = os.fstat(fd)
        if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
            raise _refused(directory, "others can reach it")
        if _file_system(status.st_dev) not in _MEMORY:
            raise _refused(directory, "it is not in memory: what is written there stays on a disk")
        for name, data in secrets.items():
            new = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o400, dir_fd=fd)
            with open(new, "wb") as file:  # noqa: PTH123 (a descriptor)
                file.write(data)
    finally:
        os.close(fd)


def _file_system(device: int) -> str:
    """Return the type of the file system with this device number, as the kernel lists it."""
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in (
        Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    ):
        fields = line.split(" ")
        if fields[2] == wanted:
            return fields[fields.index("-") + 1]
    return ""


def _refused(directory: Path, why: str) -> UsageError:
    return UsageError(
        f"secrets are not written to {directory}",
        details=why,
        resolution="name a directory of root's in /run",
        reason="secrets-place",
    )
