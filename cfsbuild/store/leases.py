"""Leases: what somebody still needs although no reference says so (`docs/formats/store.md`).

A transaction needs none: while it is open no sweep runs. A lease is for what outlives a transaction: a
build of many transactions, a mounted image, an upload. Its file only grows: a header line, then one line
for each object (`o HEX`), node result (`r KEY`) and renewal (`t WALL BOOT`, seconds). The holder keeps
`flock` on it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import time
from collections.abc import Iterable

import msgspec

from cfsbuild import limits
from cfsbuild.fsverity.algorithm import Algorithm
from cfsbuild.store import layout, locks, syscalls

LEASE_VERSION = 1
_HEADER_BYTES = 1 << 16


class LeaseHeader(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who holds a lease and for how long.

    With `ttl` 0 it lives as long as its holder's process; else `ttl` seconds from its last renewal, by the
    clock that does not jump as long as the machine is not booted anew (`boot` is the boot id). `start` is
    the process's start time in clock ticks since boot, for people who compare it with `/proc/PID/stat`.
    """

    version: int = LEASE_VERSION
    purpose: str
    uid: int
    pid: int
    start: int
    boot: str
    ttl: int


class LeaseInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A living lease as gc sees it."""

    name: str
    header: LeaseHeader
    objects: frozenset[bytes]
    results: frozenset[str]


class Lease:
    """A lease that this process holds. As a context manager it is released at the end of the block."""

    def __init__(self, store_fd: int, purpose: str, *, ttl: int) -> None:
        self._store_fd = store_fd
        self.name, self._fd = _create(store_fd)
        header = LeaseHeader(
            purpose=purpose, uid=os.geteuid(), pid=os.getpid(), start=_start_time(), boot=boot_id(), ttl=ttl
        )
        syscalls.write_all(self._fd, msgspec.json.encode(header) + b"\n" + _renewal())

    def protect(self, objects: Iterable[bytes], *, results: Iterable[str] = ()) -> None:
        """Keep gc from removing objects and results from now on, then look whether they are there.

        In this order: what was looked up before may have gone meanwhile. Renews the lease. Raises `OSError`.
        """
        lines = [b"o " + digest.hex().encode() + b"\n" for digest in objects]
        lines += [b"r " + layout.check_document(key).encode() + b"\n" for key in results]
        lines.append(_renewal())
        with locks.shared(self._store_fd):
            syscalls.write_all(self._fd, b"".join(lines))

    def renew(self) -> None:
        """Begin the time to live anew. Raises `OSError`."""
        syscalls.write_all(self._fd, _renewal())

    def release(self) -> None:
        """Give the lease up. Raises `OSError`."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            try:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(f"{layout.LEASES}/{self.name}", dir_fd=self._store_fd)
            finally:
                os.close(fd)

    def detach(self) -> str:
        """Let the lease live on without this process, for its time to live; return its name."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        return self.name

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *_error: object) -> None:
        self.release()


def living(store_fd: int, algorithm: Algorithm, *, remove_dead: bool) -> list[LeaseInfo]:
    """Return the leases that are in force; remove the others when asked to. Raises `OSError`.

    What is no lease, or no file at all, is in force for nothing; fsck reports it.
    """
    result = []
    try:
        parent = syscalls.open_directory(layout.LEASES, dir_fd=store_fd)
    except FileNotFoundError:
        # A store of composefs-rs, without our rooms.
        return []
    try:
        for name in syscalls.names_in(".", dir_fd=parent):
            try:
                fd = syscalls.open_file(name, dir_fd=parent)
            except OSError:
                # Released meanwhile, or another user's and closed to this one.
                continue
            try:
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    continue
                info = _read(fd, name, algorithm)
                if info is not None and _in_force(fd, info[0], info[1]):
                    result.append(info[0])
                elif remove_dead and (info is not None or _abandoned(fd)):
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(name, dir_fd=parent)
            finally:
                os.close(fd)
    finally:
        os.close(parent)
    return result


def is_lease(store_fd: int, name: str) -> bool:
    """Say whether the file `name` of the leases is one, line by line, or about to become one, or gone."""
    try:
        data = syscalls.read_file(store_fd, f"{layout.LEASES}/{name}", limit=limits.DOCUMENT_BYTES)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    if b"\n" not in data and len(data) < _HEADER_BYTES:
        return b'{"version":1,'.startswith(data[:13])
    try:
        msgspec.json.decode(data.partition(b"\n")[0], type=LeaseHeader, strict=True)
    except (msgspec.DecodeError, msgspec.ValidationError):
        return False
    return all(line[:2] in {b"o ", b"r ", b"t "} for line in data.split(b"\n")[1:-1])


def release_named(store_fd: int, name: str) -> bool:
    """Give up a detached lease; False when it is gone already. Raises `OSError`."""
    try:
        os.unlink(f"{layout.LEASES}/{name}", dir_fd=store_fd)
    except FileNotFoundError:
        return False
    return True


def boot_id() -> str:
    """Return the kernel's random id of this boot; empty where there is no /proc."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:  # noqa: PTH123 (no pathlib)
            return file.read().strip()
    except OSError:
        return ""


def _create(store_fd: int) -> tuple[str, int]:
    """Make and lock a lease file; another process's cleaning may be faster than our lock."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    while True:
        name = os.urandom(16).hex()
        fd = os.open(f"{layout.LEASES}/{name}", flags, 0o644, dir_fd=store_fd)
        if locks.try_flock(fd, exclusive=True) and os.fstat(fd).st_nlink > 0:
            return name, fd
        os.close(fd)


def _renewal() -> bytes:
    return f"t {time.time():.0f} {time.clock_gettime(time.CLOCK_BOOTTIME):.0f}\n".encode()


def _start_time() -> int:
    """Return this process's start time, field 22 of /proc/self/stat; 0 where there is no /proc."""
    try:
        with open("/proc/self/stat", "rb") as file:  # noqa: PTH123 (no pathlib here)
            return int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return 0


def _read(fd: int, name: str, algorithm: Algorithm) -> tuple[LeaseInfo, tuple[int, int]] | None:
    """Return a lease and its last renewal; None when the file is no lease."""
    with open(fd, "rb", closefd=False) as file:
        lines = file.read().split(b"\n")
    try:
        header = msgspec.json.decode(lines[0], type=LeaseHeader, strict=True)
    except (msgspec.DecodeError, msgspec.ValidationError):
        return None
    objects: set[bytes] = set()
    results: set[str] = set()
    renewed = (0, 0)
    # The last piece is what follows the last newline: empty, or a line that a killed holder began.
    for line in lines[1:-1]:
        word, _, rest = line.decode("ascii", "replace").partition(" ")
        digest = layout.parse_digest(rest, algorithm)
        wall, _, boot = rest.partition(" ")
        if word == "o" and digest is not None:
            objects.add(digest)
        elif word == "r" and layout.is_hex(rest, 64):
            results.add(rest)
        elif word == "t" and wall.isdigit() and boot.isdigit():
            renewed = (int(wall), int(boot))
    info = LeaseInfo(name=name, header=header, objects=frozenset(objects), results=frozenset(results))
    return info, renewed


def _abandoned(fd: int) -> bool:
    """Say whether a lease's holder was killed before it had written the header."""
    return b"\n" not in os.pread(fd, _HEADER_BYTES, 0) and locks.try_flock(fd, exclusive=True)


def _in_force(fd: int, lease: LeaseInfo, renewed: tuple[int, int]) -> bool:
    """Say whether the holder lives, or the time to live is not over."""
    if not locks.try_flock(fd, exclusive=True):
        return True
    fcntl.flock(fd, fcntl.LOCK_UN)
    wall, boot = renewed
    if lease.header.ttl == 0:
        return False
    if lease.header.boot and lease.header.boot == boot_id():
        return time.clock_gettime(time.CLOCK_BOOTTIME) < boot + lease.header.ttl
    return time.time() < wall + lease.header.ttl
