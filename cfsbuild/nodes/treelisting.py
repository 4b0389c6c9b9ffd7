"""What a `tree` node finds in its source, in columns: one element for each entry that is taken.

A list of a hundred thousand entries is made, digested and turned into inodes in a fraction of a second;
that is why there are no objects here.
"""

from __future__ import annotations

import stat
from collections.abc import Collection, Iterable, Sequence
from contextlib import nullcontext

import msgspec

from cfsbuild import limits
from cfsbuild.errors import BuildError
from cfsbuild.nodes.kind import NodeContext
from cfsbuild.store.ingest import ingest_tree
from cfsbuild.store.statcache import StatCache
from cfsbuild.tree import paths
from cfsbuild.tree.inode import Inode, Xattrs
from cfsbuild.tree.scan import Scan, read_target, read_xattrs

OVERLAY_PREFIX = b"trusted.overlay."

_TYPE = 0o170000


class Listing(msgspec.Struct, frozen=True, array_like=True):
    """The entries that are taken, in depth-first order; the source directory itself is the first, `/`.

    `modes` are what the image will have unless a rule changes it. `owners` and `mtimes` are empty when they
    are not preserved. `values` holds digests (files of more than 64 bytes), contents (1 to 64), targets of
    symbolic links, or nothing. `links` maps positions to that of the first name of the same inode.
    """

    paths: list[bytes]
    modes: list[int]
    sizes: list[int]
    values: list[bytes]
    mtimes: list[int]
    owners: list[tuple[int, int]]
    xattrs: dict[int, Xattrs]
    links: dict[int, int]


def make_listing(
    context: NodeContext,
    scan: Scan,
    numbers: Sequence[int],
    preserve: Collection[str],
    *,
    cache: StatCache | None = None,
) -> Listing:
    """Read what `numbers` lists of `scan`, unless `cache` knows it; contents go to `context.sink`.

    Raises `BuildError` for devices, for what cannot be read, and for what changes meanwhile.
    """
    numbers = _without_sockets(context, scan, numbers)
    with scan.asking() if _wants_xattrs(preserve) else nullcontext():
        contents = ingest_tree(
            scan,
            context.sink,
            cache=cache,
            numbers=numbers,
            listener=context.listener,
            job=context.spec.name,
        )
    modes = scan.mode
    values = [contents[number] or b"" for number in numbers]
    for position, number in enumerate(numbers):
        if modes[number] & _TYPE == stat.S_IFLNK:
            values[position] = _target(scan, number)
    return listing_of(scan, numbers, preserve, values, _xattrs(context, scan, numbers, preserve))


def listing_of(
    scan: Scan,
    numbers: Sequence[int],
    preserve: Collection[str],
    values: list[bytes],
    xattrs: dict[int, Xattrs],
) -> Listing:
    """Return the listing that follows from `scan` and what was read: looks at nothing else."""
    modes, sizes = scan.mode, scan.size
    final = _normal_modes(modes, keep="mode" in preserve)
    sized = {stat.S_IFREG, stat.S_IFLNK}
    mtimes: list[int] = []
    owners: list[tuple[int, int]] = []
    if "mtime" in preserve:
        # An image's directories are as old as its epoch, whatever is said here.
        times = scan.mtime_ns
        shared: dict[int, int] = {}  # files of one package have one time: one object for them all
        one = shared.setdefault
        mtimes = [
            0 if stat.S_ISDIR(modes[number]) else one(time := times[number], time) for number in numbers
        ]
    if "owner" in preserve:
        owners = [(scan.uid[number], scan.gid[number]) for number in numbers]
    return Listing(
        [scan.paths[number] for number in numbers],
        [final[modes[number]] for number in numbers],
        [sizes[number] if modes[number] & _TYPE in sized else 0 for number in numbers],
        values,
        mtimes,
        owners,
        xattrs,
        _hard_links(scan, numbers),
    )


def _without_sockets(context: NodeContext, scan: Scan, numbers: Sequence[int]) -> Sequence[int]:
    """Leave out sockets, with a note; refuse devices."""
    modes = scan.mode
    odd = {mode for mode in set(modes) if mode & _TYPE in {stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK}}
    if not odd:
        return numbers
    result = []
    for number in numbers:
        if modes[number] not in odd:
            result.append(number)
        elif modes[number] & _TYPE == stat.S_IFSOCK:
            shown = paths.show(scan.paths[number])
            context.note(f"{shown} is a socket and is left out", "source")
        else:
            raise BuildError(
                f"{context.spec.name}: {paths.show(scan.paths[number])} is a device node",
                details="a tree takes files, directories, symbolic links and fifos",
                resolution="exclude it, and declare it in a device node",
                origin=context.spec.origin_of("source"),
                reason="device",
            )
    return result


def _normal_modes(modes: Iterable[int], *, keep: bool) -> dict[int, int]:
    """Map each mode that occurs to what the image has: of the permissions, only the executable bit counts."""
    result = {}
    for mode in set(modes):
        if stat.S_ISLNK(mode):
            result[mode] = stat.S_IFLNK | 0o777
        elif keep:
            result[mode] = mode
        elif stat.S_ISDIR(mode) or (stat.S_ISREG(mode) and mode & stat.S_IXUSR):
            result[mode] = mode & _TYPE | 0o755
        else:
            result[mode] = mode & _TYPE | 0o644
    return result


def _wants_xattrs(preserve: Collection[str]) -> bool:
    return "xattrs" in preserve or "overlay-xattrs" in preserve


def _xattrs(
    context: NodeContext, scan: Scan, numbers: Sequence[int], preserve: Collection[str]
) -> dict[int, Xattrs]:
    """Return the xattrs that are to be preserved, by position."""
    xattrs: dict[int, Xattrs] = {}
    if _wants_xattrs(preserve) and scan.attributed:
        for position, number in enumerate(numbers):
            found = read_xattrs(scan, number)
            if found:
                xattrs[position] = _checked(context, scan.paths[number], found, preserve)
    return xattrs


def _checked(context: NodeContext, path: bytes, xattrs: Xattrs, preserve: Collection[str]) -> Xattrs:
    """Refuse what overlayfs would take for its own."""
    if "overlay-xattrs" in preserve:
        return xattrs
    for name, _ in xattrs:
        if name.startswith(OVERLAY_PREFIX):
            raise BuildError(
                f"{context.spec.name}: {paths.show(path)} has the extended attribute {paths.show(name)}",
                details="overlayfs gives it a meaning of its own; most often it is left from a container",
                resolution='remove it, or write preserve = ["overlay-xattrs"] if the image is to have it',
                origin=context.spec.origin_of("preserve"),
                reason="overlay-xattr",
            )
    return xattrs


def _target(scan: Scan, number: int) -> bytes:
    target = read_target(scan, number)
    if len(target) != scan.size[number]:
        raise BuildError(
            f"source changed while building: {paths.show(scan.paths[number])}",
            details="the symbolic link is not what it was when the directory was listed",
            resolution="build again when nothing else writes to the directory",
            reason="source-changed",
        )
    return target


def _hard_links(scan: Scan, numbers: Sequence[int]) -> dict[int, int]:
    """Map each further name of an inode to its first one that is taken."""
    counts, modes, dev, ino = scan.nlink, scan.mode, scan.dev, scan.ino
    first: dict[tuple[int, int], int] = {}
    links: dict[int, int] = {}
    for position, number in enumerate(numbers):
        if counts[number] > 1 and modes[number] & _TYPE != stat.S_IFDIR:
            original = first.setdefault((dev[number], ino[number]), position)
            if original != position:
                links[position] = original
    return links


def inodes(listing: Listing, owner: tuple[int, int]) -> list[Inode]:
    """Return an inode for each position; `owner` is whose they are when owners are not preserved."""
    count = len(listing.paths)
    owners = listing.owners or [owner] * count
    mtimes = listing.mtimes or [0] * count
    none: Xattrs = ()
    xattrs = [none] * count
    for position, found in listing.xattrs.items():
        xattrs[position] = found
    result: list[Inode] = []
    add = result.append
    columns = zip(listing.modes, owners, mtimes, listing.sizes, listing.values, xattrs, strict=True)
    for mode, (uid, gid), mtime, size, value, pairs in columns:
        kind = mode & _TYPE
        if kind == stat.S_IFREG and size > limits.INLINE_BYTES:
            add(Inode(mode, uid, gid, mtime, size, value, b"", b"", 0, pairs))
        elif kind == stat.S_IFREG:
            add(Inode(mode, uid, gid, mtime, size, b"", value, b"", 0, pairs))
        else:
            add(Inode(mode, uid, gid, mtime, size, b"", b"", value, 0, pairs))
    return result
