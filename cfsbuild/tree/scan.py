"""A directory of the host, listed: every entry below it with its status, in depth-first order.

A scan is two byte strings that can be kept and compared: fixed-size records (`walk.RECORD`, 80 bytes, native
byte order) and the names, each with a NUL at its end, in the same order. Record 0 is the directory itself. No
symbolic link is followed, except to reach the directory itself.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from cfsbuild import limits
from cfsbuild.errors import BuildError
from cfsbuild.native import extension
from cfsbuild.tree import paths, walk
from cfsbuild.tree.inode import Xattrs

Column = memoryview
"""Integers, one for each entry."""

_WORDS = walk.RECORD.size // 8
_HALVES = walk.RECORD.size // 4

_WAITING_THREADS = 16
"""An empty cache wants many look-ups at once; a full one is listed no slower for it."""


class Scan:
    """What `scan` found. Columns have one element for each entry; those of numbers are views of the records.

    A list would take forty bytes for each number of a column. `taken_ns` is when the scan began, in ns since
    the epoch.
    """

    def __init__(self, root: Path, records: bytes | memoryview, names: bytes, taken_ns: int) -> None:
        self.root = root
        self.taken_ns = taken_ns
        self.records = records
        self.name_bytes = names

    def __len__(self) -> int:
        return len(self.records) // walk.RECORD.size

    @functools.cached_property
    def digest(self) -> bytes:
        """A hash (BLAKE3) that is equal for two scans exactly when nothing was seen to differ."""
        from blake3 import blake3  # noqa: PLC0415 (a directory that is only listed needs none)

        start = len(self.records).to_bytes(8, "little")
        return blake3(start).update(self.records).update(self.name_bytes).digest()

    def record(self, number: int) -> tuple[int, ...]:
        """Return the fields of entry `number`, without making columns of all."""
        return walk.RECORD.unpack_from(self.records, number * walk.RECORD.size)

    def with_parents(self, numbers: Iterable[int]) -> list[int]:
        """Return `numbers` and those of all directories above them, ascending."""
        kept = {0}
        for number in numbers:
            above = number
            while above not in kept:
                kept.add(above)
                above = self.record(above)[walk.PARENT]
        return sorted(kept)

    def only(self, numbers: Sequence[int]) -> Scan:
        """Return a scan of the entries `numbers`, which `with_parents` gave."""
        records, names = bytearray(), bytearray()
        places: dict[int, int] = {}
        for place, number in enumerate(numbers):
            places[number] = place
            fields = list(self.record(number))
            start = fields[walk.NAME_OFFSET]
            name = self.name_bytes[start : start + fields[walk.NAME_BYTES] + 1]
            fields[walk.PARENT], fields[walk.NAME_OFFSET] = places[fields[walk.PARENT]], len(names)
            records += walk.RECORD.pack(*fields)
            names += name
        return Scan(self.root, bytes(records), bytes(names), self.taken_ns)

    def _long(self, word: int, kind: Literal["q", "Q"] = "q") -> Column:
        return memoryview(self.records).cast(kind)[word::_WORDS]

    def _short(self, half: int) -> Column:
        return memoryview(self.records).cast("I")[half::_HALVES]

    @functools.cached_property
    def ino(self) -> Column:
        """Inode numbers."""
        return self._long(0, "Q")

    @functools.cached_property
    def size(self) -> Column:
        """Sizes in bytes."""
        return self._long(1)

    @functools.cached_property
    def mtime_ns(self) -> Column:
        """Times of the last change of content, in ns since the epoch."""
        return self._long(2)

    @functools.cached_property
    def ctime_ns(self) -> Column:
        """Times of the last change of content or status, in ns since the epoch."""
        return self._long(3)

    @functools.cached_property
    def dev(self) -> Column:
        """Devices (st_dev)."""
        return self._long(4, "Q")

    @functools.cached_property
    def rdev(self) -> Column:
        """What device nodes stand for (st_rdev)."""
        return self._long(5, "Q")

    @functools.cached_property
    def mode(self) -> Column:
        """Types and permissions (st_mode)."""
        return self._short(12)

    @functools.cached_property
    def uid(self) -> Column:
        """User ids."""
        return self._short(13)

    @functools.cached_property
    def gid(self) -> Column:
        """Group ids."""
        return self._short(14)

    @functools.cached_property
    def nlink(self) -> Column:
        """Numbers of names."""
        return self._short(15)

    @functools.cached_property
    def parent(self) -> Column:
        """Numbers of the entries' directories; 0 for the root."""
        return self._short(16)

    @property
    def names(self) -> list[bytes]:
        """Names; empty for the root."""
        return self.name_bytes.split(b"\0")[: len(self)]

    @functools.cached_property
    def paths(self) -> list[bytes]:
        """Absolute paths as in a tree: the root is `/`."""
        result = [b""]
        append = result.append
        pairs = zip(self.parent, self.names, strict=True)
        next(pairs)
        for parent, name in pairs:
            append(b"%b/%b" % (result[parent], name))
        result[0] = paths.ROOT
        return result

    @functools.cached_property
    def attributed(self) -> Collection[int]:
        """Numbers of the entries that may have extended attributes; hardly any has."""
        native = extension("cfsbuild.tree._scan")
        if native is None:
            return self._asked()
        try:
            fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise explain(self.root, error) from error
        try:
            flags = native.attributed(fd, self.records, self.name_bytes)
        finally:
            os.close(fd)
        return {number for number, flag in enumerate(flags) if flag} if any(flags) else ()

    @contextlib.contextmanager
    def asking(self) -> Iterator[None]:
        """Find out what `attributed` is while the extension module does other work, such as reading contents.

        Nobody waits for it when that work fails or is interrupted. Without the extension module nothing is
        done, since only one thread at a time runs Python.
        """
        if extension("cfsbuild.tree._scan") is None:
            yield
            return

        from cfsbuild.begun import Begun  # noqa: PLC0415 (nothing to ask about when nothing changed)

        def ask() -> None:
            # Who uses `attributed` asks again then, and is told.
            with contextlib.suppress(BuildError):
                _ = self.attributed

        asked = Begun(ask, name="xattrs")
        yield
        asked.settle()

    def _asked(self) -> set[int]:
        """Return the numbers of the entries that have extended attributes, or cannot be asked."""
        root = os.fsencode(self.root)
        found = set()
        ask = os.listxattr
        for number, path in enumerate(self.paths):
            try:
                if not ask(root + path, follow_symlinks=False):
                    continue
            except OSError as error:
                if error.errno == errno.EOPNOTSUPP:
                    continue
            found.add(number)
        return found

    @functools.cached_property
    def newest_ns(self) -> int:
        """The latest ctime, in ns since the epoch."""
        return max(self.ctime_ns.tolist())


def scan(root: Path, *, threads: int = 0, one_file_system: bool = False) -> Scan:
    """List `root` and everything below it.

    `one_file_system` leaves out what is inside mount points. `threads` is how many list at the same time; 0
    lets the machine decide, and without the extension module it is one. Raises `BuildError` with the path:
    unreadable, vanished meanwhile, deeper or longer than the limits, or `root` no directory.
    """
    bounds = (limits.PATH_DEPTH, limits.PATH_BYTES, limits.TREE_ENTRIES)
    native = extension("cfsbuild.tree._scan")
    taken_ns = time.time_ns()
    try:
        fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if native is not None:
                records, names = native.scan(fd, *bounds, one_file_system, threads or _WAITING_THREADS)
                return Scan(root, records, names, taken_ns)
            listing = walk.Walk(*bounds, one_file_system=one_file_system)
            listing.root(fd)
            return Scan(root, bytes(listing.records), bytes(listing.names), taken_ns)
        finally:
            os.close(fd)
    except OSError as error:
        raise explain(root, error) from error


def match(old: tuple[bytes | memoryview, bytes | memoryview], new: Scan) -> list[int]:
    """Return for each entry of `new` the number of the identical entry in an old scan, or -1.

    `old` are the records and the names of that scan. Identical: same path, and nothing differs but its place
    in the list. Raises `ValueError` if `old` cannot come from a scan.
    """
    native = extension("cfsbuild.tree._scan")
    if native is not None:
        found = native.match(*old, new.records, new.name_bytes)
        return memoryview(found).cast("i").tolist()
    return walk.match(bytes(old[0]), bytes(old[1]), bytes(new.records), new.name_bytes)


def read_target(scanned: Scan, index: int) -> bytes:
    """Return where the symbolic link with number `index` points. Raises `BuildError`."""
    path = scanned.paths[index]
    try:
        return os.readlink(os.fsencode(scanned.root) + path)  # noqa: PTH115 (bytes)
    except OSError as error:
        error.filename = path[1:]
        raise explain(scanned.root, error) from error


def read_xattrs(scanned: Scan, index: int) -> Xattrs:
    """Return the extended attributes of entry `index`, not of what a link points to. Raises `BuildError`."""
    if index not in scanned.attributed:
        return ()
    path = scanned.paths[index]
    place = os.fsencode(scanned.root) + path
    try:
        names = sorted(os.listxattr(place, follow_symlinks=False))
        return tuple(
            sorted((os.fsencode(name), os.getxattr(place, name, follow_symlinks=False)) for name in names)
        )
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return ()
        error.filename = path[1:]
        raise explain(scanned.root, error) from error


_REASONS = {
    errno.ENOENT: ("vanished while it was read", "build again when nothing else changes the directory"),
    errno.ENAMETOOLONG: (
        "is nested too deep or has too long a path",
        f"at most {limits.PATH_DEPTH} levels and {limits.PATH_BYTES} bytes are possible in an image",
    ),
    errno.EOVERFLOW: ("is one entry too many", f"a tree has at most {limits.TREE_ENTRIES:,} entries"),
    errno.EACCES: ("cannot be read", "make it readable for the user who builds, or exclude it"),
    errno.ENOTDIR: ("is no directory", "name a directory"),
}


def explain(root: Path, error: OSError) -> BuildError:
    """Return what to tell about `error` that happened to a path below `root`."""
    name = error.filename if isinstance(error.filename, bytes) else b""
    shown = paths.show(os.path.join(os.fsencode(root), name) if name else os.fsencode(root))  # noqa: PTH118 (bytes)
    what, resolution = _REASONS.get(error.errno or 0, ("cannot be read", ""))
    if not name and error.errno == errno.ENOENT:
        what, resolution = "does not exist", ""
    code = errno.errorcode.get(error.errno or 0, "")
    return BuildError(
        f"{shown} {what}", details=f"{error.strerror} ({code})", resolution=resolution, reason="source"
    )
