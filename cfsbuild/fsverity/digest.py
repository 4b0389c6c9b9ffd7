"""fs-verity digests of bytes, descriptors and files: computed here, equal to what the kernel measures.

Two implementations give the same digests: the native kernels, when the extension module was built, and
hashlib. The environment variable CFSBUILD_NATIVE=0 takes the second; CFSBUILD_SHA256_KERNEL names one native
kernel.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from cfsbuild.errors import UsageError
from cfsbuild.fsverity import merkle, plain
from cfsbuild.fsverity.algorithm import Algorithm
from cfsbuild.native import extension

_READ = 1 << 20


def forced_kernel() -> str:
    """Return the native kernel that the environment asks for; empty lets the processor decide."""
    return os.environ.get("CFSBUILD_SHA256_KERNEL", "")


def kernels() -> tuple[str, ...]:
    """Return the native kernels that this processor can run, fastest first; empty without the module."""
    native = extension("cfsbuild.fsverity._verity")
    return tuple(native.kernels()) if native else ()


def implementation() -> str:
    """Return what computes SHA-256 digests: the kernel's name, or "hashlib"."""
    available = kernels()
    if not available:
        return "hashlib"
    wanted = forced_kernel()
    if wanted and wanted not in available:
        raise UsageError(
            f"CFSBUILD_SHA256_KERNEL names {wanted!r}, which cannot run here",
            resolution=f"use one of: {', '.join(available)}",
        )
    return wanted or available[0]


def hash_blocks(data: bytes | bytearray | memoryview, algorithm: Algorithm) -> bytes:
    """Return the concatenated hashes of the blocks of `data`, whose length is a multiple of 4096."""
    native = extension("cfsbuild.fsverity._verity")
    if native is None:
        return plain.hash_blocks(data, algorithm)
    result: bytes = native.hash_blocks(data, algorithm.kernel_id, forced_kernel())
    return result


class Hasher(merkle.Stream):
    """The digest of bytes that arrive in pieces: `update` any number of times, then `digest` once."""

    def __init__(self, algorithm: Algorithm) -> None:
        super().__init__(algorithm, hash_blocks)


def digest_bytes(data: bytes | bytearray | memoryview, algorithm: Algorithm) -> bytes:
    """Return the raw fs-verity digest of a file that holds `data`."""
    hasher = Hasher(algorithm)
    hasher.update(data)
    return hasher.digest()


def digest_fd(fd: int, algorithm: Algorithm) -> tuple[bytes, int]:
    """Return the raw digest and the size of everything from `fd`'s position to its end. Raises `OSError`."""
    hasher = Hasher(algorithm)
    while data := os.read(fd, _READ):
        hasher.update(data)
    return hasher.digest(), hasher.size


def digest_files(
    directory_fd: int, names: Sequence[bytes], algorithm: Algorithm, *, threads: int = 1
) -> list[tuple[bytes, int]]:
    """Return (raw digest, size in bytes) of each regular file that `names` gives relative to `directory_fd`.

    Symbolic links are not followed in the last component. `threads` may exceed the number of processors:
    from a cold page cache about 32 are fastest. Raises `OSError`, with the name of a file that failed; a name
    that is not a regular file fails with EINVAL. A file that grows meanwhile counts up to its first size.
    """
    native = extension("cfsbuild.fsverity._verity")
    if native is not None:
        result: list[tuple[bytes, int]] = native.digest_files(
            directory_fd, names, algorithm.kernel_id, threads, forced_kernel()
        )
        return result
    from cfsbuild.fsverity import pool  # noqa: PLC0415 (only without the extension module)

    processes = min(threads, os.cpu_count() or 1)
    found = pool.digest_files(directory_fd, names, algorithm, processes=processes)
    return [(digest, size) for digest, size, _ in found]
