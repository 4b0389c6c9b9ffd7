"""fs-verity in the kernel: turning it on for a file, and asking what the kernel enforces.

Source: Linux `include/uapi/linux/fsverity.h` and `Documentation/filesystems/fsverity.rst`.
"""

from __future__ import annotations

import errno
import os
import struct
import time

import msgspec

from cfsbuild.errors import StoreError
from cfsbuild.fsverity.algorithm import BLOCK_SIZE, Algorithm

FS_IOC_ENABLE_VERITY = 0x40806685
FS_IOC_MEASURE_VERITY = 0xC0046686

_ENABLE = struct.Struct("<IIIIQIIQ88x")
_MEASURE = struct.Struct("<HH64s")
_MAX_DIGEST = 64

_BUSY_TRIES = 20
_BUSY_SECONDS = 0.01
"""A process forked by another thread holds a copy of a writable descriptor until it calls exec."""

_EXT4_FEATURES = "/sys/fs/ext4/features"
_KERNEL_SIGNS = (f"{_EXT4_FEATURES}/verity", "/sys/fs/f2fs/features/verity", "/proc/sys/fs/verity")


class Measurement(msgspec.Struct, frozen=True):
    """What the kernel enforces for a file: the algorithm and the raw digest."""

    algorithm: Algorithm
    digest: bytes


class VerityUnsupported(StoreError):  # noqa: N818 (the joint's name; it is a state as much as an error)
    """fs-verity is not to be had for a file.

    `reason` is "kernel" (built without it), "file-system" (of this type, or without the feature),
    "algorithm" (this kernel lacks the hash or block size), or "file" (not a regular file).
    """


def enable(fd: int, algorithm: Algorithm) -> None:
    """Turn fs-verity on for the file of `fd`, which is open read-only; a file that has it stays as it is.

    Nobody may have the file open for writing. Raises `VerityUnsupported`, or `OSError` (ETXTBSY when a
    writer does not go away, EROFS, EACCES, ENOSPC …). A file that had fs-verity before may have another
    digest or algorithm: `measure` tells.
    """
    argument = _ENABLE.pack(1, algorithm.kernel_id, BLOCK_SIZE, 0, 0, 0, 0, 0)
    for attempt in range(_BUSY_TRIES):
        try:
            _ioctl(fd, FS_IOC_ENABLE_VERITY, bytearray(argument))
        except OSError as error:
            if error.errno == errno.EEXIST:
                return
            if error.errno != errno.ETXTBSY or attempt + 1 == _BUSY_TRIES:
                raise _explain(error) from error
            time.sleep(_BUSY_SECONDS)
        else:
            return


def measure(fd: int) -> Measurement | None:
    """Return what the kernel enforces for the file of `fd`; None when the file has no fs-verity.

    Raises `VerityUnsupported` when its file system or the kernel has none, or `OSError`.
    """
    buffer = bytearray(_MEASURE.pack(0, _MAX_DIGEST, b""))
    try:
        _ioctl(fd, FS_IOC_MEASURE_VERITY, buffer)
    except OSError as error:
        if error.errno == errno.ENODATA:
            return None
        raise _explain(error) from error
    number, size, digest = _MEASURE.unpack(buffer)
    for algorithm in Algorithm:
        if algorithm.kernel_id == number and algorithm.digest_size == size:
            return Measurement(algorithm, digest[:size])
    raise VerityUnsupported(
        f"file has fs-verity with hash algorithm {number}, which is not known here",
        resolution="copy the file: a copy has no fs-verity",
        reason="algorithm",
    )


def _ioctl(fd: int, request: int, buffer: bytearray) -> None:
    """Call the kernel, which may write to `buffer`."""
    import fcntl  # noqa: PLC0415 (only where a store is written or checked)

    fcntl.ioctl(fd, request, buffer, True)


def _explain(error: OSError) -> Exception:
    """Return the honest form of a refusal: what lacks fs-verity, or the error itself."""
    if error.errno in {errno.EOPNOTSUPP, errno.ENOTTY, errno.ENOSYS}:
        if os.path.isdir(_EXT4_FEATURES) and not any(map(os.path.exists, _KERNEL_SIGNS)):  # noqa: PTH112 (start-up: no pathlib here)
            return VerityUnsupported(
                "this kernel is built without fs-verity",
                details=str(error),
                resolution="use a kernel with CONFIG_FS_VERITY; until then nothing is enforced on reading",
                reason="kernel",
            )
        return VerityUnsupported(
            "this file system has no fs-verity",
            details=str(error),
            resolution="use ext4 or f2fs with the feature `verity` (tune2fs -O verity DEVICE), or btrfs",
            reason="file-system",
        )
    if error.errno == errno.EINVAL:
        return VerityUnsupported(
            "fs-verity is not possible for this file",
            details=str(error),
            resolution="only regular files can have it",
            reason="file",
        )
    if error.errno in {errno.ENOPKG, errno.ENOENT}:
        return VerityUnsupported(
            "this kernel lacks the hash algorithm", details=str(error), reason="algorithm"
        )
    return error
