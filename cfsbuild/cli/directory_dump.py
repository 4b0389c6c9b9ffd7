"""A directory on disk as dump entries, by the rules of `mkcomposefs DIRECTORY IMAGE`.

Every name is its own inode (the C tool does not see hard links), files of up to 64 bytes are inline, times
keep their nanoseconds.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, repeat
from pathlib import Path
from typing import Literal

from cfsbuild import limits
from cfsbuild.erofs.writer import Row
from cfsbuild.errors import BuildError
from cfsbuild.fsverity import kernel
from cfsbuild.fsverity.algorithm import Algorithm
from cfsbuild.fsverity.digest import Hasher
from cfsbuild.store.ingest import ingest_in_order
from cfsbuild.store.statfile import Values
from cfsbuild.store.syscalls import sync_file_system, write_all
from cfsbuild.tree import paths
from cfsbuild.tree.flavour import NANOSECONDS, payload_of
from cfsbuild.tree.inode import Xattrs
from cfsbuild.tree.scan import Scan, explain, read_target, read_xattrs, scan

XattrChoice = Literal["all", "user", "none"]

BATCH_FILES = 4096
"""How many objects share one syncfs."""

BATCH_ROWS = 4096
"""How many entries are turned into rows at once, perhaps while contents behind them are still read."""

CHUNK_BYTES = 1 << 20

_TYPE = 0o170000
_DEVICES = frozenset((stat.S_IFCHR, stat.S_IFBLK))


class StoreFailedError(Exception):
    """The digest store cannot be written; the text says why."""


def read(  # noqa: PLR0913 (the tool's options)
    root: Path,
    *,
    use_epoch: bool,
    skip_devices: bool,
    xattrs: XattrChoice,
    digest_store: Path | None,
    threads: int,
) -> Iterator[Row]:
    """Return the entries of `root`, as rows, in depth-first order; fill `digest_store` with the contents.

    Raises `BuildError` for what cannot be read or changes meanwhile, `StoreFailedError` for the store.
    """
    listing = scan(root, threads=threads)
    with contextlib.nullcontext() if xattrs == "none" else listing.asking():
        values: Iterable[bytes | None] = ingest_in_order(listing, algorithm=Algorithm.SHA256, threads=threads)
    if digest_store is not None:
        values = list(values)
        wanted = {
            value: number
            for number, value in enumerate(values)
            if value is not None and listing.size[number] > limits.INLINE_BYTES
        }
        try:
            fill_store(digest_store, listing, wanted)
        except OSError as error:
            raise StoreFailedError(error.strerror) from error
    numbers = _numbers(listing, skip_devices=skip_devices)
    rows = _rows(listing, values, use_epoch=use_epoch, xattrs=xattrs)
    return rows if len(numbers) == len(listing) else _picked(rows, numbers)


def _numbers(listing: Scan, *, skip_devices: bool) -> Sequence[int]:
    """Return the numbers of the entries that are wanted."""
    devices = {mode for mode in set(listing.mode) if stat.S_IFMT(mode) in _DEVICES} if skip_devices else set()
    if not devices:
        return range(len(listing))
    return [number for number, mode in enumerate(listing.mode) if mode not in devices]


def _rows(
    listing: Scan, values: Iterable[bytes | None], *, use_epoch: bool, xattrs: XattrChoice
) -> Iterator[Row]:
    """Yield the fields of each entry, made column by column: faster than objects."""
    remaining = iter(values)
    for start in range(0, len(listing), BATCH_ROWS):
        part = slice(start, start + BATCH_ROWS)
        sizes, rdevs, payloads, contents, digests = _data(listing, start, list(islice(remaining, BATCH_ROWS)))
        times = repeat(0) if use_epoch else [time // NANOSECONDS for time in listing.mtime_ns[part]]
        fractions = repeat(0) if use_epoch else [time % NANOSECONDS for time in listing.mtime_ns[part]]
        yield from zip(
            listing.paths[part],
            sizes,
            listing.mode[part],
            repeat(1),
            listing.uid[part],
            listing.gid[part],
            rdevs,
            times,
            fractions,
            payloads,
            contents,
            digests,
            _xattrs(listing, start, len(sizes), xattrs),
            repeat(None),
        )


def _data(listing: Scan, start: int, values: Values) -> tuple[list[int], list[int], Values, Values, Values]:
    """Return the columns SIZE, RDEV, PAYLOAD, CONTENT and DIGEST of the entries from `start` on."""
    count = len(values)
    sizes, rdevs = [0] * count, [0] * count
    payloads: Values = [None] * count
    contents: Values = [None] * count
    digests: Values = [None] * count
    part = slice(start, start + count)
    for place, (mode, size, value) in enumerate(
        zip(listing.mode[part], listing.size[part], values, strict=True)
    ):
        kind = mode & _TYPE
        if kind == stat.S_IFREG:
            sizes[place] = size
            if size > limits.INLINE_BYTES and value is not None:
                text = value.hex().encode()
                payloads[place], digests[place] = text[:2] + b"/" + text[2:], value
            else:
                contents[place] = value
        elif kind == stat.S_IFLNK:
            payloads[place] = target = read_target(listing, start + place)
            sizes[place] = len(target)
        elif kind in _DEVICES:
            rdevs[place] = listing.rdev[start + place] & 0xFFFFFFFF
    return sizes, rdevs, payloads, contents, digests


def _picked(rows: Iterator[Row], numbers: Sequence[int]) -> Iterator[Row]:
    wanted = set(numbers)
    return (row for number, row in enumerate(rows) if number in wanted)


def _xattrs(listing: Scan, start: int, count: int, choice: XattrChoice) -> list[Xattrs]:
    if choice == "none" or not listing.attributed:
        return [()] * count
    found = listing.attributed
    return [
        _chosen(read_xattrs(listing, number), choice) if number in found else ()
        for number in range(start, start + count)
    ]


def _chosen(pairs: Xattrs, choice: XattrChoice) -> Xattrs:
    return pairs if choice == "all" else tuple(pair for pair in pairs if pair[0].startswith(b"user."))


# --- the digest store: a plain directory of xx/rest ---------------------------------------------------------


def fill_store(store: Path, listing: Scan, wanted: dict[bytes, int]) -> None:
    """Copy the contents that `store` lacks into it; `wanted` maps digests to entries of `listing`.

    An object has its name only once its bytes are on stable storage: written under temporary names, one
    syncfs for many, then renamed. Raises `OSError` for the store, `BuildError` if a file is not what it was.
    """
    store.mkdir(mode=0o755, exist_ok=True)
    store_fd = os.open(store, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    root_fd = os.open(listing.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        missing = [(digest, number) for digest, number in wanted.items() if not _exists(store_fd, digest)]
        for start in range(0, len(missing), BATCH_FILES):
            _add_batch(store_fd, root_fd, listing, missing[start : start + BATCH_FILES])
    finally:
        os.close(root_fd)
        os.close(store_fd)


def _exists(store_fd: int, digest: bytes) -> bool:
    try:
        os.stat(payload_of(digest), dir_fd=store_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _temporary(digest: bytes) -> bytes:
    """Return a name next to the object's own, which no other process uses."""
    text = digest.hex().encode("ascii")
    return b"%b/.tmp%d.%b" % (text[:2], os.getpid(), text[2:])


def _add_batch(store_fd: int, root_fd: int, listing: Scan, batch: list[tuple[bytes, int]]) -> None:
    """Add objects that the store lacks: all of them, or those of an earlier batch."""
    written: list[bytes] = []
    try:
        for digest, number in batch:
            with contextlib.suppress(FileExistsError):
                os.mkdir(digest[:1].hex(), 0o755, dir_fd=store_fd)
            written.append(digest)
            _copy(store_fd, root_fd, listing, digest, number)
        sync_file_system(store_fd)
        while written:
            digest = written[-1]
            os.rename(_temporary(digest), payload_of(digest), src_dir_fd=store_fd, dst_dir_fd=store_fd)
            written.pop()
        _sync_shards(store_fd, {digest[:1].hex() for digest, _ in batch})
    finally:
        for digest in written:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(_temporary(digest), dir_fd=store_fd)


def _copy(store_fd: int, root_fd: int, listing: Scan, digest: bytes, number: int) -> None:
    """Copy one file to its temporary name, and make sure that what was written has the digest."""
    path = listing.paths[number]
    try:
        source = os.open(path[1:], os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=root_fd)
    except OSError as error:
        error.filename = path[1:]
        raise explain(listing.root, error) from error
    try:
        target = os.open(
            _temporary(digest),
            os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC,
            0o600,
            dir_fd=store_fd,
        )
        try:
            hasher = Hasher(Algorithm.SHA256)
            while data := os.read(source, CHUNK_BYTES):
                hasher.update(data)
                write_all(target, data)
            os.fchmod(target, 0o644)
        finally:
            os.close(target)
    finally:
        os.close(source)
    _enable_verity(store_fd, digest)
    if hasher.digest() != digest:
        raise BuildError(f"{paths.show(path)} changed while it was read", reason="source")


def _enable_verity(store_fd: int, digest: bytes) -> None:
    """Turn on fs-verity where the file system has it; as in the C tool, where it has not is no error."""
    fd = os.open(_temporary(digest), os.O_RDONLY | os.O_CLOEXEC, dir_fd=store_fd)
    try:
        with contextlib.suppress(kernel.VerityUnsupported):
            kernel.enable(fd, Algorithm.SHA256)
    finally:
        os.close(fd)


def _sync_shards(store_fd: int, shards: Iterable[str]) -> None:
    for shard in sorted(shards):
        fd = os.open(shard, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=store_fd)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
