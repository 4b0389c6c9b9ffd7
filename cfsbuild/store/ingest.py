"""Taking in the files of a scanned directory: each is read once, hashed, and staged on the way.

A file that is not what it was when it was scanned ends the build: `source changed while building`.
"""

from __future__ import annotations

import contextlib
import os
import stat
from array import array
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Protocol, cast

from cfsbuild import limits
from cfsbuild.errors import BuildError, CfsError
from cfsbuild.events import Listener, Progress, ignore
from cfsbuild.fsverity import pool
from cfsbuild.fsverity.algorithm import Algorithm
from cfsbuild.fsverity.digest import forced_kernel
from cfsbuild.native import extension
from cfsbuild.store.durability import Durability
from cfsbuild.store.faults import store_error
from cfsbuild.store.gate import Gate
from cfsbuild.store.sink import HashOnly
from cfsbuild.store.statcache import StatCache
from cfsbuild.store.statfile import Values
from cfsbuild.store.syscalls import open_file
from cfsbuild.tree import paths
from cfsbuild.tree.scan import Scan, explain

_WRITING = 1 << 16
_CHANGED = 1 << 17
_STAGED = 1
_PRESENT = 2
_DAMAGED = 3
"""Of native/ingest.c and batch.h."""

_WAITING_THREADS = 16
"""A cold page cache wants many reads at once; a warm one is not slower for it."""

_PLAIN_BATCH = 1024
"""How many files are written between two reports, without the extension module."""


class FileSink(Protocol):
    """What contents can go to: `sink.HashOnly`, a store's transaction (a `StagingSink`), or any other."""

    algorithm: Algorithm

    def add_fd(self, fd: int, /) -> tuple[bytes, int]:
        """Take in everything from `fd`'s position to its end; return (raw digest, size)."""


class StagingSink(FileSink, Protocol):
    """A store's transaction: objects may be written to its staging directory by other means."""

    staging_fd: int
    objects_fd: int
    path: Path
    durability: Durability
    gate: Gate

    def written(self, size: int) -> None:
        """Take note that `size` bytes were staged."""

    def known(self, digest: bytes, size: int) -> bool:
        """Say whether an object need not be written."""

    def adopt(self, digests: Iterable[bytes]) -> None:
        """Take responsibility for objects that were staged."""


class _Work:
    """One call of `ingest_tree`: what has to be read, and what came of it."""

    def __init__(self, scan: Scan, sink: FileSink, threads: int, report: Listener, job: str) -> None:
        self.scan = scan
        self.sink = sink
        self.hash_only = sink if isinstance(sink, HashOnly) else None
        self.staging = cast("StagingSink", sink) if hasattr(sink, "staging_fd") else None
        self.threads = threads or max(_WAITING_THREADS, os.cpu_count() or 1)
        self.listener = report
        self.job = job

    def name(self, number: int) -> bytes:
        """Return a file's path relative to the source directory."""
        return self.scan.paths[number][1:]

    @contextlib.contextmanager
    def directory(self) -> Iterator[int]:
        """Open the source directory. Raises `BuildError`."""
        try:
            fd = os.open(self.scan.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise explain(self.scan.root, error) from error
        try:
            yield fd
        finally:
            os.close(fd)


def ingest_tree(  # noqa: PLR0913 (all but two have defaults)
    scan: Scan,
    sink: FileSink,
    *,
    cache: StatCache | None = None,
    numbers: Sequence[int] | None = None,
    threads: int = 0,
    listener: Listener = ignore,
    job: str = "",
) -> Values:
    """Take in the regular files of `scan` that `numbers` lists (all, when None).

    Returns one value for each entry of the scan: the raw digest of a regular file of more than 64 bytes,
    which is then in `sink`; the content of one of 1 to 64; None for everything else. `threads` 0 lets the
    machine decide. Raises `BuildError` when a file cannot be read or changes meanwhile, `StoreError` when the
    store cannot be written.
    """
    work = _Work(scan, sink, threads, listener, job)
    wanted = _wanted(scan, range(len(scan)) if numbers is None else numbers)
    known: Values = cache.load(scan, sink.algorithm) if cache else [None] * len(scan)
    absent = _absent(work, known, wanted)
    values: Values = [None] * len(scan)
    missing = []
    for number in wanted:
        value = known[number]
        if value is None or value in absent:
            missing.append(number)
        else:
            values[number] = value
    if missing:
        _read_missing(work, missing, values)
    if cache and (missing or cache.digest is None):
        cache.save(scan, sink.algorithm, _overlaid(known, values))
    return values


def ingest_in_order(scan: Scan, *, algorithm: Algorithm, threads: int = 0) -> Iterator[bytes | None]:
    """Return what `ingest_tree` returns for a sink that only hashes, element by element.

    Without the extension module, an element is there before the files behind it are read: what the caller
    makes of it costs no time while worker processes hash. Raises the same, then or later.
    """
    sink = HashOnly(algorithm)
    if extension("cfsbuild.store._ingest") is not None:
        return iter(ingest_tree(scan, sink, threads=threads))
    return _in_order(_Work(scan, sink, threads, ignore, ""))


def _in_order(work: _Work) -> Iterator[bytes | None]:
    todo, links = _without_links(work.scan, _wanted(work.scan, range(len(work.scan))))
    originals = dict(links)
    found = dict.fromkeys(originals.values(), b"")
    values = zip(todo, _plain(work, todo), strict=True)
    waiting = next(values, None)
    for number in range(len(work.scan)):
        if waiting and waiting[0] == number:
            value = waiting[1]
            if number in found:
                found[number] = value
            yield value
            waiting = next(values, None)
        else:
            yield found[originals[number]] if number in originals else None


def _wanted(scan: Scan, numbers: Iterable[int]) -> list[int]:
    """Return the numbers of the regular files that are not empty."""
    sizes, modes = scan.size, scan.mode
    return [number for number in numbers if sizes[number] and stat.S_ISREG(modes[number])]


def _overlaid(known: Values, values: Values) -> Values:
    """Return what is known now: an excluded file's digest stays useful to other recipes."""
    return [old if new is None else new for old, new in zip(known, values, strict=True)]


def _absent(work: _Work, known: Values, wanted: Sequence[int]) -> set[bytes]:
    """Return the digests that are known but whose objects the sink lacks."""
    sizes = work.scan.size
    digests: dict[bytes, int] = {}
    for number in wanted:
        value = known[number]
        if value is not None and sizes[number] > limits.INLINE_BYTES:
            digests[value] = sizes[number]
    return absent(work.sink, digests)


def objects_directory(sink: FileSink) -> int:
    """Return the descriptor of the directory of objects that a sink adds to, or -1."""
    return cast("StagingSink", sink).objects_fd if hasattr(sink, "objects_fd") else -1


def absent(sink: FileSink, digests: Mapping[bytes, int]) -> set[bytes]:
    """Return those of `digests` (with their objects' sizes in bytes) whose objects `sink` lacks."""
    if isinstance(sink, HashOnly):
        return set()
    if not hasattr(sink, "staging_fd"):
        return set(digests)
    staging = cast("StagingSink", sink)
    native = extension("cfsbuild.store._ingest")
    doubtful = list(digests)
    if native is not None:
        found = native.present(staging.objects_fd, doubtful, array("q", digests.values()), os.geteuid())
        doubtful = [digest for digest, there in zip(doubtful, found, strict=True) if not there]
    return {digest for digest in doubtful if not staging.known(digest, digests[digest])}


def _read_missing(work: _Work, missing: Sequence[int], values: Values) -> None:
    """Fill in `values` for the files with the numbers `missing`."""
    todo, links = _without_links(work.scan, missing)
    native = (
        extension("cfsbuild.store._ingest")
        if work.hash_only is not None or work.staging is not None
        else None
    )
    found: Iterable[bytes] = _plain(work, todo) if native is None else _native_ingest(native, work, todo)
    for number, value in zip(todo, found, strict=True):
        values[number] = value
    for number, original in links:
        values[number] = values[original]


def _without_links(scan: Scan, numbers: Sequence[int]) -> tuple[list[int], list[tuple[int, int]]]:
    """Return the numbers of the first names of files, and the others with the first of each."""
    first: dict[tuple[int, int], int] = {}
    todo, links = [], []
    for number in numbers:
        if scan.nlink[number] > 1:
            original = first.setdefault((scan.dev[number], scan.ino[number]), number)
            if original != number:
                links.append((number, original))
                continue
        todo.append(number)
    return todo, links


def _native_ingest(native: ModuleType, work: _Work, todo: Sequence[int]) -> list[bytes]:
    """Read files with the extension module."""
    staging = work.staging
    if staging is None:
        values, _ = _call(native, work, todo, (-1, -1, False))
        return values
    with staging.gate.adding():
        sync = staging.durability is Durability.EACH
        values, states = _call(native, work, todo, (staging.staging_fd, staging.objects_fd, sync))
        sizes = work.scan.size
        staged: set[bytes] = set()
        present: dict[bytes, int] = {}
        damaged: dict[bytes, int] = {}
        new = 0
        for number, value, state in zip(todo, values, states, strict=True):
            if state == _STAGED:
                staged.add(value)
                new += sizes[number]
            elif state == _PRESENT:
                present.setdefault(value, number)
            elif state == _DAMAGED:
                damaged.setdefault(value, number)
        staging.adopt(staged)
    damaged |= {digest: at for digest, at in present.items() if not staging.known(digest, sizes[at])}
    for digest, number in damaged.items():
        _add_again(work, number, digest)
    staging.written(new)
    return values


def _call(
    native: ModuleType, work: _Work, todo: Sequence[int], target: tuple[int, int, bool]
) -> tuple[list[bytes], bytes]:
    """Call the extension module; return values and states. Raises as `ingest_tree` does."""
    total = len(todo)

    def progress(files: int, _bytes: int) -> None:
        work.listener(Progress(job=work.job, unit="files", done=files, total=total))

    with work.directory() as directory:
        values, states, failed, error = native.ingest(
            directory,
            [work.name(number) for number in todo],
            work.scan.records,
            array("I", todo),
            *target,
            work.sink.algorithm.kernel_id,
            work.threads,
            forced_kernel(),
            None if work.listener is ignore else progress,
        )
    if values is None:
        raise _failure(work, todo[failed], error)
    return values, states


def _failure(work: _Work, number: int, error: int) -> CfsError:
    """Return the exception for an error code of the extension module."""
    if error == _CHANGED:
        return _changed(work, number)
    if error & _WRITING and work.staging is not None:
        code = error & ~_WRITING
        return store_error(
            "write to", str(work.staging.path), OSError(code, os.strerror(code), work.name(number))
        )
    return explain(work.scan.root, OSError(error, os.strerror(error), work.name(number)))


def _changed(work: _Work, number: int) -> BuildError:
    shown = paths.show(os.fsencode(work.scan.root) + work.scan.paths[number])
    return BuildError(
        f"source changed while building: {shown}",
        details="the file is not what it was when the directory was listed",
        resolution="build again when nothing else writes to the directory",
        reason="source-changed",
    )


def _add_again(work: _Work, number: int, digest: bytes) -> None:
    """Write an object whose file in the store turned out not to be usable."""
    with work.directory() as directory:
        found = _read(work, directory, number, _add)
    if found != digest:
        raise _changed(work, number)


def _plain(work: _Work, todo: Sequence[int]) -> Iterator[bytes]:
    """Read files without the extension module; yield each value as soon as it is its turn."""
    sizes = work.scan.size
    total = len(todo)
    with work.directory() as directory, contextlib.closing(_hashed(work, directory, todo)) as hashed:
        for done, number in enumerate(todo, 1):
            if sizes[number] <= limits.INLINE_BYTES:
                yield _read(work, directory, number, _content)
            elif work.hash_only is None:
                yield _read(work, directory, number, _add)
            else:
                yield next(hashed)
            if done % _PLAIN_BATCH == 0 or done == total:
                work.listener(Progress(job=work.job, unit="files", done=done, total=total))


def _hashed(work: _Work, directory: int, todo: Sequence[int]) -> Generator[bytes, None, None]:
    """Yield the digests of the files that go nowhere: all at once, since that starts worker processes."""
    numbers = [number for number in todo if work.scan.size[number] > limits.INLINE_BYTES]
    names = [work.name(number) for number in numbers]
    processes = min(work.threads, os.cpu_count() or 1)
    found = pool.digest_files(directory, names, work.sink.algorithm, processes=processes)
    try:
        with contextlib.closing(found):
            for number, (digest, _, now) in zip(numbers, found, strict=True):
                _compare(work, number, now)
                yield digest
    except OSError as error:
        raise explain(work.scan.root, error) from error


def _read(work: _Work, directory: int, number: int, take: Callable[[_Work, int], bytes]) -> bytes:
    """Return what `take` makes of a file that did not change meanwhile."""
    name = work.name(number)
    try:
        fd = open_file(name, dir_fd=directory)
        try:
            value = take(work, fd)
            now = pool.stamp(os.fstat(fd))
        finally:
            os.close(fd)
    except OSError as error:
        error.filename = name
        raise explain(work.scan.root, error) from error
    _compare(work, number, now)
    return value


def _add(work: _Work, fd: int) -> bytes:
    return work.sink.add_fd(fd)[0]


def _content(_work: _Work, fd: int) -> bytes:
    return os.read(fd, limits.INLINE_BYTES + 1)


def _compare(work: _Work, number: int, now: pool.Stamp) -> None:
    """Raise `BuildError` if a file is no longer what it was when it was scanned."""
    scan = work.scan
    if now != (
        scan.dev[number],
        scan.ino[number],
        scan.mode[number],
        scan.size[number],
        scan.mtime_ns[number],
        scan.ctime_ns[number],
    ):
        raise _changed(work, number)
