"""The images of a store and the names that stand for them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

import msgspec

from cfsbuild.errors import StoreError
from cfsbuild.fsverity.algorithm import Algorithm
from cfsbuild.store import layout, syscalls
from cfsbuild.store.durability import Durability, sync_directories


class ImageRef(msgspec.Struct, frozen=True, kw_only=True):
    """An image of a store: raw digest, size in bytes, the name that it was found by ("" for a digest)."""

    digest: bytes
    size: int
    name: str = ""

    @property
    def hex(self) -> str:
        """Return the digest as lower-case hex."""
        return self.digest.hex()


def is_image(store_fd: int, digest: bytes) -> bool:
    """Say whether `images/` lists `digest`. Raises `OSError`."""
    try:
        return os.readlink(f"{layout.IMAGES}/{digest.hex()}", dir_fd=store_fd) == layout.image_target(digest)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise StoreError(
            f"images/{digest.hex()} in the store is not a link", details=str(error), reason="damaged"
        ) from error


def list_images(store_fd: int, algorithm: Algorithm) -> list[bytes]:
    """Return the digests that `images/` lists, ascending; strays are passed over. Raises `OSError`."""
    names = syscalls.names_in(layout.IMAGES, dir_fd=store_fd)
    digests = (layout.parse_digest(name, algorithm) for name in names)
    return [digest for digest in digests if digest is not None]


def resolve(store_fd: int, name: str, algorithm: Algorithm) -> bytes | None:
    """Return the raw digest that the reference `name` stands for; None when there is none of that name.

    Raises `UsageError` for a name that is not allowed, `StoreError` for a link that is not a reference, or
    `OSError`.
    """
    layout.check_ref(name)
    target = syscalls.read_link(f"{layout.REFS}/{name}", dir_fd=store_fd)
    if target is None:
        # Nothing, a directory of references, or a stray that fsck reports.
        return None
    digest = layout.parse_digest(target.rpartition("/")[2], algorithm)
    if digest is None or target != layout.ref_target(name, digest):
        raise StoreError(
            f"images/refs/{name} points to {target!r}, which is no image of this store",
            resolution="run cfsbuild store fsck",
            reason="damaged",
        )
    return digest


def list_links(store_fd: int) -> Iterator[tuple[str, str | None]]:
    """Yield (name, target) of everything below `images/refs`, sorted; the target is None for what is no link.

    Raises `OSError`.
    """
    try:
        fd = syscalls.open_directory(layout.REFS, dir_fd=store_fd)
    except FileNotFoundError:
        return
    try:
        yield from _walk(fd, "")
    finally:
        os.close(fd)


def _walk(fd: int, prefix: str) -> Iterator[tuple[str, str | None]]:
    for name in syscalls.names_in(".", dir_fd=fd):
        path = f"{prefix}{name}"
        try:
            mode = os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode
            if stat.S_ISDIR(mode):
                child = syscalls.open_directory(name, dir_fd=fd)
                try:
                    yield from _walk(child, f"{path}/")
                finally:
                    os.close(child)
            else:
                yield path, os.readlink(name, dir_fd=fd) if stat.S_ISLNK(mode) else None
        except FileNotFoundError:
            # Removed by someone else meanwhile.
            continue


def list_refs(store_fd: int, algorithm: Algorithm) -> dict[str, bytes]:
    """Return all references and the raw digests that they stand for; damaged ones are passed over."""
    result = {}
    for name, target in list_links(store_fd):
        digest = layout.parse_digest((target or "").rpartition("/")[2], algorithm)
        if digest is not None and target == layout.ref_target(name, digest):
            result[name] = digest
    return result


def remove_ref(store_fd: int, name: str) -> bool:
    """Remove a reference, and the directories that this empties; False when there is none.

    Raises `OSError`.
    """
    layout.check_ref(name)
    try:
        os.unlink(f"{layout.REFS}/{name}", dir_fd=store_fd)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return False
    parent = name.rpartition("/")[0]
    while parent and syscalls.remove_if_empty(store_fd, f"{layout.REFS}/{parent}"):
        parent = parent.rpartition("/")[0]
    sync_directories(store_fd, {layout.REFS}, Durability.EACH)
    return True
