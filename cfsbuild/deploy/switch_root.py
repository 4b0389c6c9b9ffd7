"""From the initramfs into the image: switch_root(8) as system calls."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from cfsbuild.deploy import syscalls

_MOVED = ("dev", "proc", "sys", "run")
_IN_MEMORY = {"rootfs", "ramfs", "tmpfs"}


def switch_root(root: Path) -> None:
    """Make the mount at `root` the root directory of this process, which is the first one.

    The kernel's file systems move along where `root` has directories for them; what the initramfs holds is
    deleted, since it takes up memory. Raises `OSError`.
    """
    in_memory = _root_type() in _IN_MEMORY
    for name in _MOVED:
        if (root / name).is_dir():
            syscalls.mount(f"/{name}", str(root / name), "", syscalls.MS_MOVE, "")
        else:
            syscalls.umount(f"/{name}", syscalls.MNT_DETACH)
    old = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.chdir(root)
        syscalls.mount(".", "/", "", syscalls.MS_MOVE, "")
        os.chroot(".")
        os.chdir("/")
        if in_memory:
            _delete(old, os.fstat(old).st_dev)
    finally:
        os.close(old)


def _root_type() -> str:
    """Return the type of the file system at /."""
    found = ""
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace").splitlines():
        fields = line.split()
        if fields[1] == "/":
            found = fields[2]
    return found


def _delete(directory: int, device: int) -> bool:
    """Delete what is in a directory and below, but on no other file system; say whether nothing is left."""
    empty = True
    for name in os.listdir(directory):
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if status.st_dev != device:
            empty = False
        elif not stat.S_ISDIR(status.st_mode):
            os.unlink(name, dir_fd=directory)
        else:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            inner = os.open(name, flags, dir_fd=directory)
            try:
                emptied = _delete(inner, device)
            finally:
                os.close(inner)
            if emptied:
                os.rmdir(name, dir_fd=directory)
            empty = empty and emptied
    return empty
