"""Making one file system with the kernel, and telling what it did not like."""

from __future__ import annotations

import errno
import os

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
        mounted = syscalls.fsmount(fd, syscalls.MOUNT_ATTR_RDONLY if what.read_only else 0)
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
