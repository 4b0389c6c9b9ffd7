"""Two system calls that Python's `os` lacks, and what is built from them."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import stat
from collections.abc import Callable, Iterator
from typing import Any

from cfsbuild.native import extension

RENAME_NOREPLACE = 1


@functools.cache
def _calls() -> tuple[Callable[[int, bytes, int, bytes], int], Callable[[int], int]]:
    """Return `renameat2` with RENAME_NOREPLACE, and `syncfs`; both return 0 or errno."""
    native = extension("cfsbuild.store._ingest")
    if native is not None:
        return native.rename_new, native.sync_file_system
    import ctypes  # noqa: PLC0415 (slow to import)

    library: Any = ctypes.CDLL(None, use_errno=True)
    renameat2, syncfs = library.renameat2, library.syncfs
    renameat2.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    syncfs.argtypes = (ctypes.c_int,)

    def rename(source_fd: int, source: bytes, target_fd: int, target: bytes) -> int:
        failed = renameat2(source_fd, source, target_fd, target, RENAME_NOREPLACE)
        return ctypes.get_errno() if failed else 0

    return rename, lambda fd: ctypes.get_errno() if syncfs(fd) else 0


def rename_new(source_fd: int, source: str, target_fd: int, target: str) -> None:
    """Rename without replacing: `FileExistsError` when `target` is there. Raises `OSError`.

    Both names are relative to their directories and on one file system.
    """
    rename, _ = _calls()
    number = rename(source_fd, os.fsencode(source), target_fd, os.fsencode(target))
    if number == 0:
        return
    if number not in {errno.EINVAL, errno.ENOSYS}:
        raise OSError(number, os.strerror(number), target)
    # The file system does not know the flag (NFS, old FUSE): a hard link never replaces either.
    os.link(source, target, src_dir_fd=source_fd, dst_dir_fd=target_fd, follow_symlinks=False)
    os.unlink(source, dir_fd=source_fd)


def sync_file_system(fd: int) -> None:
    """Write everything dirty on the file system of `fd` to stable storage. Raises `OSError`."""
    _, sync = _calls()
    if number := sync(fd):
        raise OSError(number, os.strerror(number))


def open_directory(name: str | bytes, *, dir_fd: int | None = None) -> int:
    """Return a descriptor of a directory that is not a symbolic link. Raises `OSError`."""
    return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)


def open_file(name: str | bytes, *, dir_fd: int) -> int:
    """Return a read-only descriptor of a file that is not a symbolic link. Raises `OSError`.

    Nothing waits, whatever the file is; it may be a fifo or a device.
    """
    return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=dir_fd)


def read_link(name: str, *, dir_fd: int) -> str | None:
    """Return a symbolic link's target; None when there is none, or it is something else."""
    try:
        return os.readlink(name, dir_fd=dir_fd)
    except OSError:
        return None


def names_in(name: str, *, dir_fd: int) -> list[str]:
    """Return the names in a directory that is not a symbolic link, sorted. Raises `OSError`."""
    fd = open_directory(name, dir_fd=dir_fd)
    try:
        return sorted(os.listdir(fd))  # noqa: PTH208 (a descriptor has no path)
    finally:
        os.close(fd)


def write_all(fd: int, data: bytes | bytearray | memoryview) -> None:
    """Write all of `data`, whatever the kernel takes at a time. Raises `OSError`."""
    written = os.write(fd, data)
    if written == len(data):
        return
    view = memoryview(data)[written:]
    while view:
        view = view[os.write(fd, view) :]


def write_file(
    dir_fd: int, name: str, data: bytes | bytearray | memoryview, *, mode: int = 0o444, sync: bool = False
) -> None:
    """Write a new file of exactly `mode`, whatever the umask. Raises `OSError` (EEXIST when it is there)."""
    with new_file(dir_fd, name, mode=mode, sync=sync) as fd:
        write_all(fd, data)


@contextlib.contextmanager
def new_file(dir_fd: int, name: str, *, mode: int = 0o444, sync: bool = False) -> Iterator[int]:
    """Make a file to be written through the descriptor that the block gets; see `write_file`."""
    fd = os.open(
        name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=dir_fd
    )
    try:
        yield fd
        os.fchmod(fd, mode)
        if sync:
            os.fsync(fd)
    finally:
        os.close(fd)


def read_file(dir_fd: int, name: str, *, limit: int) -> bytes:
    """Return a regular file's content.

    Raises `OSError`: EINVAL for what is no regular file, EFBIG for more than `limit` bytes.
    """
    with _limited(dir_fd, name, limit) as fd, open(fd, "rb", closefd=False) as file:
        return file.read()


def read_file_to_change(dir_fd: int, name: str, *, limit: int) -> bytearray:
    """Do what `read_file` does, for who changes the content in place."""
    with _limited(dir_fd, name, limit) as fd:
        return read_to_change(fd)


def read_to_change(fd: int) -> bytearray:
    """Return a file's content, of as many bytes as its size says now. Raises `OSError`."""
    data = bytearray(os.fstat(fd).st_size)
    read = 0
    with memoryview(data) as view:
        while read < len(view) and (got := os.preadv(fd, [view[read:]], read)):
            read += got
    del data[read:]
    return data


@contextlib.contextmanager
def _limited(dir_fd: int, name: str, limit: int) -> Iterator[int]:
    """Yield a descriptor of a regular file of at most `limit` bytes. Raises `OSError`."""
    fd = open_file(name, dir_fd=dir_fd)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", name)
        # Python makes room for as many bytes as are asked for: never ask for the limit itself.
        if status.st_size > limit:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), name)
        yield fd
    finally:
        os.close(fd)


def remove_if_empty(dir_fd: int, name: str) -> bool:
    """Remove a directory in which nothing is left; say whether it is gone. Raises `OSError`."""
    try:
        os.rmdir(name, dir_fd=dir_fd)
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno in {errno.ENOTEMPTY, errno.EEXIST}:
            return False
        raise
    return True


def remove_tree(dir_fd: int, name: str) -> None:
    """Remove `name` and all that is below it; symbolic links are removed, never followed.

    What vanishes meanwhile is no error, since several processes may clean up at once. Raises `OSError`.
    """
    try:
        os.unlink(name, dir_fd=dir_fd)
    except FileNotFoundError:
        return
    except (IsADirectoryError, PermissionError):
        pass
    else:
        return
    try:
        fd = open_directory(name, dir_fd=dir_fd)
    except FileNotFoundError:
        return
    try:
        for child in names_in(".", dir_fd=fd):
            remove_tree(fd, child)
    finally:
        os.close(fd)
    try:
        os.rmdir(name, dir_fd=dir_fd)
    except FileNotFoundError:
        return
