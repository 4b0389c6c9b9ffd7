"""The store on real file systems, and on one that is full."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import store_driver
from store_driver import names, object_path

from cfsbuild.errors import StoreError
from cfsbuild.fsverity import digest as fsverity
from cfsbuild.fsverity.algorithm import Algorithm
from cfsbuild.store.durability import Durability
from cfsbuild.store.enforce import enable_all
from cfsbuild.store.fsck import check_store
from cfsbuild.store.gc import collect
from cfsbuild.store.info import store_info
from cfsbuild.store.store import Store

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount"),
]

MAKE = {
    "ext4": ["mkfs.ext4", "-q", "-b", "4096", "-m", "0"],
    "ext4-verity": ["mkfs.ext4", "-q", "-b", "4096", "-O", "verity"],
    "xfs": ["mkfs.xfs", "-q"],
    "btrfs": ["mkfs.btrfs", "-q"],
}


def mount(kind: str, size: int, tmp_path: Path, *options: str) -> Path:
    target = tmp_path / "mnt"
    target.mkdir()
    if kind == "tmpfs":
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(target)]
    else:
        maker = MAKE[kind]
        if shutil.which(maker[0]) is None:
            pytest.skip(f"{maker[0]} is not installed")
        image = tmp_path / "disk"
        with image.open("wb") as file:
            file.truncate(size)
        subprocess.run([*maker, *options, image], check=True, capture_output=True)
        command = ["mount", "-o", "loop", str(image), str(target)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        pytest.skip(f"cannot mount {kind}: {result.stderr.strip()}")
    return target


@pytest.fixture
def mounted(tmp_path):
    def make(kind: str, size: int, *options: str) -> Path:
        return mount(kind, size, tmp_path, *options)

    yield make
    subprocess.run(["umount", tmp_path / "mnt"], check=False, capture_output=True)


@pytest.mark.parametrize("durability", list(Durability))
@pytest.mark.parametrize("kind", ["ext4", "ext4-verity", "xfs", "btrfs", "tmpfs"])
def test_a_store_works_on(kind, durability, mounted):
    top = mounted(kind, 400 << 20)
    with Store.init(top / "store") as store:
        with store.transaction(durability=durability) as transaction:
            transaction.add_bytes(b"x" * 5000)
            transaction.commit()
        image = store_driver.build(store, "one")
        assert store_driver.build(store, "two") != image
        assert check_store(store).findings == ()
        removed = collect(store, keep_age=0, grace=0).removed
        assert sum(item.kind == "object" for item in removed) == 3
        assert check_store(store).findings == ()
        assert store_driver.build(store, "one") == image
        assert names(store.path / "cfsbuild/staging") == []


def test_fs_verity_is_enforced_where_the_kernel_has_it(mounted):
    top = mounted("ext4-verity", 64 << 20)
    with Store.init(top / "store") as store:
        image = store_driver.build(store, "one")
        facts = store_info(store)
        if not facts.verity:
            assert facts.verity_reason
            with pytest.raises(StoreError, match="fs-verity"):
                enable_all(store)
            pytest.skip(f"nothing to enforce: {facts.verity_reason}")
        path = object_path(store, image)
        measured = subprocess.run(["fsverity", "measure", path], capture_output=True, text=True, check=True)
        assert image.hex() in measured.stdout


def fill(top: Path, leave: int) -> None:
    """Take up all but about `leave` bytes."""
    status = os.statvfs(top)
    size = max(0, status.f_bavail * status.f_frsize - leave)
    fd = os.open(top / "balloon", os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        while size > 0:
            try:
                size -= os.write(fd, bytes(min(size, 1 << 16)))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                break
        os.fsync(fd)
    finally:
        os.close(fd)


def try_to_build(store: Store) -> StoreError | None:
    try:
        store_driver.build(store, "one")
    except StoreError as error:
        return error
    return None


@pytest.mark.parametrize("kind", ["ext4", "tmpfs"])
def test_a_full_disk_at_any_point_is_a_clear_error_and_leaves_a_sound_store(mounted, kind):
    top = mounted(kind, 16 << 20)
    Store.init(top / "store").close()
    failures = 0
    for leave in range(0, 1_600_000, 64 * 1024):
        shutil.rmtree(top / "store")
        with Store.init(top / "store") as store:
            fill(top, leave)
            failure = try_to_build(store)
            if failure is not None:
                assert failure.exit_code == 7
                assert "No space left" in failure.brief
                failures += 1
            assert (store.image("images/app") is None) == (failure is not None)
            (top / "balloon").unlink()
            assert check_store(store).damage == 0
            store_driver.build(store, "one")
            assert check_store(store).findings == ()
            assert names(store.path / "cfsbuild/staging") == []
    assert failures >= 10


def test_exhausted_inodes_are_a_clear_error(mounted):
    top = mounted("ext4", 16 << 20, "-N", "64")
    with Store.init(top / "store") as store:

        def add_many() -> None:
            with store.transaction() as transaction:
                for number in range(200):
                    transaction.add_bytes(str(number).encode() * 50)

        with pytest.raises(StoreError, match="No space left"):
            add_many()
        assert check_store(store).findings == ()
        with store.transaction() as transaction:
            assert transaction.add_bytes(b"y" * 100) == fsverity.digest_bytes(b"y" * 100, Algorithm.SHA256)
            transaction.commit()
