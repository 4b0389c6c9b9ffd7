"""A sink for file contents that keeps nothing: what a build needs when only the digest is asked for."""

from __future__ import annotations

from cfsbuild.fsverity import digest
from cfsbuild.fsverity.algorithm import Algorithm


class HashOnly:
    """Computes digests as a store's transaction does, and forgets the contents."""

    def __init__(self, algorithm: Algorithm) -> None:
        self.algorithm = algorithm

    def add_bytes(self, data: bytes, /) -> bytes:
        """Return the raw digest of `data`."""
        return digest.digest_bytes(data, self.algorithm)

    def add_fd(self, fd: int, /) -> tuple[bytes, int]:
        """Return (raw digest, size) of everything from `fd`'s position to its end. Raises `OSError`."""
        return digest.digest_fd(fd, self.algorithm)
