"""Files in the output directory: written whole or not at all, never hard links into the store."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple

from cfsbuild.begun import at_once
from cfsbuild.build.commit import Commit
from cfsbuild.build.keys import digest_of
from cfsbuild.build.state import OutRecord
from cfsbuild.errors import StoreError, UsageError
from cfsbuild.store.cloning import clone_or_copy
from cfsbuild.store.replacing import replacing
from cfsbuild.store.syscalls import read_to_change
from cfsbuild.targets.kind import OutFile

_WORTH_A_THREAD = 1 << 20
"""Bytes to write that take about as long as the disk takes to commit."""

_EXISTING_BYTES = 1 << 24

OpenImage = Callable[[bytes], int]
"""Return a read-only descriptor of the image with a raw digest."""


def write_outputs(
    directory: Path, files: Sequence[OutFile], open_image: OpenImage, commit: Commit
) -> tuple[OutRecord, ...]:
    """Put `files` into `directory`, each atomically; return what they look like then.

    They are written while the images are committed to the store, or before, and appear when that is done, in
    any order.
    Raises what the commit does, and `StoreError` for what the file system refuses.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as unfinished:
            new = [_begin(directory, file, open_image, unfinished) for file in files]
            if sum(len(file.data) for file in files) >= _WORTH_A_THREAD:
                commit.begin()
                digests = at_once([one.write for one in new], name="output")
                commit.wait()
                appear = [partial(one.appear, digest) for one, digest in zip(new, digests, strict=True)]
                return tuple(at_once(appear, name="output"))
            digests = [one.write() for one in new]
            commit.wait()
            return tuple(one.appear(digest) for one, digest in zip(new, digests, strict=True))
    except OSError as error:
        raise StoreError(
            f"cannot write to the output directory {directory}",
            details=str(error),
            resolution="choose another with --output DIR",
            reason=errno.errorcode.get(error.errno or 0, "output"),
        ) from error


class _New(NamedTuple):
    """A file that has not got its name yet: it gets it when `until` ends."""

    directory: Path
    file: OutFile
    target: BinaryIO
    image: int | None
    until: contextlib.ExitStack

    def write(self) -> str:
        """Write the content; return its digest, for an image none."""
        digest = ""
        if self.image is None:
            self.target.write(self.file.data)
            digest = digest_of(self.file.data)
        else:
            # Numbers of its own: who is interrupted closes the others, and whatever is opened next gets them.
            source, target = os.dup(self.image), os.dup(self.target.fileno())
            try:
                clone_or_copy(source, target)
            finally:
                os.close(source)
                os.close(target)
        self.target.flush()
        return digest

    def appear(self, digest: str) -> OutRecord:
        self.until.close()
        return _record(self.file.name, (self.directory / self.file.name).stat(), digest)


def _begin(directory: Path, file: OutFile, open_image: OpenImage, unfinished: contextlib.ExitStack) -> _New:
    if "/" in file.name or file.name in {"", ".", ".."}:
        raise UsageError(f"{file.name!r} cannot be the name of an output file")
    until = unfinished.enter_context(contextlib.ExitStack())
    target = until.enter_context(replacing(directory / file.name))
    image = None
    if file.image:
        image = open_image(bytes.fromhex(file.image))
        until.callback(os.close, image)
    return _New(directory, file, target, image, until)


def _record(name: str, status: os.stat_result, digest: str) -> OutRecord:
    return OutRecord(name, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, digest)


def seems_whole(directory: Path, record: OutRecord) -> bool:
    """Say whether a file of the right size is where one was written to `directory`."""
    try:
        return os.lstat(directory / record.name).st_size == record.size
    except OSError:
        return False


def read_back(directory: Path, record: OutRecord) -> bytearray | None:
    """Return the content of a file that was written to `directory`; None if it is not what was written."""
    try:
        with (directory / record.name).open("rb") as file:
            data = read_to_change(file.fileno())
    except OSError:
        return None
    return data if record.digest and digest_of(data) == record.digest else None


def existing(directory: Path, name: str) -> bytes | None:
    """Return the content of a file in `directory`; None if there is no regular file of a sensible size."""
    try:
        fd = os.open(directory / name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError:
        return None
    with open(fd, "rb") as file:  # noqa: PTH123 (a descriptor)
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _EXISTING_BYTES:
            return None
        return file.read()


def altered(directory: Path, records: Iterable[OutRecord]) -> list[str]:
    """Return the names of those files that are no longer what was written to `directory`."""
    found = []
    for record in records:
        try:
            status = os.lstat(directory / record.name)
        except (FileNotFoundError, NotADirectoryError):
            found.append(record.name)
            continue
        if _record(record.name, status, record.digest) != record:
            found.append(record.name)
    return found
