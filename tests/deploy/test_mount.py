"""Mounting with the real kernel; the images are made by our writer, whose own tests compare it with mkcomposefs."""

import os
import stat
import subprocess
from pathlib import Path

import pytest

from cfsbuild.deploy import mount as mounting
from cfsbuild.deploy.attach import MountError
from cfsbuild.deploy.mount import best_verity, mount, unmount
from cfsbuild.deploy.namespace import run_inside
from cfsbuild.deploy.spec import MountSpec
from cfsbuild.erofs.writer import write_image
from cfsbuild.errors import InputError, VerificationError
from cfsbuild.fsverity.algorithm import Algorithm
from cfsbuild.fsverity.digest import digest_bytes
from cfsbuild.tree.flavour import to_dump
from cfsbuild.tree.inode import Inode
from cfsbuild.tree.layer import Tree

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")

BUSYBOX = Path("/bin/busybox")
BIG = bytes(range(256)) * 1000


def put(objects, content):
    digest = digest_bytes(content, Algorithm.SHA256)
    path = objects / digest.hex()[:2] / digest.hex()[2:]
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return digest


@pytest.fixture
def image(tmp_path):
    """A spec of an image with a directory, an inline file, an external file, a symlink and busybox."""
    objects = tmp_path / "objects"
    objects.mkdir()
    directory = Inode(stat.S_IFDIR | 0o755)
    entries = {
        b"/": directory,
        b"/big": Inode(stat.S_IFREG | 0o640, uid=7, gid=8, size=len(BIG), digest=put(objects, BIG)),
        b"/bin": directory,
        b"/hello": Inode(stat.S_IFREG | 0o644, size=6, content=b"hello\n"),
        b"/link": Inode(stat.S_IFLNK | 0o777, size=5, target=b"hello"),
    }
    if BUSYBOX.exists():
        program = BUSYBOX.read_bytes()
        entries[b"/bin/busybox"] = Inode(
            stat.S_IFREG | 0o755, size=len(program), digest=put(objects, program)
        )
        entries = dict(sorted(entries.items()))
    data = write_image(
        to_dump(Tree(entries=entries), epoch=1_700_000_000), format=1, algorithm=Algorithm.SHA256
    )
    path = tmp_path / "image.cfs"
    path.write_bytes(data)
    return MountSpec(image=str(path), objects=(str(objects),), verity="off")


@pytest.fixture
def target(tmp_path):
    path = tmp_path / "mnt"
    path.mkdir()
    yield path
    while os.path.ismount(path):
        subprocess.run(["umount", "-l", path], check=True)


def changed(spec, **changes):
    fields = {field: getattr(spec, field) for field in spec.__struct_fields__}
    return MountSpec(**{**fields, **changes})


def test_a_mounted_image_shows_what_was_put_into_it(image, target):
    mounted = mount(image, target)
    assert (target / "big").read_bytes() == BIG
    assert (target / "hello").read_text() == "hello\n"
    assert (target / "link").readlink() == Path("hello")
    status = (target / "big").stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (7, 8, 0o640)
    assert (target / "bin").stat().st_mtime == 1_700_000_000
    assert not mounted.enforced
    assert mounted.why_not == "no verity was asked for"
    unmount(target)
    assert not list(target.iterdir())


def test_nothing_but_the_overlay_stays_mounted(image, target):
    mount(image, target)
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    assert [fields[0] for fields in mounts if fields[1] == str(target)] == ["composefs"]
    assert not any("cfsbuild-mount-" in fields[1] for fields in mounts)


def test_the_mount_is_read_only(image, target):
    mount(image, target)
    with pytest.raises(OSError, match="Read-only"):
        (target / "new").touch()


def test_an_upper_directory_takes_the_changes(image, target, tmp_path):
    upper, work = tmp_path / "upper", tmp_path / "work"
    upper.mkdir()
    work.mkdir()
    mount(changed(image, upper=str(upper), work=str(work), read_only=False), target)
    (target / "hello").write_text("changed")
    assert (upper / "hello").read_text() == "changed"


def test_objects_are_looked_for_in_several_directories(image, target, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    mount(changed(image, objects=(str(empty), *image.objects)), target)
    assert (target / "big").read_bytes() == BIG


def test_directories_with_commas_colons_and_backslashes_can_be_mounted(image, target, tmp_path):
    odd = tmp_path / "a,b:c\\d"
    Path(image.objects[0]).rename(odd)
    mount(changed(image, objects=(str(odd),)), target)
    assert (target / "big").read_bytes() == BIG


def test_a_digest_is_refused_where_the_kernel_cannot_vouch_for_it(image, target):
    enforceable, why_not = best_verity(Path(image.image))
    if enforceable:
        pytest.skip("this file system gave the image fs-verity")
    assert why_not
    with pytest.raises(VerificationError) as caught:
        mount(changed(image, digest="0" * 64), target)
    assert caught.value.reason == "image-no-verity"
    assert not os.path.ismount(target)


def test_a_file_that_is_no_image_is_refused(image, target, tmp_path):
    other = tmp_path / "other"
    other.write_bytes(bytes(16384))
    with pytest.raises(InputError, match="not a composefs image"):
        mount(changed(image, image=str(other)), target)


@pytest.mark.parametrize("what", ["image", "objects", "target"])
def test_what_is_missing_is_named(image, target, what):
    missing = "/nonexistent/thing"
    spec = (
        image if what == "target" else changed(image, **{what: (missing,) if what == "objects" else missing})
    )
    with pytest.raises(MountError, match=missing):
        mount(spec, Path(missing) if what == "target" else target)


def test_a_busy_mount_says_what_to_do_and_a_lazy_unmount_works(image, target):
    mount(image, target)
    with (target / "hello").open(), pytest.raises(MountError) as caught:
        unmount(target)
    assert "lazy" in caught.value.resolution
    unmount(target, lazy=True)


@pytest.mark.skipif(not BUSYBOX.exists(), reason="busybox is not installed")
class TestInside:
    def test_a_command_runs_in_the_image_and_its_status_comes_back(self, image, capfd):
        assert run_inside(image, ["/bin/busybox", "sh", "-c", "/bin/busybox cat /hello; exit 7"]) == 7
        assert capfd.readouterr().out == "hello\n"

    def test_changes_vanish_when_writing_was_allowed_and_fail_when_not(self, image):
        touch = ["/bin/busybox", "touch", "/new"]
        assert run_inside(image, touch) == 1
        assert run_inside(image, touch, writable=True) == 0
        assert run_inside(image, ["/bin/busybox", "test", "-e", "/new"]) == 1

    def test_a_missing_command_gives_the_shells_status(self, image, capfd):
        assert run_inside(image, ["nowhere"]) == 127
        assert "nowhere: not found in the image" in capfd.readouterr().err

    def test_a_killed_command_gives_the_signal(self, image):
        assert run_inside(image, ["/bin/busybox", "sh", "-c", "kill -9 $$"]) == 137

    def test_an_image_that_cannot_be_mounted_is_an_error_with_its_cause(self, image):
        with pytest.raises(MountError) as caught:
            run_inside(changed(image, objects=("/nonexistent",)), ["/bin/busybox"])
        assert "/nonexistent" in caught.value.details


@pytest.fixture
def shifted_ids():
    """Yield the path of a user namespace in which every id is 100000 higher outside."""
    process = subprocess.Popen(["unshare", "--user", "sleep", "60"])
    try:
        own = Path("/proc/self/ns/user").readlink()
        while Path(f"/proc/{process.pid}/ns/user").readlink() == own:
            assert process.poll() is None
        for kind in ("uid_map", "gid_map"):
            Path(f"/proc/{process.pid}/{kind}").write_text("0 100000 65536\n")
        yield f"/proc/{process.pid}/ns/user"
    finally:
        process.kill()
        process.wait()


def test_owners_are_mapped_through_a_user_namespace(image, target, shifted_ids):
    mount(changed(image, idmap=shifted_ids), target)
    status = (target / "big").stat()
    assert (status.st_uid, status.st_gid) == (100007, 100008)
    assert (target / "big").read_bytes() == BIG


def test_the_file_that_was_measured_is_mounted_whatever_its_name_leads_to_by_then(image, target, monkeypatch):
    other = Tree(entries={b"/": Inode(stat.S_IFDIR | 0o755), b"/evil": Inode(stat.S_IFREG | 0o644)})
    evil = Path(f"{image.image}.evil")
    evil.write_bytes(write_image(to_dump(other, epoch=1), format=1, algorithm=Algorithm.SHA256))
    measure = mounting.check_image_digest

    def measure_and_lose_a_race(fd, spec):
        told = measure(fd, spec)
        evil.rename(spec.image)
        return told

    monkeypatch.setattr(mounting, "check_image_digest", measure_and_lose_a_race)
    mount(image, target)
    assert not evil.exists()
    assert not (target / "evil").exists()
    assert (target / "hello").read_bytes() == b"hello\n"
