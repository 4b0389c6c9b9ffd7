"""Writing an output file so that nobody ever sees half of it."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from cfsbuild.errors import StoreError


def replace_file(name: str | Path, chunks: Iterable[bytes], *, mode: int = 0o644) -> None:
    """Make `chunks` the content of the file `name`: all of them, or nothing changes. Raises `OSError`.

    A new file gets what the umask leaves of `mode`, an existing one keeps its own. What is no regular file (a
    device, a pipe) is written to as it is.
    """
    try:
        path = Path(name).resolve()  # a symbolic link stays one: what it points to is replaced
    except RuntimeError as error:  # what Python before 3.13 says of links in a circle
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(name)) from error
    kept = None
    try:
        status = path.stat()
    except FileNotFoundError:
        pass
    else:
        if not stat.S_ISREG(status.st_mode):
            with path.open("wb", buffering=0) as file:
                _write_all(file.fileno(), chunks)
            return
        kept = stat.S_IMODE(status.st_mode)
    temporary = path.with_name(f".{path.name[:200]}.{os.urandom(6).hex()}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        try:
            _write_all(fd, chunks)
            if kept is not None:
                os.fchmod(fd, kept)
        finally:
            os.close(fd)
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_result(path: Path, data: bytes) -> None:
    """Write a whole file, and the directories that it lies in. Raises `StoreError` (reason `output`)."""
    with _refused(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, [data])


def write_or_print(path: Path | None, data: bytes, *, mode: int = 0o644) -> None:
    """Write a whole file, or to standard output for None. Raises `StoreError` (reason `output`)."""
    if path is None:
        from cfsbuild.cli.output import write_bytes  # noqa: PLC0415 (the C tools' front ends need no click)

        write_bytes([data])
        return
    with _refused(path):
        replace_file(path, [data], mode=mode)


@contextlib.contextmanager
def _refused(path: Path) -> Iterator[None]:
    """Say which file it was that the operating system refused to write."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"{path} cannot be written: {os.strerror(error.errno or 0)}", reason="output"
        ) from error


def _write_all(fd: int, chunks: Iterable[bytes]) -> None:
    for chunk in chunks:
        view = memoryview(chunk)
        while view:
            view = view[os.write(fd, view) :]
