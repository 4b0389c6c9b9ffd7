"""Making one file system with the kernel, and telling what it did not like."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cfsbuild.deploy import syscalls
from cfsbuild.deploy.sequence import FilesystemMount
from cfsbuild.errors import StoreError


class MountError(StoreError):
    """The kernel refused to mount; the reason is `mount` unless another is given."""

    def __init__(self, brief: str, *, details: str = "", resolution: str = "", reason: str = "mount") -> None:
        super().__init__(brief, details=details, resolution=resolution, reason=reason)


def refused_to(what: str, error: OSError, *, busy: str = "") -> MountError:
    """Return what to tell when the kernel does not do `what`; `busy` is the hint when something is in use."""
    hints = {errno.EPERM: "the kernel lets only root do that: try with sudo", errno.EBUSY: busy}
    return MountError(
        f"cannot {what}: {error.strerror}",
        details=words_of(error),
        resolution=hints.get(error.errno or 0, ""),
    )


def attach(what: FilesystemMount, directory: str, idmap: str = "") -> set[str]:
    """Create and attach one file system; returns the keys of optional settings that the kernel refused."""
    fd = syscalls.fsopen(what.filesystem)
    try:
        refused = _configure(fd, what)
        mounted = syscalls.fsmount(fd, _attributes(what))
    except OSError as error:
        error.add_note(_kernel_log(fd))
        raise
    finally:
        os.close(fd)
    try:
        if idmap:
            _apply_idmap(mounted, idmap)
        syscalls.move_mount(mounted, directory)
    finally:
        os.close(mounted)
    return refused


def _attributes(what: FilesystemMount) -> int:
    attributes = syscalls.MOUNT_ATTR_RDONLY if what.read_only else 0
    return attributes | (syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NODEV if what.restricted else 0)


@contextmanager
def private_place(prefix: str) -> Iterator[str]:
    """Give a directory to mount something at for a while: in the end both are gone, however it ends."""
    with tempfile.TemporaryDirectory(prefix=prefix) as directory:
        before = mount_id(directory)
        try:
            try:
                yield directory
            finally:
                detach_until(directory, before)
        except BaseException:
            # An interruption may have come just before that was done.
            detach_until(directory, before)
            raise


def mount_id(place: str | Path) -> int:
    """Return the number of the mount that a path leads to; 0 if there is no such path.

    Source: proc(5), /proc/PID/fdinfo.
    """
    try:
        fd = os.open(place, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        for line in Path(f"/proc/self/fdinfo/{fd}").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name == "mnt_id":
                return int(value)
    finally:
        os.close(fd)
    return 0


def detach_until(place: str | Path, wanted: int) -> None:
    """Detach what is mounted at a path, with all above it, until it leads to the mount `wanted` again.

    It asks the kernel what is there: who is interrupted cannot know. An interruption of this itself is raised
    when nothing is left. Raises `OSError`.
    """
    try:
        _detach(place, wanted)
    except BaseException:
        _detach(place, wanted)
        raise


def _detach(place: str | Path, wanted: int) -> None:
    while mount_id(place) not in {wanted, 0}:
        syscalls.umount(str(place), syscalls.MNT_DETACH)


def _configure(fd: int, what: FilesystemMount) -> set[str]:
    refused = set()
    for setting in what.settings:
        try:
            if setting.value is None:
                syscalls.fsconfig_flag(fd, setting.key)
            else:
                syscalls.fsconfig_string(fd, setting.key, setting.value)
        except OSError:
            if not setting.optional:
                raise
            refused.add(setting.key)
    syscalls.fsconfig_create(fd)
    return refused


def _apply_idmap(mounted: int, idmap: str) -> None:
    namespace = os.open(idmap, os.O_RDONLY | os.O_CLOEXEC)
    try:
        syscalls.idmap_mount(mounted, namespace)
    finally:
        os.close(namespace)


def _kernel_log(fd: int) -> str:
    """Return what the kernel wrote into the configuration context, one message a line."""
    lines: list[str] = []
    while True:
        try:
            message = os.read(fd, 4096)
        except OSError:  # ENODATA: no message left; anything else: none can be had
            return "\n".join(lines)
        lines.append(message.decode(errors="replace").strip().removeprefix("e ").removeprefix("w "))


def words_of(error: OSError) -> str:
    """Return what the kernel said about an error of `attach`, one message a line."""
    return "\n".join(getattr(error, "__notes__", []))
