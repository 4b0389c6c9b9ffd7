"""A disk for a machine, made without root: ext4 that can have fs-verity, with a part of a store.

It holds what a composefs repository does (`meta.json`, `objects`, `images`) below `/composefs`, for one
image.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from cfsbuild.deploy.host_programs import find_program
from cfsbuild.errors import StoreError
from cfsbuild.store.cloning import clone_or_copy
from cfsbuild.store.contents import image_objects
from cfsbuild.store.layout import object_path
from cfsbuild.store.store import Store

REPOSITORY = "composefs"
OBJECTS = f"{REPOSITORY}/objects"

MKFS = "mkfs.ext4"

BLOCK = 4096
_SPARE_BYTES = 128 << 20
_SPARE_INODES = 4096
_BYTES_AN_INODE = 256
_VERITY_BLOCKS = 2
"""Blocks that a small file's fs-verity takes: its descriptor, and one of hashes."""
_VERITY_RATIO = 100
"""Merkle trees take a 127th of a large file (SHA-256, blocks of 4096)."""


def make_state_disk(
    path: Path,
    store: Store,
    image: bytes,
    *,
    name: str,
    files: Mapping[str, bytes] | None = None,
) -> None:
    """Write a disk with the image of raw digest `image`, called `name`, and all its objects to `path`.

    `files` are others at its root, by name. Raises `StoreError`; then there
    is nothing at `path`.
    """
    digests = [image, *image_objects(store, image)]
    with tempfile.TemporaryDirectory(prefix="cfsbuild-disk-") as scratch:
        root = Path(scratch, "root")
        sizes = [_copy_object(store, digest, root) for digest in digests]
        _copy_references(store, image, name, root)
        for file, data in (files or {}).items():
            (root / file).write_bytes(data)
        unfinished = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            _make_file_system(unfinished, root, sizes)
            unfinished.rename(path)
        finally:
            unfinished.unlink(missing_ok=True)


def _copy_object(store: Store, digest: bytes, root: Path) -> int:
    """Copy an object to its place below `root`; return its size."""
    target = root / REPOSITORY / object_path(digest)
    target.parent.mkdir(parents=True, exist_ok=True)
    source = store.open_object(digest)
    try:
        with target.open("xb") as file:
            clone_or_copy(source, file.fileno())
            return os.fstat(file.fileno()).st_size
    finally:
        os.close(source)


def _copy_references(store: Store, image: bytes, name: str, root: Path) -> None:
    repository = root / REPOSITORY
    (repository / "images/refs").mkdir(parents=True)
    (repository / f"images/{image.hex()}").symlink_to(f"../{object_path(image)}")
    reference = repository / "images/refs" / name
    reference.symlink_to(f"../{image.hex()}")
    shutil.copyfile(store.path / "meta.json", repository / "meta.json")


def disk_bytes(sizes: Iterable[int]) -> tuple[int, int]:
    """Return how large a disk for files of these sizes is, in bytes, and how many inodes it has."""
    listed = list(sizes)
    blocks = sum(-(-size // BLOCK) + _VERITY_BLOCKS + -(-size // (BLOCK * _VERITY_RATIO)) for size in listed)
    inodes = len(listed) + _SPARE_INODES
    total = blocks * BLOCK + inodes * _BYTES_AN_INODE + _SPARE_BYTES
    return -(-total // (1 << 20)) * (1 << 20), inodes


def _make_file_system(path: Path, root: Path, sizes: list[int]) -> None:
    size, inodes = disk_bytes(sizes)
    with path.open("xb") as file:
        file.truncate(size)
    options = ["-q", "-F", "-b", str(BLOCK), "-O", "verity", "-m", "0", "-N", str(inodes)]
    done = subprocess.run(
        [
            find_program(MKFS) or MKFS,
            *options,
            "-L",
            "state",
            "-E",
            "root_owner=0:0",
            "-d",
            str(root),
            str(path),
        ],
        check=False,
        capture_output=True,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode:
        raise StoreError(
            "mkfs.ext4 cannot make the machine's disk",
            details=done.stderr.decode(errors="replace").strip()[-2000:],
            reason="mkfs",
        )
