"""Loop devices, for kernels before 6.12 that cannot mount EROFS from a file."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOOP_CTL_GET_FREE = 0x4C82
LOOP_CONFIGURE = 0x4C0A
LO_FLAGS_READ_ONLY = 1
LO_FLAGS_AUTOCLEAR = 4
LO_FLAGS_DIRECT_IO = 16
_ATTEMPTS = 16


class _LoopInfo64(ctypes.Structure):
    _fields_ = (
        ("device", ctypes.c_uint64),
        ("inode", ctypes.c_uint64),
        ("rdevice", ctypes.c_uint64),
        ("offset", ctypes.c_uint64),
        ("sizelimit", ctypes.c_uint64),
        ("number", ctypes.c_uint32),
        ("encrypt_type", ctypes.c_uint32),
        ("encrypt_key_size", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("file_name", ctypes.c_uint8 * 64),
        ("crypt_name", ctypes.c_uint8 * 64),
        ("encrypt_key", ctypes.c_uint8 * 32),
        ("init", ctypes.c_uint64 * 2),
    )


class _LoopConfig(ctypes.Structure):
    _fields_ = (
        ("fd", ctypes.c_uint32),
        ("block_size", ctypes.c_uint32),
        ("info", _LoopInfo64),
        ("reserved", ctypes.c_uint64 * 8),
    )


@contextmanager
def loop_device(fd: int) -> Iterator[str]:
    """Attach the file `fd` read-only to a free loop device; yields its path.

    The device clears itself when its last user (the mount made meanwhile) is gone. Raises `OSError`.
    """
    config = _LoopConfig(fd=fd, block_size=4096)
    config.info.flags = LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR | LO_FLAGS_DIRECT_IO
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        device, path = _configure_free_device(control, config)
    finally:
        os.close(control)
    try:
        yield path
    finally:
        os.close(device)


def _configure_free_device(control: int, config: _LoopConfig) -> tuple[int, str]:
    for _ in range(_ATTEMPTS):
        path = f"/dev/loop{fcntl.ioctl(control, LOOP_CTL_GET_FREE)}"
        device = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.ioctl(device, LOOP_CONFIGURE, bytes(config))
        except OSError as error:
            os.close(device)
            if error.errno == errno.EINVAL and config.info.flags & LO_FLAGS_DIRECT_IO:
                config.info.flags &= ~LO_FLAGS_DIRECT_IO  # tmpfs and others cannot do direct I/O
            elif error.errno != errno.EBUSY:  # someone else was faster
                raise
        else:
            return device, path
    raise OSError(errno.EBUSY, "no free loop device", str(Path("/dev/loop-control")))
