"""From an inode in the image to what a user calls it: the format's own attributes undone."""

from __future__ import annotations

import stat

from cfsbuild.erofs import damage
from cfsbuild.erofs import format as fmt
from cfsbuild.erofs.reader_inodes import ImageInode
from cfsbuild.fsverity.algorithm import Algorithm
from cfsbuild.tree.dump import DumpEntry
from cfsbuild.tree.inode import Xattrs

_UNESCAPED_WHITEOUT = fmt.OVERLAY_PREFIX + b"whiteout"
_UNESCAPED_WHITEOUTS = fmt.OVERLAY_PREFIX + b"whiteouts"
_WHITEOUT_MARKERS = {(_UNESCAPED_WHITEOUT, b""), (fmt.USER_WHITEOUT, b"")}
_PARENT_MARKERS = {(_UNESCAPED_WHITEOUTS, b""), (fmt.USER_WHITEOUTS, b"")}
_OPAQUE_MARKERS = {(fmt.OPAQUE, b"x"), (fmt.USER_OPAQUE, b"x")}
_HEADERS = {4 + algorithm.digest_size: fmt.metacopy_header(algorithm) for algorithm in Algorithm}


def is_whiteout(inode: ImageInode) -> bool:
    """Say whether `inode` has the form in which the writer hides a whiteout from overlayfs."""
    return stat.S_ISREG(inode.mode) and not inode.size and set(inode.xattrs.kept) >= _WHITEOUT_MARKERS


def is_marked(inode: ImageInode, *, image_format: int) -> bool:
    """Say whether `inode` carries what the writer puts on a directory that holds whiteouts."""
    needed = _PARENT_MARKERS | _OPAQUE_MARKERS if image_format else _PARENT_MARKERS
    return set(inode.xattrs.kept) >= needed


def _without(xattrs: Xattrs, markers: set[tuple[bytes, bytes]]) -> Xattrs:
    """Return `xattrs` less `markers`."""
    return tuple(pair for pair in xattrs if pair not in markers)


def make_entry(data: bytes, path: bytes, inode: ImageInode, *, root: bool = False) -> DumpEntry:
    """Return what `inode` is when `path` names it. Raises `InputError` for misused overlay attributes."""
    xattrs = inode.xattrs
    payload = content = digest = None
    if inode.external:
        digest, payload = _backing(inode)
    elif xattrs.metacopy is not None or xattrs.redirect is not None:
        raise damage.damaged(damage.OVERLAY, "something that is no external file has a backing file")
    elif inode.size:
        first, tail = inode.blocks, inode.tail
        if stat.S_ISLNK(inode.mode):
            payload = data[first[0] : first[1]] + data[tail[0] : tail[1]]
            if b"\0" in payload:
                raise damage.damaged(damage.NAME, "a symbolic link's target contains NUL")
        elif stat.S_ISREG(inode.mode):
            content = data[first[0] : first[1]] + data[tail[0] : tail[1]]
    if xattrs.opaque is not None and not (root and xattrs.opaque == b"y"):
        raise damage.damaged(damage.OVERLAY, "a directory or file is opaque that must not be")
    return DumpEntry(
        path,
        inode.size,
        inode.mode,
        inode.nlink,
        inode.uid,
        inode.gid,
        inode.rdev,
        inode.mtime_sec,
        inode.mtime_nsec,
        payload,
        content,
        digest,
        xattrs.kept,
    )


def without_parent_markers(xattrs: Xattrs) -> Xattrs:
    """Return the attributes of a directory that holds whiteouts, less what the writer adds."""
    return _without(xattrs, _PARENT_MARKERS)


def as_whiteout(xattrs: Xattrs) -> Xattrs:
    """Return the attributes of a whiteout, less what the writer adds."""
    return _without(xattrs, _WHITEOUT_MARKERS)


def _backing(inode: ImageInode) -> tuple[bytes | None, bytes | None]:
    """Return digest and backing path of an external file; None for what is not given."""
    value = inode.xattrs.metacopy
    if value is None:
        raise damage.damaged(damage.OVERLAY, "an external file lacks trusted.overlay.metacopy")
    digest = None
    if value:
        if _HEADERS.get(len(value)) != value[:4]:
            raise damage.damaged(damage.DIGEST, "an external file's digest has an unknown form")
        digest = value[4:]
    redirect = inode.xattrs.redirect
    if redirect is None:
        return digest, None
    if len(redirect) < 2 or redirect[:1] != b"/" or len(redirect) > 4096:
        raise damage.damaged(damage.OVERLAY, "an external file's backing path is not absolute, or too long")
    payload = redirect[1:]
    if b"\0" in payload or (b".." in payload and b".." in payload.split(b"/")):
        raise damage.damaged(damage.OVERLAY, "an external file's backing path contains NUL or '..'")
    return digest, payload
