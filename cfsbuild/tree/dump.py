"""composefs-dump(5): the canonical text form of a tree, one line per name."""

from __future__ import annotations

import msgspec


class DumpEntry(msgspec.Struct, frozen=True, gc=False):
    """One line of a dump: what a composefs image says about one name.

    `mtime_sec` may be negative. `payload` is the backing path of a regular file (relative to the object
    directory) or a symlink's target; `digest` is the raw fs-verity digest. `hardlink` is the absolute path of
    the name whose inode this one shares; the other fields are then ignored.
    """

    path: bytes
    size: int
    mode: int
    nlink: int
    uid: int
    gid: int
    rdev: int
    mtime_sec: int
    mtime_nsec: int
    payload: bytes | None = None
    content: bytes | None = None
    digest: bytes | None = None
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    hardlink: bytes | None = None
