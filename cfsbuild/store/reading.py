"""Which objects an image needs: from the list beside it, or from the image itself."""

from __future__ import annotations

import os
from collections.abc import Iterable

from cfsbuild.fsverity.algorithm import Algorithm
from cfsbuild.store import documents, layout
from cfsbuild.store.store import Store


def image_objects(store: Store, digest: bytes) -> Iterable[bytes]:
    """Return the digests of the objects that an image of the store needs, each once.

    Raises `InputError` when it is no image, `VerificationError` when it is damaged, `StoreError` when it is
    not there.
    """
    listed = listed_objects(store, digest)
    return objects_in(store.read_object(digest), store.algorithm) if listed is None else listed


def listed_objects(store: Store, digest: bytes) -> tuple[bytes, ...] | None:
    """Return what the list beside an image says; None without one that is whole and of a trusted user."""
    try:
        status = os.stat(f"{layout.CONTENTS}/{digest.hex()}", dir_fd=store.fd, follow_symlinks=False)
    except OSError:
        return None
    if status.st_uid not in store.owners:
        return None
    return documents.read_contents(store.fd, digest, store.algorithm)


def objects_in(image: bytes, algorithm: Algorithm) -> set[bytes]:
    """Return the digests of the objects that the image's bytes name. Raises `InputError` when it is no image.

    A file without a digest (an image made without verity) names its object by its path, `xx/rest`.
    """
    from cfsbuild.erofs.reader import read_image  # noqa: PLC0415 (only for images of other programs)

    found: set[bytes] = set()
    for entry in read_image(image).entries():
        if entry.digest is not None:
            found.add(entry.digest)
        elif entry.payload is not None and entry.mode & 0o170000 == 0o100000:
            digest = layout.parse_digest(os.fsdecode(entry.payload).lstrip("/").replace("/", ""), algorithm)
            if digest is not None:
                found.add(digest)
    return found
