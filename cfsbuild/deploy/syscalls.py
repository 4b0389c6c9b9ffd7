"""The system calls that Python's standard library lacks, with errors as `OSError`."""

from __future__ import annotations

import ctypes
import os
from typing import Any

_SYS_MOVE_MOUNT = 429
_SYS_FSOPEN = 430
_SYS_FSCONFIG = 431
_SYS_FSMOUNT = 432
_SYS_MOUNT_SETATTR = 442
SYS_FINIT_MODULE = {"x86_64": 313, "aarch64": 273, "riscv64": 273, "ppc64le": 353, "s390x": 344}
"""By machine: arch/*/kernel/syscalls/*.tbl, include/uapi/asm-generic/unistd.h."""

_POWER_OFF = 0x4321FEDC

FSOPEN_CLOEXEC = 1
FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_CMD_CREATE = 6
FSMOUNT_CLOEXEC = 1
MOUNT_ATTR_RDONLY = 1
MOUNT_ATTR_NOSUID = 2
MOUNT_ATTR_NODEV = 4
MOUNT_ATTR_IDMAP = 0x00100000
MOVE_MOUNT_F_EMPTY_PATH = 4
AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_MOVE = 8192
MS_REC = 16384
MS_PRIVATE = 1 << 18
MNT_DETACH = 2
CLONE_NEWNS = 0x00020000


class _MountAttributes(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _check(result: int, path: str | None = None) -> int:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), path)
    return result


def _syscall(number: int, *arguments: Any) -> int:  # noqa: ANN401 (any ctypes value)
    return _check(int(_libc().syscall(ctypes.c_long(number), *arguments)))


def fsopen(filesystem: str) -> int:
    """Open a file-system configuration context; returns a descriptor."""
    return _syscall(_SYS_FSOPEN, filesystem.encode(), ctypes.c_uint(FSOPEN_CLOEXEC))


def fsconfig_string(fd: int, key: str, value: str) -> None:
    """Set the string parameter `key`."""
    _fsconfig(fd, FSCONFIG_SET_STRING, key.encode(), os.fsencode(value))


def fsconfig_flag(fd: int, key: str) -> None:
    """Set the flag parameter `key`."""
    _fsconfig(fd, FSCONFIG_SET_FLAG, key.encode(), None)


def fsconfig_create(fd: int) -> None:
    """Create the superblock."""
    _fsconfig(fd, FSCONFIG_CMD_CREATE, None, None)


def _fsconfig(fd: int, command: int, key: bytes | None, value: bytes | None) -> None:
    _syscall(_SYS_FSCONFIG, ctypes.c_int(fd), ctypes.c_uint(command), key, value, ctypes.c_int(0))


def fsmount(fd: int, attributes: int) -> int:
    """Make a detached mount of a created superblock; returns a descriptor."""
    return _syscall(_SYS_FSMOUNT, ctypes.c_int(fd), ctypes.c_uint(FSMOUNT_CLOEXEC), ctypes.c_uint(attributes))


def move_mount(fd: int, target: str) -> None:
    """Attach the detached mount `fd` at the path `target`."""
    _syscall(
        _SYS_MOVE_MOUNT,
        ctypes.c_int(fd),
        b"",
        ctypes.c_int(AT_FDCWD),
        os.fsencode(target),
        ctypes.c_uint(MOVE_MOUNT_F_EMPTY_PATH),
    )


def idmap_mount(fd: int, userns_fd: int) -> None:
    """Map the ids of the detached mount `fd` through the user namespace `userns_fd` (kernel 5.12)."""
    attributes = _MountAttributes(attr_set=MOUNT_ATTR_IDMAP, userns_fd=userns_fd)
    _syscall(
        _SYS_MOUNT_SETATTR,
        ctypes.c_int(fd),
        b"",
        ctypes.c_uint(AT_EMPTY_PATH),
        ctypes.byref(attributes),
        ctypes.c_size_t(ctypes.sizeof(attributes)),
    )


def mount(source: str, target: str, filesystem: str, flags: int, options: str) -> None:
    """Mount by the classic call, with an option string of less than a page."""
    _check(
        int(
            _libc().mount(
                os.fsencode(source),
                os.fsencode(target),
                filesystem.encode(),
                ctypes.c_ulong(flags),
                os.fsencode(options),
            )
        ),
        target,
    )


def umount(target: str, flags: int = 0) -> None:
    """Detach what is mounted at `target`: umount2(2)."""
    _check(int(_libc().umount2(os.fsencode(target), ctypes.c_int(flags))), target)


def unshare_mounts() -> None:
    """Give this process a mount namespace of its own, from which nothing propagates."""
    _check(int(_libc().unshare(ctypes.c_int(CLONE_NEWNS))))
    mount("none", "/", "", MS_REC | MS_PRIVATE, "")


def finit_module(fd: int) -> None:
    """Load the kernel module in a file. Only on machines of `SYS_FINIT_MODULE`."""
    _syscall(SYS_FINIT_MODULE[os.uname().machine], ctypes.c_int(fd), b"", ctypes.c_int(0))


def power_off() -> None:
    """Switch the machine off; nothing is written to its disks."""
    _check(int(_libc().reboot(ctypes.c_int(_POWER_OFF))))
