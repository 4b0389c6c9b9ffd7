"""fsck of `objects/`: every byte is read and hashed, every name is judged."""

from __future__ import annotations

import os
import stat

from cfsbuild import events
from cfsbuild.fsverity import digest as fsverity
from cfsbuild.store import layout, syscalls, verity
from cfsbuild.store.findings import Finding, Report
from cfsbuild.store.store import Store


def check_objects(
    store: Store, report: Report, *, threads: int, listener: events.Listener
) -> tuple[int, int]:
    """Check all objects; return how many there are and how many bytes they hold. Raises `OSError`."""
    count = size = 0
    shards = store.objects.shards()
    for done, shard in enumerate(shards):
        listener(events.Progress(job="fsck", unit="directories", done=done, total=len(shards)))
        status = os.stat(shard, dir_fd=store.objects.fd, follow_symlinks=False)
        if not layout.is_shard(shard) or not stat.S_ISDIR(status.st_mode):
            report(
                Finding(kind="stray", where=f"{layout.OBJECTS}/{shard}", details="no directory of objects")
            )
            continue
        digests = _check_names(store, shard, report)
        count += len(digests)
        size += _check_content(store, shard, digests, report, threads=threads)
    listener(events.Progress(job="fsck", unit="directories", done=len(shards), total=len(shards)))
    return count, size


def _check_names(store: Store, shard: str, report: Report) -> list[bytes]:
    """Return the digests of the regular files of a shard."""
    result = []
    for rest in store.objects.shard(shard):
        digest = layout.digest_of(shard, rest, store.algorithm)
        if digest is None:
            where = f"{layout.OBJECTS}/{shard}/{rest}"
            report(Finding(kind="stray", where=where, details="its name is no digest"))
            continue
        status = store.objects.status(digest)
        if status is None:
            # gc took it meanwhile.
            continue
        if not stat.S_ISREG(status.st_mode):
            report(_finding("object-type", digest, "not a regular file"))
            continue
        if stat.S_IMODE(status.st_mode) & 0o7222:
            mode = f"mode {stat.S_IMODE(status.st_mode):04o}"
            report(_finding("object-mode", digest, mode, damage=False))
        result.append(digest)
    return result


def _check_content(store: Store, shard: str, digests: list[bytes], report: Report, *, threads: int) -> int:
    """Hash the objects of a shard; return how many bytes they hold."""
    if not digests:
        return 0
    fd = syscalls.open_directory(shard, dir_fd=store.objects.fd)
    try:
        names = [digest.hex()[2:].encode() for digest in digests]
        try:
            found = fsverity.digest_files(fd, names, store.algorithm, threads=threads)
        except OSError:
            # One cannot be read, or gc took it: find out which, one by one.
            return sum(_check_one(store, fd, digest, report) for digest in digests)
        for digest, (actual, size) in zip(digests, found, strict=True):
            _judge(digest, actual, size, report)
            _check_verity(store, fd, digest, report)
        return sum(size for _, size in found)
    finally:
        os.close(fd)


def _check_one(store: Store, fd: int, digest: bytes, report: Report) -> int:
    try:
        ((actual, size),) = fsverity.digest_files(fd, [digest.hex()[2:].encode()], store.algorithm, threads=1)
    except FileNotFoundError:
        return 0
    except OSError as error:
        details = f"cannot be read: {error.strerror}"
        report(_finding("object-unreadable", digest, details))
        return 0
    _judge(digest, actual, size, report)
    _check_verity(store, fd, digest, report)
    return size


def _judge(digest: bytes, actual: bytes, size: int, report: Report) -> None:
    if actual != digest:
        details = f"its {size} bytes have the digest {actual.hex()}"
        report(_finding("object-digest", digest, details))


def _check_verity(store: Store, shard_fd: int, digest: bytes, report: Report) -> None:
    """Ask whether the kernel enforces what the store promises."""
    if not store.requires_verity:
        return
    try:
        fd = syscalls.open_file(digest.hex()[2:], dir_fd=shard_fd)
    except FileNotFoundError:
        return
    try:
        measured = verity.measure(fd)
    finally:
        os.close(fd)
    if measured is None or measured.digest != digest:
        details = "the kernel enforces nothing" if measured is None else "the kernel enforces another digest"
        report(_finding("object-verity", digest, details))


def _finding(kind: str, digest: bytes, details: str, *, damage: bool = True) -> Finding:
    """Return what is wrong with the object of this digest."""
    return Finding(
        kind=kind, where=layout.object_path(digest), details=details, damage=damage, object=digest.hex()
    )
