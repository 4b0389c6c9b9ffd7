"""Giving staged files their names in the store, in the order that survives a power cut."""

from __future__ import annotations

import contextlib
import os
import stat

from cfsbuild.errors import StoreError
from cfsbuild.store import layout, syscalls
from cfsbuild.store.durability import Durability, sync_directories, sync_files
from cfsbuild.store.staging import Staging


class Pending:
    """What a transaction has staged and not yet published.

    `objects` are complete files; those also in `replace` take the place of a damaged object. `documents` maps
    (directory, name) to the staged file. `images` get a link in `images/`; `refs` maps names to images.
    """

    def __init__(self) -> None:
        self.objects: set[bytes] = set()
        self.replace: set[bytes] = set()
        self.documents: dict[tuple[str, str], str] = {}
        self.images: set[bytes] = set()
        self.refs: dict[str, bytes] = {}


def publish(
    store_fd: int, objects_fd: int, staging: Staging, pending: Pending, durability: Durability
) -> None:
    """Publish everything in `pending`; doing it again after a failure goes on where it stopped.

    Raises `OSError`.
    """
    if pending.objects or pending.documents:
        sync_files(store_fd, durability)
    touched = _publish_objects(objects_fd, staging, pending)
    touched |= _publish_documents(store_fd, staging, pending, first=True)
    touched |= _publish_images(store_fd, pending)
    sync_directories(store_fd, touched, durability)
    touched = _publish_documents(store_fd, staging, pending, first=False)
    for name, digest in sorted(pending.refs.items()):
        touched |= set_ref(store_fd, staging, name, digest)
    sync_directories(store_fd, touched, durability)


def _publish_objects(objects_fd: int, staging: Staging, pending: Pending) -> set[str]:
    """Move the objects; return the touched directories."""
    touched = set()
    shards: dict[str, list[bytes]] = {}
    for digest in sorted(pending.objects):
        shards.setdefault(digest.hex()[:2], []).append(digest)
    for shard, digests in shards.items():
        if pending.replace.isdisjoint(digests) and _move_shard(objects_fd, staging, shard, len(digests)):
            touched.add(layout.OBJECTS)
            continue
        with contextlib.suppress(FileExistsError):
            os.mkdir(shard, dir_fd=objects_fd)
            touched.add(layout.OBJECTS)
        for digest in digests:
            _move_object(objects_fd, staging, digest, replace=digest in pending.replace)
        touched.add(f"{layout.OBJECTS}/{shard}")
    return touched


def _move_shard(objects_fd: int, staging: Staging, shard: str, count: int) -> bool:
    """Move a whole shard that the store does not have yet; False when it must go object by object."""
    try:
        if staging.shard_entries(shard) != count:
            return False
        syscalls.rename_new(staging.fd, shard, objects_fd, shard)
    except (FileExistsError, FileNotFoundError, PermissionError):
        # It is there already, was moved before a failure, or can only be moved by replacing.
        return False
    staging.forget_shard(shard)
    return True


def _move_object(objects_fd: int, staging: Staging, digest: bytes, *, replace: bool) -> None:
    name = layout.object_name(digest)
    try:
        if replace:
            os.rename(name, name, src_dir_fd=staging.fd, dst_dir_fd=objects_fd)
        else:
            syscalls.rename_new(staging.fd, name, objects_fd, name)
    except FileExistsError:
        # Somebody else was faster with the same content: ours is dropped, unless theirs cannot be right.
        if not _same_size(objects_fd, staging.fd, name):
            os.rename(name, name, src_dir_fd=staging.fd, dst_dir_fd=objects_fd)
    except FileNotFoundError:
        # Published by an earlier try of this commit.
        if not _is_file(objects_fd, name):
            raise


def _same_size(one_fd: int, other_fd: int, name: str) -> bool:
    one = os.stat(name, dir_fd=one_fd, follow_symlinks=False)
    other = os.stat(name, dir_fd=other_fd, follow_symlinks=False)
    return stat.S_ISREG(one.st_mode) and one.st_size == other.st_size


def _is_file(directory_fd: int, name: str) -> bool:
    try:
        return stat.S_ISREG(os.stat(name, dir_fd=directory_fd, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def _publish_documents(store_fd: int, staging: Staging, pending: Pending, *, first: bool) -> set[str]:
    """Move what references depend on (`first`), or all else: layers before the results that name them."""
    touched = set()
    for (directory, name), staged in sorted(pending.documents.items(), key=_document_order):
        if (directory == layout.CONTENTS) is first:
            target = f"{directory}/{name}"
            try:
                os.rename(staged, target, src_dir_fd=staging.fd, dst_dir_fd=store_fd)
            except FileNotFoundError:
                if not _is_file(store_fd, target):
                    raise
            touched.add(directory)
    return touched


def _document_order(item: tuple[tuple[str, str], str]) -> tuple[bool, str, str]:
    (directory, name), _ = item
    return directory == layout.NODES, directory, name


def _publish_images(store_fd: int, pending: Pending) -> set[str]:
    """Link the images; return the touched directories."""
    for digest in sorted(pending.images):
        target = layout.image_target(digest)
        name = f"{layout.IMAGES}/{digest.hex()}"
        try:
            os.symlink(target, name, dir_fd=store_fd)
        except FileExistsError:
            if syscalls.read_link(name, dir_fd=store_fd) != target:
                raise StoreError(
                    f"{name} in the store is not the link that it should be",
                    resolution="run cfsbuild store fsck --repair",
                    reason="damaged",
                ) from None
    return {layout.IMAGES} if pending.images else set()


def set_ref(store_fd: int, staging: Staging, name: str, digest: bytes) -> set[str]:
    """Point a reference to an image, atomically; return the touched directories."""
    touched = set()
    parent = layout.REFS
    for component in name.split("/")[:-1]:
        with contextlib.suppress(FileExistsError):
            os.mkdir(f"{parent}/{component}", dir_fd=store_fd)
            touched.add(parent)
        parent = f"{parent}/{component}"
    touched.add(parent)
    temporary = staging.new_name()
    os.symlink(layout.ref_target(name, digest), temporary, dir_fd=staging.fd)
    os.rename(temporary, f"{layout.REFS}/{name}", src_dir_fd=staging.fd, dst_dir_fd=store_fd)
    return touched
