"""A machine's disk: what debugfs and e2fsck see of it."""

import shutil
import subprocess

import pytest

from cfsbuild.deploy.state_disk import OBJECTS, disk_bytes, make_state_disk
from cfsbuild.errors import StoreError
from cfsbuild.store.store import Store

pytestmark = pytest.mark.skipif(
    not all(map(shutil.which, ("mkfs.ext4", "debugfs", "e2fsck"))), reason="e2fsprogs is not installed"
)

CONTENT = b"an object that is shared" * 20000


@pytest.fixture
def store(tmp_path):
    with Store.init(tmp_path / "store") as store:
        with store.transaction() as transaction:
            needed = transaction.add_bytes(CONTENT)
            transaction.add_bytes(b"an object of another image" * 9)
            image = transaction.put_image(b"stands for an image" * 9, [needed])
            transaction.commit()
        yield store, image, needed


def debugfs(disk, request):
    return subprocess.run(["debugfs", "-R", request, disk], capture_output=True, check=True).stdout


def test_it_has_the_image_and_its_objects_and_no_others(store, tmp_path):
    opened, image, needed = store
    disk = tmp_path / "a, disk"
    make_state_disk(disk, opened, image, name="first-1.0")
    assert debugfs(disk, f"cat /{OBJECTS}/{needed.hex()[:2]}/{needed.hex()[2:]}") == CONTENT
    assert debugfs(disk, f"cat /{OBJECTS}/{image.hex()[:2]}/{image.hex()[2:]}") == b"stands for an image" * 9
    objects = debugfs(disk, "ls -p /composefs/objects").decode().splitlines()
    assert len([line for line in objects if line and not line.split("/")[5].startswith(".")]) == 2
    assert b"first-1.0" in debugfs(disk, "ls -p /composefs/images/refs")
    assert b"verity" in debugfs(disk, "show_super_stats -h")
    subprocess.run(["e2fsck", "-f", "-n", disk], check=True, capture_output=True)


def test_an_object_that_is_missing_is_an_error_and_leaves_no_disk(store, tmp_path):
    opened, image, needed = store
    (opened.path / "objects" / needed.hex()[:2] / needed.hex()[2:]).unlink()
    with pytest.raises(StoreError):
        make_state_disk(tmp_path / "disk", opened, image, name="first")
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_a_disk_has_room_for_verity_of_small_and_of_large_files():
    for sizes in ([1] * 100_000, [10 << 30], []):
        size, inodes = disk_bytes(sizes)
        hashes = sum(-(-size // 127) for size in sizes if size > 1)
        assert size > sum(sizes) + hashes + 3 * 4096 * len(sizes)
        assert inodes > len(sizes)
