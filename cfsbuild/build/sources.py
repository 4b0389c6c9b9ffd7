"""What local sources look like: a signature of each, taken before it is read.

A signature that is equal later means that nothing changed in between, unless a file was written within
`RACY_NS` of the moment when the signature was taken (a clock tick is coarser than a write): `racy` says so.
"""

from __future__ import annotations

import os
import stat
import struct
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from cfsbuild.build.keys import digest_of
from cfsbuild.errors import BuildError
from cfsbuild.limits import RACY_NS
from cfsbuild.recipe.model import TableSpec

if TYPE_CHECKING:
    from cfsbuild.tree.scan import Scan

_STATUS = struct.Struct("<QQqqqIIIQQ")


class Signature(msgspec.Struct, frozen=True, kw_only=True):
    """What a source looked like: `status` is that of a file, packed, `listing` the scan of a tree.

    Once a tree's listing is not needed any more, `status` is its digest. `newest_ns` is the latest ctime in
    it, `taken_ns` when it was taken (both ns since the epoch).
    """

    tree: bool
    newest_ns: int
    taken_ns: int
    status: bytes = b""
    listing: Scan | None = None

    @property
    def data(self) -> bytes:
        """Return bytes that are equal for two signatures exactly when nothing was seen to differ."""
        return self.status if self.listing is None else self.listing.digest

    @property
    def racy(self) -> bool:
        """Say whether a change right after the signature was taken could go unseen."""
        return self.newest_ns > self.taken_ns - RACY_NS


def pack_status(status: os.stat_result) -> bytes:
    """Return what identifies a version of a file: times in ns, no atime."""
    return _STATUS.pack(
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
        status.st_mode,
        status.st_uid,
        status.st_gid,
        status.st_nlink,
        status.st_rdev,
    )


def sign(path: Path) -> Signature:
    """Return the signature of the file or tree at `path`; of a path where nothing is: no data."""
    taken = time.time_ns()
    try:
        status = path.stat()
    except OSError:
        return Signature(tree=False, newest_ns=0, taken_ns=taken)
    if not stat.S_ISDIR(status.st_mode):
        return Signature(tree=False, status=pack_status(status), newest_ns=status.st_ctime_ns, taken_ns=taken)
    from cfsbuild.tree.scan import scan  # noqa: PLC0415 (only for trees)

    try:
        found = scan(path)
    except BuildError:
        # The kind that reads it knows whether that matters; a signature from the future is never trusted.
        return Signature(tree=True, newest_ns=taken, taken_ns=taken)
    return Signature(tree=True, newest_ns=found.newest_ns, taken_ns=taken, listing=found)


class NamesPaths(Protocol):
    """A kind of node or target."""

    @property
    def path_keys(self) -> tuple[str, ...]:
        """Parameters that name local paths: text, lists of texts, or tables with texts as values.

        `seal.machines` is the parameter `machines` in the table `seal`.
        """


def local_paths(kind: NamesPaths, spec: TableSpec) -> Iterator[tuple[str, Path]]:
    """Yield each local path that a node or target names, as written and as it is found here."""
    for key in kind.path_keys:
        value: Any = spec.params
        for part in key.split("."):
            value = getattr(value, part, None)
        if isinstance(value, dict):
            value = value.values()
        for written in [value] if isinstance(value, str) and value else value or ():
            yield written, spec.resolve(key, written)


class Sources:
    """Signatures of everything that a build reads. `directory` is for the stat cache of this user, if any."""

    def __init__(self, directory: Path | None) -> None:
        self.directory = directory
        self._signatures: dict[Path, Signature] = {}
        self._named: dict[str, tuple[tuple[str, Path], ...]] = {}
        self._lock = threading.Lock()
        self.reused = False
        """Whether another build follows that may ask for the same listings."""

    @property
    def signatures(self) -> dict[Path, Signature]:
        """Return what each source looked like before it was read."""
        return self._signatures

    def know(self, signatures: Mapping[Path, Signature]) -> None:
        """Take over signatures that were taken a moment ago."""
        self._signatures.update(signatures)

    def observe(self, job: str, kind: NamesPaths, spec: TableSpec) -> None:
        """Take the signatures of a node's or target's sources, unless they are known."""
        named = tuple(local_paths(kind, spec))
        with self._lock:
            self._named[job] = named
            for _, path in named:
                if path not in self._signatures:
                    self._signatures[path] = sign(path)

    def observe_file(self, job: str, path: Path) -> None:
        """Take the signature of a file that a node found out it needs, or would if it were there."""
        with self._lock:
            self._named[job] = (*self._named.get(job, ()), (str(path), path))
            if path not in self._signatures:
                self._signatures[path] = sign(path)

    def scan(self, path: Path) -> Scan:
        """Return the listing of the directory `path` as it was when its signature was taken."""
        with self._lock:
            if path not in self._signatures:
                self._signatures[path] = sign(path)
            listing = self._signatures[path].listing
        if listing is None:
            from cfsbuild.tree.scan import scan  # noqa: PLC0415 (only for trees)

            return scan(path)
        return listing

    def digests(self, job: str) -> dict[str, str]:
        """Return, for each observed source of a job, a digest of its signature: nothing of its content."""
        return {written: digest_of(self._signatures[path].data) for written, path in self._named[job]}

    def forget_listings(self) -> None:
        """Let go of the listings, each of which may take as much memory as a layer."""
        if self.reused:
            return
        with self._lock:
            for path, known in self._signatures.items():
                if known.listing is not None:
                    self._signatures[path] = msgspec.structs.replace(known, status=known.data, listing=None)

    def changed(self, job: str) -> str:
        """Return the first of a node's single-file sources that is no longer what it was; "" if none is.

        Trees are left to the kind: it notices while it reads them.
        """
        for written, path in self._named.get(job, ()):
            before = self._signatures[path]
            if not before.tree and sign(path).data != before.data:
                return written
        return ""
