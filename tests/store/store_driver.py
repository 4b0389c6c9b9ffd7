"""A small program that changes a store, to be stopped or disturbed at any of its system calls.

usage: store_driver.py STORE build VERSION | gc | repair SOURCE
Prints the image's digest; exits as the command line would.
"""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

from cfsbuild.erofs.writer import write_image
from cfsbuild.errors import CfsError
from cfsbuild.store.fsck import repair_store
from cfsbuild.store.gc import collect
from cfsbuild.store.results import NodeResult
from cfsbuild.store.store import Store
from cfsbuild.tree.flavour import to_dump
from cfsbuild.tree.inode import Inode
from cfsbuild.tree.layer import Tree, document_digest, make_layer


def contents(version: str) -> dict[bytes, bytes]:
    """Return what the files of the image hold: some the same in every version, one large, one changing."""
    return {
        b"/bin": b"program\n" * 1000,
        b"/copy": b"program\n" * 1000,
        b"/data": b"0123456789abcdef" * 70_000,
        b"/etc": b"option = 1\n" * 50,
        b"/version": version.encode() * 100,
    }


def build(store: Store, version: str) -> bytes:
    """Add an image and all that a build records about it; return its digest."""
    with store.transaction() as transaction:
        inodes = {}
        for path, data in contents(version).items():
            if len(data) > 1 << 20:
                source = os.memfd_create("source")
                os.write(source, data)
                os.lseek(source, 0, os.SEEK_SET)
                digest, _ = transaction.add_fd(source)
                os.close(source)
            else:
                digest = transaction.add_bytes(data)
            inodes[path] = Inode(mode=stat.S_IFREG | 0o644, size=len(data), digest=digest)
        layer = transaction.put_layer(make_layer(inodes))
        key = document_digest(f"key {version}".encode())
        transaction.put_result(
            NodeResult(key=key, node="n", kind="file", kind_version=1, components={"v": version}, layer=layer)
        )
        tree = Tree(entries={b"/": Inode(mode=stat.S_IFDIR | 0o755), **inodes})
        transaction.put_tree(tree)
        data = bytes(write_image(to_dump(tree, epoch=0), format=1))
        image = transaction.put_image(data, objects={inode.digest for inode in inodes.values()})
        transaction.set_ref("images/app", image)
        transaction.commit()
    return image


def object_path(store: Store, digest: bytes) -> Path:
    """Return where an object lies: `objects/xx/rest`."""
    return store.objects_path / digest.hex()[:2] / digest.hex()[2:]


def names(directory: Path) -> list[str]:
    """Return what is in a directory, for tests."""
    return sorted(path.name for path in directory.iterdir())


def main(argv: list[str]) -> int:
    """Do what `argv` says."""
    path, what, *rest = argv
    try:
        if what == "build":
            with Store.init(Path(path)) as store:
                sys.stdout.write(f"{build(store, *rest).hex()}\n")
        elif what == "gc":
            with Store.open(Path(path)) as store:
                report = collect(store, grace=0, keep_age=0)
                sys.stdout.write(f"{len(report.removed)}\n")
        else:
            with Store.open(Path(path)) as store, Store.open(Path(rest[0])) as source:
                sys.stdout.write(f"{repair_store(store, sources=[source]).damage}\n")
    except CfsError as error:
        sys.stderr.write(f"error: {error.brief}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
