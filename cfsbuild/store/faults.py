"""Operating-system errors of the store's file system as `StoreError`."""

from __future__ import annotations

import errno
import os

from cfsbuild.errors import StoreError

_RESOLUTIONS = {
    errno.ENOSPC: "free some space (cfsbuild store gc), or use a store on another file system",
    errno.EDQUOT: "free some of your quota (cfsbuild store gc), or use a store on another file system",
    errno.EIO: "check the disk and the kernel log, then run cfsbuild store fsck",
    errno.EROFS: "use a store that can be written: --store, or CFSBUILD_STORE",
    errno.EACCES: "use a store of your own: --store, or CFSBUILD_STORE",
    errno.EPERM: "use a store of your own: --store, or CFSBUILD_STORE",
    errno.ENOLCK: "use a store on a file system that has file locks",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
}


class StoreErrors:
    """A block in which an `OSError` becomes "cannot DOING store WHERE" with the system's own words.

    A class, not a generator: it surrounds the writing of every object.
    """

    def __init__(self, doing: str, where: str) -> None:
        self._doing = doing
        self._where = where

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        """Raise `StoreError` in place of an `OSError`."""
        if isinstance(error, OSError):
            raise store_error(self._doing, self._where, error) from error


def store_error(doing: str, where: str, error: OSError) -> StoreError:
    """Return the `StoreError` for a system call that failed while `doing` the store at `where`."""
    number = error.errno or 0
    name = f": {os.fsdecode(error.filename)}" if isinstance(error.filename, str | bytes) else ""
    return StoreError(
        f"cannot {doing} store {where}: {error.strerror or error}",
        details=f"{errno.errorcode.get(number, 'error')}{name}",
        resolution=_RESOLUTIONS.get(number, ""),
        reason="read-only" if number in {errno.EROFS, errno.EACCES, errno.EPERM} else "io",
    )
