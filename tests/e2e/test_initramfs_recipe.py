"""The shipped initramfs: the same bytes whatever surrounds the build, and its agent starts where nothing else is."""

import hashlib
import os
import subprocess
import sys

import pytest
from console_blocks import ROOT

from cfsbuild.cli.vm import INITRAMFS, shipped_recipe

NAMES = ("virtio_pci", "virtio_blk", "virtio_console", "ext4", "erofs", "overlay", "loop")


def make(root, umask=0o022, **environ):
    """Build the initramfs for a kernel that has everything built in; return its bytes."""
    modules = root / "modules"
    modules.mkdir(parents=True)
    (modules / "modules.dep").write_text("kernel/fs/erofs.ko: kernel/crc.ko\nkernel/crc.ko:\n")
    (modules / "modules.builtin").write_text("".join(f"kernel/{name}.ko\n" for name in NAMES))
    (modules / "kernel/fs").mkdir(parents=True)
    for name in ("fs/erofs", "crc"):
        (modules / f"kernel/{name}.ko").write_bytes(name.encode() * 100)
    command = [sys.executable, "-m", "cfsbuild.cli.main", "-q", "build", shipped_recipe(INITRAMFS["own"])]
    subprocess.run(
        [*command, "-o", f"modules={modules}", "--output", root / "out", "--store", root / "store"],
        cwd=root,
        check=True,
        capture_output=True,
        umask=umask,
        env={"PATH": os.environ["PATH"], "HOME": str(root)} | environ,
    )
    return (root / "out/initramfs.initrd").read_bytes()


@pytest.mark.parametrize("name", INITRAMFS.values())
def test_the_shipped_recipe_is_the_one_of_the_repository(name):
    assert shipped_recipe(name).read_bytes() == (ROOT / "recipes" / name).read_bytes()


def test_it_is_the_same_wherever_and_whenever_it_is_built(tmp_path):
    once = make(tmp_path / "one")
    again = make(
        tmp_path / "elsewhere/two",
        umask=0o077,
        TZ="Pacific/Apia",
        PYTHONHASHSEED="4242",
        LC_ALL="C",
        PYTHONDONTWRITEBYTECODE="1",
    )
    assert hashlib.sha256(once).hexdigest() == hashlib.sha256(again).hexdigest()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can unpack devices and chroot")
def test_its_agent_starts_where_nothing_else_is(tmp_path):
    packed = make(tmp_path / "made")
    root = tmp_path / "root"
    root.mkdir()
    plain = subprocess.run(["zstd", "-dc"], input=packed, capture_output=True, check=True).stdout
    subprocess.run(["cpio", "-id", "--quiet", "--no-absolute-filenames"], cwd=root, input=plain, check=True)
    assert (root / "etc/cfsbuild/modules").read_text().splitlines() == [
        "/usr/lib/modules/kernel/crc.ko",
        "/usr/lib/modules/kernel/fs/erofs.ko",
    ]
    done = subprocess.run(["chroot", root, "/init"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("cfsbuild: this starts a machine")
