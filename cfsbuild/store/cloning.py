"""Copying a file's content without copying its bytes, where the file system can."""

from __future__ import annotations

import errno
import fcntl
import os

from cfsbuild.errors import StoreError

FICLONE = 0x40049409
"""ioctl(2) request of linux/fs.h: let a file share another one's extents."""

_NO_REFLINK = {
    errno.EOPNOTSUPP,
    errno.EXDEV,
    errno.EINVAL,
    errno.ENOTTY,
    errno.ENOSYS,
    errno.EPERM,
    errno.ETXTBSY,
}


def clone_or_copy(source: int, target: int) -> None:
    """Share the extents of the descriptor `source` with the empty file `target`, or copy its bytes.

    Raises `OSError`, and `StoreError` (reason `image-shrank`) if `source` loses bytes meanwhile.
    """
    try:
        fcntl.ioctl(target, FICLONE, source)
    except OSError as error:
        if error.errno not in _NO_REFLINK:
            raise
        offset, size = 0, os.fstat(source).st_size
        while offset < size:
            count = os.sendfile(target, source, offset, size - offset)
            if count == 0:
                raise StoreError("an image shrank while it was copied", reason="image-shrank") from error
            offset += count
