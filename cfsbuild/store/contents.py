"""Which objects an image needs, as a list beside it says: so gc and info need not read the image itself.

Format of the list: the 8 bytes `CFSOBJS1`, the BLAKE3 digest of the rest (32 bytes), then the raw digests of
the objects, ascending, no digest twice.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from blake3 import blake3

from cfsbuild.errors import InputError
from cfsbuild.fsverity.algorithm import Algorithm
from cfsbuild.store import documents, layout

if TYPE_CHECKING:
    from cfsbuild.store.store import Store

MAGIC = b"CFSOBJS1"
_HEAD = len(MAGIC) + 32


def encode_contents(digests: Iterable[bytes]) -> bytes:
    """Return the list of the objects that `digests` names, in any order and with repetitions."""
    body = b"".join(sorted(set(digests)))
    return MAGIC + blake3(body).digest() + body


def patch_contents(
    data: bytes, algorithm: Algorithm, added: Collection[bytes], removed: Collection[bytes]
) -> bytes:
    """Return the list `data` with `added` and without `removed`; raises `InputError` when it is damaged."""
    size = algorithm.digest_size
    body = bytearray(_body(data, algorithm))
    for digest, wanted in (*((one, False) for one in removed), *((one, True) for one in added)):
        place = size * bisect_left(
            range(len(body) // size), digest, key=lambda index: bytes(body[index * size : (index + 1) * size])
        )
        if (body[place : place + size] == digest) is not wanted:
            body[place : place + (0 if wanted else size)] = digest if wanted else b""
    return MAGIC + blake3(body).digest() + body


def decode_contents(data: bytes, algorithm: Algorithm) -> tuple[bytes, ...]:
    """Return the raw digests that `data` lists; raises `InputError` when it is damaged."""
    size = algorithm.digest_size
    body = _body(data, algorithm)
    return tuple(body[start : start + size] for start in range(0, len(body), size))


def _body(data: bytes, algorithm: Algorithm) -> bytes:
    size = algorithm.digest_size
    body = data[_HEAD:]
    if data[: len(MAGIC)] != MAGIC or len(body) % size or blake3(body).digest() != data[len(MAGIC) : _HEAD]:
        raise InputError("list of an image's objects is damaged", reason="damaged")
    return body


def image_objects(store: Store, digest: bytes) -> Iterable[bytes]:
    """Return the digests of the objects that an image of the store needs, each once.

    Raises `InputError` when it is no image, `VerificationError` when it is damaged, `StoreError` when it is
    not there.
    """
    listed = _listed_objects(store, digest)
    return objects_in(store.read_object(digest), store.algorithm) if listed is None else listed


def _listed_objects(store: Store, digest: bytes) -> tuple[bytes, ...] | None:
    """Return what the list beside an image says; None without one that is whole and of a trusted user."""
    data = contents_document(store, digest)
    try:
        return None if data is None else decode_contents(data, store.algorithm)
    except InputError:
        return None


def contents_document(store: Store, digest: bytes) -> bytes | None:
    """Return the bytes of the list beside an image; None without one of a trusted user."""
    try:
        status = os.stat(f"{layout.CONTENTS}/{digest.hex()}", dir_fd=store.fd, follow_symlinks=False)
    except OSError:
        return None
    if status.st_uid not in store.owners:
        return None
    return documents.read_document(store.fd, layout.CONTENTS, digest.hex())


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
