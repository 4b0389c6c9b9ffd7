"""How fast each kernel hashes blocks of 4096 bytes in the second-level cache, beside hashlib."""

from __future__ import annotations

import os
import time

from cfsbuild.fsverity import digest
from cfsbuild.fsverity.algorithm import Algorithm

ROUNDS = 30


def best(data: bytes, algorithm: Algorithm) -> float:
    """Return the least processor seconds of hashing `data`."""
    times = []
    for _ in range(ROUNDS):
        begin = time.thread_time()
        digest.hash_blocks(data, algorithm)
        times.append(time.thread_time() - begin)
    return min(times)


def main() -> None:
    """Measure every kernel that runs here."""
    data = os.urandom(1 << 20)
    for algorithm in Algorithm:
        for kernel in ("hashlib", *digest.kernels()):
            os.environ["CFSBUILD_NATIVE"] = "0" if kernel == "hashlib" else "1"
            os.environ["CFSBUILD_SHA256_KERNEL"] = "" if kernel == "hashlib" else kernel
            print(f"{algorithm.value}  {kernel:<12} {len(data) / best(data, algorithm) / 1e6:6.0f} MB/s")
        os.environ["CFSBUILD_NATIVE"] = "1"


if __name__ == "__main__":
    main()
