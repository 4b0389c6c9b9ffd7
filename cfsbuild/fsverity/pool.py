"""Digests of many files without the extension module: worker processes, since hashlib shares the GIL.

The workers share three descriptors and no other protocol: a memory file with the names, a pipe with the
numbers of the batches to do, and a memory file with one fixed-size record for each name's result.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import struct
import sys
from collections.abc import Generator, Sequence

from cfsbuild.fsverity import merkle, plain
from cfsbuild.fsverity.algorithm import BLOCK_SIZE, Algorithm

_BATCH = struct.Struct("<I")
_RECORD = struct.Struct("<i64sqQQIqqq")
"""errno (0: done), digest, bytes read, stamp."""

Stamp = tuple[int, int, int, int, int, int]
"""st_dev, st_ino, st_mode, st_size, st_mtime_ns, st_ctime_ns."""

Digested = tuple[bytes, int, Stamp]
"""Raw digest, bytes read, and the file's stamp once all was read."""

_NOTHING = (b"", 0, 0, 0, 0, 0, 0, 0)

_POOL_FILES = 512
"""Fewer files than this do not pay for starting worker processes."""

_MAX_BATCHES = 8192
"""So that every batch number fits into the pipe at once (64 KiB)."""


class FileHasher:
    """Digests of files, one after another, through one buffer: nothing is allocated for each block.

    The buffer holds as many blocks as there are hashes in a block, so that nearly every file fits into it.
    """

    def __init__(self, algorithm: Algorithm) -> None:
        import hashlib  # noqa: PLC0415 (loads OpenSSL, which most commands never need)

        self._algorithm = algorithm
        self._new = hashlib.sha256 if algorithm is Algorithm.SHA256 else hashlib.sha512
        size = BLOCK_SIZE // algorithm.digest_size * BLOCK_SIZE
        self._view = memoryview(bytearray(size))
        self._blocks = [self._view[start : start + BLOCK_SIZE] for start in range(0, size, BLOCK_SIZE)]

    def digest(self, directory_fd: int, name: bytes) -> Digested:
        """Take in one regular file, as long as it is now. Raises `OSError`."""
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=directory_fd)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), name)  # noqa: TRY301 (closes the descriptor)
            root, size = self._root(fd, status.st_size)
            after = stamp(os.fstat(fd))
        except OSError as error:
            error.filename = name
            raise
        finally:
            os.close(fd)
        return self._new(merkle.descriptor(self._algorithm, size, root)).digest(), size, after

    def _root(self, fd: int, size: int) -> tuple[bytes, int]:
        """Return the root hash and the size of what can be read of `size` bytes."""
        view = self._view
        used = os.readv(fd, [view[:size]]) if size else 0
        if used == size <= len(view):
            hashes = self._hash(used)
            if len(hashes) > self._algorithm.digest_size:
                hashes = self._new(hashes.ljust(BLOCK_SIZE, b"\0")).digest()
            return hashes or bytes(self._algorithm.digest_size), size
        levels = merkle.Levels(self._algorithm, plain.hash_blocks)
        total = 0
        while used:
            # Only the last piece may be short: what follows would not begin with a block.
            while used < min(len(view), size - total) and (more := os.readv(fd, [view[used : size - total]])):
                used += more
            levels.push(self._hash(used))
            total += used
            used = os.readv(fd, [view[: size - total]]) if total < size else 0
        return levels.root(), total

    def _hash(self, used: int) -> bytes:
        """Return the hashes of the blocks in the first `used` bytes of the buffer, the last one padded."""
        new = self._new
        blocks = self._blocks
        count = -(-used // BLOCK_SIZE)
        if used < count * BLOCK_SIZE:
            self._view[used : count * BLOCK_SIZE] = bytes(count * BLOCK_SIZE - used)
        if count == 1:
            return new(blocks[0]).digest()
        return b"".join(
            [new(block).digest() for block in (blocks if count == len(blocks) else blocks[:count])]
        )


def stamp(status: os.stat_result) -> Stamp:
    """Return what differs once a file was replaced or written to."""
    return (
        status.st_dev,
        status.st_ino,
        status.st_mode,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


def digest_files(
    directory_fd: int, names: Sequence[bytes], algorithm: Algorithm, *, processes: int
) -> Generator[Digested, None, None]:
    """Take in the files `names`; yield each in its turn, while the rest is worked on. Raises `OSError`."""
    if processes == 1 or len(names) < _POOL_FILES:
        hasher = FileHasher(algorithm)
        for name in names:
            yield hasher.digest(directory_fd, name)
        return
    batch = max(32, -(-len(names) // _MAX_BATCHES))
    names_fd = os.memfd_create("names")
    results_fd = os.memfd_create("results")
    try:
        _write_all(names_fd, b"\0".join(names))
        fds = (directory_fd, names_fd, results_fd)
        with contextlib.closing(_run_workers(fds, algorithm, (len(names), batch), processes)) as done:
            for start in done:
                part = names[start : start + batch]
                records = os.pread(results_fd, _RECORD.size * len(part), _RECORD.size * start)
                for name, (code, digest, size, *now) in zip(part, _RECORD.iter_unpack(records), strict=True):
                    if code:
                        raise OSError(code, os.strerror(code), name)
                    yield digest[: algorithm.digest_size], size, tuple(now)
    finally:
        os.close(names_fd)
        os.close(results_fd)


def _run_workers(
    files: tuple[int, int, int], algorithm: Algorithm, shape: tuple[int, int], processes: int
) -> Generator[int, None, None]:
    """Start the workers and yield where batches that are done begin, ascending; end them when interrupted."""
    import subprocess  # noqa: PLC0415 (with the next: only when there is much to do, and not in a worker)
    from pathlib import Path  # noqa: PLC0415

    count, batch = shape
    queue, feed = os.pipe()
    done, finished = os.pipe()
    fds = (*files, queue, finished)
    # Without `site`, which takes longer to look for packages than all else takes to start; and nothing is
    # imported from the directory that the user happens to be in.
    command = [sys.executable, "-S", "-P", "-m", "cfsbuild.fsverity.pool", algorithm.value, str(batch)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(Path(__file__).parents[2])])}
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, done)
        with contextlib.ExitStack() as passed:
            passed.callback(os.close, queue)
            passed.callback(os.close, finished)
            with open(feed, "wb") as file:  # noqa: PTH123 (a descriptor)
                file.write(b"".join(_BATCH.pack(start) for start in range(0, count, batch)))
            for _ in range(processes):
                worker = subprocess.Popen(
                    [*command, *map(str, fds)], pass_fds=fds, env=environment, stdin=subprocess.DEVNULL
                )
                stack.callback(worker.wait)
                stack.callback(worker.kill)
        ready: set[int] = set()
        for start in range(0, count, batch):
            while start not in ready:
                ready.update(_more(done))
            yield start


def _more(done: int) -> list[int]:
    """Wait for batches that are done, and return where they begin."""
    # The pipe holds whole numbers: each is written at once, and 4096 is a multiple of their size.
    data = os.read(done, 4096)
    if not data:
        from cfsbuild.errors import BuildError  # noqa: PLC0415 (workers start faster without it)

        raise BuildError("a process that computes digests ended before its work was done")
    return [start for (start,) in _BATCH.iter_unpack(data)]


def _write_all(fd: int, data: bytes) -> None:
    """Write all of `data`."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _work(algorithm: Algorithm, batch: int, fds: Sequence[int]) -> None:
    """Be a worker: take batches from the queue until it is empty."""
    directory_fd, names_fd, results_fd, queue, finished = fds
    data = os.pread(names_fd, os.fstat(names_fd).st_size, 0)
    names = data.split(b"\0")
    digest_file = FileHasher(algorithm).digest
    while number := os.read(queue, _BATCH.size):
        (start,) = _BATCH.unpack(number)
        records = bytearray()
        for name in names[start : start + batch]:
            try:
                digest, size, after = digest_file(directory_fd, name)
                records += _RECORD.pack(0, digest, size, *after)
            except OSError as error:
                records += _RECORD.pack(error.errno or errno.EIO, *_NOTHING)
        os.pwrite(results_fd, records, start * _RECORD.size)
        os.write(finished, number)


if __name__ == "__main__":
    _work(Algorithm(sys.argv[1]), int(sys.argv[2]), list(map(int, sys.argv[3:])))
