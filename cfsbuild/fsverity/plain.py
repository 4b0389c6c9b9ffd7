"""The hashes that fs-verity is made of, by hashlib: the path that needs no compiler."""

from __future__ import annotations

from cfsbuild.fsverity.algorithm import BLOCK_SIZE, Algorithm


def hash_message(data: bytes, algorithm: Algorithm) -> bytes:
    """Return the plain hash of `data`."""
    import hashlib  # noqa: PLC0415 (loads OpenSSL, which most commands never need)

    return (hashlib.sha256 if algorithm is Algorithm.SHA256 else hashlib.sha512)(data).digest()


def hash_blocks(data: bytes | bytearray | memoryview, algorithm: Algorithm) -> bytes:
    """Return the concatenated hashes of the 4096-byte blocks of `data`."""
    import hashlib  # noqa: PLC0415 (loads OpenSSL, which most commands never need)

    new = hashlib.sha256 if algorithm is Algorithm.SHA256 else hashlib.sha512
    view = memoryview(data)
    return b"".join(
        [new(view[start : start + BLOCK_SIZE]).digest() for start in range(0, len(view), BLOCK_SIZE)]
    )
