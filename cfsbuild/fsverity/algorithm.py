"""The hash algorithms that fs-verity knows."""

from __future__ import annotations

import enum

BLOCK_SIZE = 4096


class Algorithm(enum.Enum):
    """An fs-verity hash algorithm; its value is the name used in recipes and on the command line."""

    SHA256 = "sha256"
    SHA512 = "sha512"

    @property
    def digest_size(self) -> int:
        """Return the digest's length in bytes."""
        return 32 if self is Algorithm.SHA256 else 64

    @property
    def kernel_id(self) -> int:
        """Return FS_VERITY_HASH_ALG_*, also the algorithm byte of an overlay metacopy xattr."""
        return 1 if self is Algorithm.SHA256 else 2

    @property
    def repository_name(self) -> str:
        """Return the composefs-rs notation: fs-verity, hash, log2 of the block size."""
        return f"fsverity-{self.value}-12"


def algorithm_of_digest(digest: bytes) -> Algorithm:
    """Return the algorithm that gives digests as long as `digest`."""
    return Algorithm.SHA256 if len(digest) == Algorithm.SHA256.digest_size else Algorithm.SHA512
