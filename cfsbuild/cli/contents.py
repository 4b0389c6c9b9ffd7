"""Contents of an image's files: inline bytes, or objects that are what their digest says."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from cfsbuild.cli.images import Image
from cfsbuild.cli.lookup import Entries
from cfsbuild.cli.settings import Settings
from cfsbuild.errors import InputError, StoreError, VerificationError
from cfsbuild.fsverity.algorithm import algorithm_of_digest
from cfsbuild.tree import paths
from cfsbuild.tree.dump import DumpEntry

_CHUNK = 1 << 20


def object_directories(settings: Settings, extra: Sequence[Path] = ()) -> tuple[Path, ...]:
    """Return where to look for objects: `extra` first, then the store, if there is one."""
    store = settings.store_path / "objects"
    return (*extra, store) if store.is_dir() else tuple(extra)


def read_content(
    settings: Settings, image: Image, entry: DumpEntry, extra: Sequence[Path] = ()
) -> Iterator[bytes]:
    """Yield the content of a regular file.

    An object is verified before its first byte is given. Raises `StoreError` if it is nowhere,
    `VerificationError` if it is not what its digest says, `InputError` if the image gives no digest.
    """
    if entry.content is not None or entry.size == 0:
        yield entry.content or b""
        return
    if entry.digest is None:
        raise InputError(
            f"{image.name} gives no digest for {paths.show(entry.path)}, only the backing path "
            f"{paths.show(entry.payload or b'')}",
            details="without a digest nobody can say whether what lies there is the right content",
            reason="no-digest",
        )
    fd = open_object(object_directories(settings, extra), entry)
    try:
        _check(fd, entry)
        os.lseek(fd, 0, os.SEEK_SET)
        while chunk := os.read(fd, _CHUNK):
            yield chunk
    finally:
        os.close(fd)


def object_name(digest: bytes) -> str:
    """Return the path of an object below its directory: two hex digits, a slash, the rest."""
    text = digest.hex()
    return f"{text[:2]}/{text[2:]}"


def open_object(directories: Sequence[Path], entry: DumpEntry) -> int:
    """Return a descriptor of the object of `entry`. Raises `StoreError` if it is in none of `directories`."""
    name = object_name(entry.digest or b"")
    for directory in directories:
        try:
            fd = os.open(directory / name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            continue
        if stat.S_ISREG(os.fstat(fd).st_mode):
            return fd
        os.close(fd)
    raise StoreError(
        f"the content of {paths.show(entry.path)} is missing",
        details="\n".join((f"object {name} is not in", *(f"  {directory}" for directory in directories)))
        if directories
        else f"object {name}: there is no store to look in",
        resolution="name the store with --store, or build or import the image again",
        reason="object-missing",
    )


def _check(fd: int, entry: DumpEntry) -> None:
    from cfsbuild.fsverity.digest import digest_fd  # noqa: PLC0415 (listings read no contents)

    digest = entry.digest or b""
    found, size = digest_fd(fd, algorithm_of_digest(digest))
    if found != digest:
        raise VerificationError(
            f"the content of {paths.show(entry.path)} is damaged",
            details=f"expected {digest.hex()}\nfound    {found.hex()} ({size} bytes)",
            resolution="`cfsbuild store fsck --repair` replaces damaged objects from what it can find",
            reason="object-damaged",
        )


def first_of_each_object(entries: Entries) -> dict[bytes, DumpEntry]:
    """Return, by digest, the first file that needs each object. Raises `InputError` if one has no digest."""
    found: dict[bytes, DumpEntry] = {}
    for entry in entries.values():
        if stat.S_ISREG(entry.mode) and entry.content is None and entry.size:
            if entry.digest is None:
                raise InputError(
                    f"the image gives no digest for {paths.show(entry.path)}",
                    details="its content cannot be found by digest, nor checked",
                    reason="no-digest",
                )
            found.setdefault(entry.digest, entry)
    return found
