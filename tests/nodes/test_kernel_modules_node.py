"""Modules of a kernel: the order is the one of modprobe, contents are decompressed."""

import gzip
import lzma
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import zstandard
from node_helpers import Objects, problems, run

from cfsbuild.deploy.guest_kernel import cache_directory
from cfsbuild.errors import BuildError

DEP = """\
kernel/a.ko.xz: kernel/fs/b-b.ko.zst kernel/c.ko.gz
kernel/fs/b-b.ko.zst: kernel/c.ko.gz
kernel/c.ko.gz:
kernel/d.ko:
kernel/loop1.ko: kernel/loop2.ko
kernel/loop2.ko: kernel/loop1.ko
kernel/lost.ko: kernel/not-listed.ko
kernel/../../etc/passwd:
"""


@pytest.fixture
def kernel(tmp_path):
    (tmp_path / "kernel/fs").mkdir(parents=True)
    (tmp_path / "kernel/a.ko.xz").write_bytes(lzma.compress(b"module a" * 20))
    (tmp_path / "kernel/fs/b-b.ko.zst").write_bytes(zstandard.ZstdCompressor().compress(b"module b" * 20))
    (tmp_path / "kernel/c.ko.gz").write_bytes(gzip.compress(b"module c" * 20))
    (tmp_path / "kernel/d.ko").write_bytes(b"module d" * 20)
    (tmp_path / "modules.dep").write_text(DEP)
    (tmp_path / "modules.builtin").write_text("kernel/built-in.ko\n")
    return tmp_path


def take(directory, *names, **more):
    objects = Objects()
    layer = run("kernel-modules", objects, directory=str(directory), names=list(names), **more)
    return {path.decode(): objects.content(inode) for path, inode in layer.entries.items()}


def test_modules_come_decompressed_after_those_that_they_need(kernel):
    files = take(kernel, "d", "a")
    assert files.pop("/etc/cfsbuild/modules").decode().splitlines() == [
        "/usr/lib/modules/kernel/d.ko",
        "/usr/lib/modules/kernel/c.ko",
        "/usr/lib/modules/kernel/fs/b-b.ko",
        "/usr/lib/modules/kernel/a.ko",
    ]
    assert files == {
        "/usr/lib/modules/kernel/a.ko": b"module a" * 20,
        "/usr/lib/modules/kernel/fs/b-b.ko": b"module b" * 20,
        "/usr/lib/modules/kernel/c.ko": b"module c" * 20,
        "/usr/lib/modules/kernel/d.ko": b"module d" * 20,
    }


def test_places_can_be_chosen(kernel):
    files = take(kernel, "d", target="/m/", order="/list")
    assert files == {"/m/kernel/d.ko": b"module d" * 20, "/list": b"/m/kernel/d.ko\n"}


def test_what_is_built_in_need_not_be_loaded(kernel):
    assert take(kernel, "built_in") == {"/etc/cfsbuild/modules": b""}


def test_minus_and_underscore_are_the_same(kernel):
    assert "/usr/lib/modules/kernel/fs/b-b.ko" in take(kernel, "b_b")


@pytest.mark.parametrize(
    ("name", "message", "reason"),
    [
        ("nothing", "has no module nothing", "module-missing"),
        ("loop1", "makes no sense at kernel/loop1.ko", "modules-dep"),
        ("lost", "makes no sense at kernel/not-listed.ko", "modules-dep"),
        ("passwd", "makes no sense at kernel/../../etc/passwd", "modules-dep"),
    ],
)
def test_what_cannot_be_loaded_is_refused(kernel, name, message, reason):
    with pytest.raises(BuildError, match=message) as caught:
        take(kernel, name)
    assert caught.value.reason == reason


def test_a_damaged_module_is_refused(kernel):
    damaged = (kernel / "kernel/a.ko.xz").read_bytes()[:-9]
    (kernel / "kernel/a.ko.xz").write_bytes(damaged)
    with pytest.raises(BuildError, match=r"cannot read .*a.ko.xz: .*cut off"):
        take(kernel, "a")
    (kernel / "kernel/a.ko.xz").unlink()
    with pytest.raises(BuildError, match=r"cannot read .*a.ko.xz: No such file"):
        take(kernel, "a")


def test_a_directory_without_modules_is_found_before_anything_runs(tmp_path):
    found = problems("kernel-modules", directory=str(tmp_path), names=["a"])
    assert found == [f"node: {tmp_path} has no modules.dep"]


@pytest.mark.parametrize("name", ["ext4", "erofs", "btrfs", "virtio_net"])
def test_the_order_is_the_one_of_modprobe(tmp_path, name):
    modules = cache_directory(os.environ) / "modules"
    if shutil.which("modprobe") is None or not modules.exists():
        pytest.skip("needs kmod and a kernel: run tests/vm/make-kernel")
    (tmp_path / "lib/modules").mkdir(parents=True)
    (tmp_path / "lib/modules/1.0").symlink_to(modules)
    command = ["modprobe", "-d", tmp_path, "-S", "1.0", "--ignore-install", "--show-depends", name]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    lines = [line.split("/lib/modules/1.0/")[1].split()[0] for line in told.splitlines() if "insmod" in line]
    listed = [path.partition(".")[0] for path in lines]
    ours = [
        line.removeprefix("/usr/lib/modules/").partition(".")[0]
        for line in take(modules, name)["/etc/cfsbuild/modules"].decode().splitlines()
    ]
    if told.startswith("builtin"):
        assert ours == []
        return
    # modprobe also loads what a module only would like to have.
    assert [path for path in listed if path in ours] == ours
    assert set(ours) == needed(modules, name)


def needed(modules, name):
    """Return a module and all that it cannot do without, as depmod wrote it down."""
    for line in (modules / "modules.dep").read_text().splitlines():
        path, _, others = line.partition(":")
        if Path(path).name.partition(".")[0].replace("-", "_") == name:
            return {each.partition(".")[0] for each in (path, *others.split())}
    raise AssertionError(name)
