"""Which objects an image needs: a list beside the image, so that gc and info need not read the image.

Format: the 8 bytes `CFSOBJS1`, the BLAKE3 digest of the rest (32 bytes), then the raw digests of the objects,
ascending, no digest twice.
"""

from __future__ import annotations

from collections.abc import Iterable

from blake3 import blake3

from cfsbuild.errors import InputError
from cfsbuild.fsverity.algorithm import Algorithm

MAGIC = b"CFSOBJS1"
_HEAD = len(MAGIC) + 32


def encode_contents(digests: Iterable[bytes]) -> bytes:
    """Return the list of the objects that `digests` names, in any order and with repetitions."""
    body = b"".join(sorted(set(digests)))
    return MAGIC + blake3(body).digest() + body


def decode_contents(data: bytes, algorithm: Algorithm) -> tuple[bytes, ...]:
    """Return the raw digests that `data` lists; raises `InputError` when it is damaged."""
    size = algorithm.digest_size
    body = data[_HEAD:]
    if data[: len(MAGIC)] != MAGIC or len(body) % size or blake3(body).digest() != data[len(MAGIC) : _HEAD]:
        raise InputError("list of an image's objects is damaged", reason="damaged")
    return tuple(body[start : start + size] for start in range(0, len(body), size))
