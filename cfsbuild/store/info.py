"""What is in a store, and how much of it images share."""

from __future__ import annotations

from collections import Counter

import msgspec

from cfsbuild.errors import CfsError
from cfsbuild.fsverity import digest as fsverity
from cfsbuild.store import documents, layout, leases
from cfsbuild.store.contents import image_objects
from cfsbuild.store.objects import trash_batches
from cfsbuild.store.store import Store


class Sharing(msgspec.Struct, frozen=True):
    """How many objects, with how many bytes of content, are needed by exactly `images` images."""

    images: int
    objects: int
    bytes: int


class StoreInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Facts about a store. Sizes are in bytes.

    `verity` says whether the kernel enforces every object's content; if not, `verity_reason` says why.
    `implementation` is what computes digests on this machine. `logical_bytes` is what the images would take
    without sharing (the objects of each image, and the image itself), `stored_bytes` the content of all
    objects, and `disk_bytes` what they occupy. `unreadable` are images whose objects are not counted.
    """

    version: int = 1
    path: str
    algorithm: str
    writable: bool
    read_only_reason: str
    verity: bool
    verity_reason: str
    implementation: str
    objects: int
    images: int
    references: int
    results: int
    layers: int
    trees: int
    leases: int
    logical_bytes: int
    stored_bytes: int
    disk_bytes: int
    sharing: tuple[Sharing, ...]
    trash_objects: int
    unreadable: tuple[str, ...] = ()


def store_info(store: Store) -> StoreInfo:
    """Return facts about `store`. Raises `StoreError` when it cannot be read."""
    with store.errors("read"):
        sizes, disk = _sizes(store)
        users, unreadable = _users(store)
        return StoreInfo(
            path=str(store.path),
            algorithm=store.algorithm.value,
            writable=not store.read_only,
            read_only_reason=store.read_only_reason,
            verity=store.requires_verity,
            verity_reason=store.no_verity_reason,
            implementation=fsverity.implementation(),
            objects=len(sizes),
            images=len(store.images()),
            references=len(store.refs()),
            results=len(documents.list_documents(store.fd, layout.NODES)),
            layers=len(documents.list_documents(store.fd, layout.LAYERS)),
            trees=len(documents.list_documents(store.fd, layout.TREES)),
            leases=len(leases.living(store.fd, store.algorithm, remove_dead=False)),
            logical_bytes=sum(sizes.get(digest, 0) * count for digest, count in users.items()),
            stored_bytes=sum(sizes.values()),
            disk_bytes=disk,
            sharing=_sharing(sizes, users),
            trash_objects=sum(
                len(documents.list_documents(store.fd, f"{layout.TRASH}/{batch}"))
                for batch in trash_batches(store.fd)
            ),
            unreadable=unreadable,
        )


def _sizes(store: Store) -> tuple[dict[bytes, int], int]:
    """Return the size of every object, and what all together occupy."""
    sizes = {}
    disk = 0
    for digest in store.objects.all():
        status = store.objects.status(digest)
        if status is not None:
            sizes[digest] = status.st_size
            disk += status.st_blocks * 512
    return sizes, disk


def _users(store: Store) -> tuple[Counter[bytes], tuple[str, ...]]:
    """Return by how many images each object is needed, and which images cannot be read."""
    users: Counter[bytes] = Counter()
    unreadable = []
    for digest in store.images():
        try:
            users.update({digest, *image_objects(store, digest)})
        except CfsError:
            # Missing or damaged: fsck says more.
            unreadable.append(digest.hex())
    return users, tuple(unreadable)


def _sharing(sizes: dict[bytes, int], users: Counter[bytes]) -> tuple[Sharing, ...]:
    objects: Counter[int] = Counter()
    content: Counter[int] = Counter()
    for digest, size in sizes.items():
        objects[users[digest]] += 1
        content[users[digest]] += size
    return tuple(Sharing(count, objects[count], content[count]) for count in sorted(objects))
