"""The Merkle tree and descriptor of fs-verity (Linux fsverity.rst: block size 4096, no salt).

How blocks are hashed is a parameter: the same tree is built over hashlib and over the native kernels.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from cfsbuild.fsverity import plain
from cfsbuild.fsverity.algorithm import BLOCK_SIZE, Algorithm

BlockHasher = Callable[[bytes | bytearray | memoryview, Algorithm], bytes]
"""Takes whole 4096-byte blocks; returns their hashes, concatenated."""

_CHUNK = 256 * BLOCK_SIZE
"""How much is hashed at a time: fills every lane and stays in the second-level cache."""

_DESCRIPTOR = struct.Struct("<BBBBIQ64s32s144x")


def pad(data: bytes | bytearray | memoryview) -> bytes:
    """Return `data` with zeros up to a multiple of the block size."""
    return bytes(data) + bytes(-len(data) % BLOCK_SIZE)


def descriptor(algorithm: Algorithm, size: int, root: bytes) -> bytes:
    """Return struct fsverity_descriptor, 256 bytes, for a file of `size` bytes with root hash `root`."""
    return _DESCRIPTOR.pack(1, algorithm.kernel_id, 12, 0, 0, size, root, b"")


class Levels:
    """A Merkle tree that grows from the left and keeps only what is not hashed yet."""

    def __init__(self, algorithm: Algorithm, hash_blocks: BlockHasher) -> None:
        self._algorithm = algorithm
        self._hash_blocks = hash_blocks
        self._levels: list[bytearray] = []

    def push(self, hashes: bytes, level: int = 0) -> None:
        """Append `hashes`, of blocks one level below, to `level`; hash what has become full."""
        if level == len(self._levels):
            self._levels.append(bytearray())
        waiting = self._levels[level]
        waiting += hashes
        # One block always stays behind: a level that ends with a single hash is the root, not a block.
        full = (len(waiting) - 1) // _CHUNK * _CHUNK
        if full > 0:
            done = self._hash_blocks(bytes(waiting[:full]), self._algorithm)
            del waiting[:full]
            self.push(done, level + 1)

    def root(self) -> bytes:
        """Return the root hash; zeros when nothing was pushed."""
        level = 0
        while level < len(self._levels):
            waiting = self._levels[level]
            if level + 1 == len(self._levels) and len(waiting) == self._algorithm.digest_size:
                return bytes(waiting)
            self.push(self._hash_blocks(pad(waiting), self._algorithm), level + 1)
            level += 1
        return bytes(self._algorithm.digest_size)


class Stream:
    """The fs-verity digest of bytes that arrive in pieces of any length."""

    def __init__(self, algorithm: Algorithm, hash_blocks: BlockHasher) -> None:
        self.size = 0
        self._algorithm = algorithm
        self._hash_blocks = hash_blocks
        self._levels = Levels(algorithm, hash_blocks)
        self._pending = bytearray()

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """Append `data`."""
        view = memoryview(data).cast("B")
        self.size += len(view)
        start = 0
        if self._pending:
            start = min(len(view), _CHUNK - len(self._pending))
            self._pending += view[:start]
            if len(self._pending) == _CHUNK:
                self._levels.push(self._hash_blocks(self._pending, self._algorithm))
                self._pending = bytearray()
        while len(view) - start >= _CHUNK:
            self._levels.push(self._hash_blocks(view[start : start + _CHUNK], self._algorithm))
            start += _CHUNK
        self._pending += view[start:]

    def digest(self) -> bytes:
        """Return the raw digest of everything so far. Call it once, at the end."""
        if self._pending:
            self._levels.push(self._hash_blocks(pad(self._pending), self._algorithm))
            self._pending = bytearray()
        return plain.hash_message(
            descriptor(self._algorithm, self.size, self._levels.root()), self._algorithm
        )
