"""One file-system object as data."""

from __future__ import annotations

import stat
from collections.abc import Iterable

import msgspec

Xattrs = tuple[tuple[bytes, bytes], ...]
"""Extended attributes: (full name, value), ascending by name, no name twice."""


class Inode(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A file-system object without its names.

    `mode` is a full st_mode with the file type; `mtime_ns` counts nanoseconds since the epoch and may be
    negative. `size` is the length in bytes of a regular file's content or of a symlink's target, else 0.
    A regular file with content has exactly one of `digest` (raw fs-verity digest of an object in the store)
    and `content` (1 to 64 bytes, inline). `rdev` is Linux's 32-bit encoding, for character and block devices.
    """

    mode: int
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    size: int = 0
    digest: bytes = b""
    content: bytes = b""
    target: bytes = b""
    rdev: int = 0
    xattrs: Xattrs = ()

    @property
    def kind(self) -> int:
        """Return the file type bits (`stat.S_IFMT`)."""
        return stat.S_IFMT(self.mode)

    @property
    def is_directory(self) -> bool:
        """Say whether this is a directory."""
        return stat.S_ISDIR(self.mode)

    @property
    def is_regular(self) -> bool:
        """Say whether this is a regular file."""
        return stat.S_ISREG(self.mode)

    @property
    def is_symlink(self) -> bool:
        """Say whether this is a symbolic link."""
        return stat.S_ISLNK(self.mode)

    @property
    def is_device(self) -> bool:
        """Say whether this is a character or block device."""
        return stat.S_ISCHR(self.mode) or stat.S_ISBLK(self.mode)


IMPLICIT_DIRECTORY = Inode(mode=stat.S_IFDIR | 0o755)
"""What a directory is that no node declares: 0755, root:root, mtime epoch."""


def sorted_xattrs(pairs: dict[bytes, bytes]) -> Xattrs:
    """Return `pairs` in canonical order."""
    return tuple(sorted(pairs.items()))


def xattr_space(pairs: Iterable[tuple[bytes, bytes]]) -> int:
    """Return how many bytes `pairs` count on one inode (see `limits.XATTR_INODE_BYTES`); 0 for none."""
    sizes = [7 + len(name) + len(value) for name, value in pairs]
    return 12 + sum(sizes) if sizes else 0
