"""The hook for initramfs-tools: Debian's own initramfs boots the image by the C program `mount.composefs`."""

import re
import shutil
import subprocess

import lab
import pytest
import vm
from booting import APPLIANCE, boot

from cfsbuild.build.pipeline import Options, build, make_request

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.lab]

INIT = """\
#!/bin/sh
mount -t proc proc /proc
grep composefs /proc/mounts
cat /etc/motd
poweroff -f
"""
BUNDLE = """
[targets.bundle]
generation = 1
objects = ["composefs/objects"]
"""
CONFIGURATION = {"MODULES": "list", "BUSYBOX": "y", "COMPRESS": "gzip"}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    vm.require()
    lab.require("mkinitramfs", "mount.composefs", "busybox")
    return tmp_path_factory.mktemp("hook")


@pytest.fixture(scope="module")
def recipe(home):
    """The appliance with another init and a bundle."""
    text = APPLIANCE.read_text()
    start = text.index('content = """\n#!/bin/sh')
    made = home / "appliance.toml"
    made.write_text(f"{text[:start]}content = '''\n{INIT}'''\n{BUNDLE}")
    return made


@pytest.fixture(scope="module")
def disk(home, recipe):
    """A disk whose objects were given fs-verity when it first started."""
    done = boot(home, "--keep", home / "disk", "--exec", "echo started", recipe=recipe)
    assert done.stdout == "started\n", done.stderr
    return home / "disk"


@pytest.fixture(scope="module")
def initramfs(home, recipe):
    request = make_request(recipe, store=home / "store", output=home / "out")
    build(request, Options(), environ={})
    version = (vm.CACHE / "version").read_text().strip()
    modules = lab.lab_path() / "lib/modules" / version
    if not modules.exists():
        shutil.copytree(vm.CACHE / "modules", modules)
    with lab.workspace() as (outside, inside):
        shutil.copytree(lab.lab_path() / "etc/initramfs-tools", outside / "conf", symlinks=True)
        with (outside / "conf/initramfs.conf").open("a") as file:
            file.writelines(f"{key}={value}\n" for key, value in CONFIGURATION.items())
        with (outside / "conf/modules").open("a") as file:
            file.write("virtio_pci\nvirtio_blk\next4\n")
        hook = outside / "conf/hooks/composefs"
        hook.parent.mkdir(exist_ok=True)
        shutil.copy(home / "out/appliance-1.initramfs-hook", hook)
        hook.chmod(0o755)
        done = lab.run("mkinitramfs", "-d", f"{inside}/conf", "-o", f"{inside}/initrd", version)
        assert done.returncode == 0, done.stderr.decode()
        shutil.copy(outside / "initrd", home / "initrd")
    return home / "initrd"


def console(initrd, disk):
    done = subprocess.run(
        [
            *("qemu-system-x86_64", "-machine", "q35,accel=tcg", "-cpu", vm.CPU, "-m", "1024", "-nographic"),
            *("-no-reboot", "-net", "none", "-monitor", "none"),
            *("-kernel", vm.CACHE / "vmlinuz", "-initrd", initrd),
            *("-append", "console=ttyS0 panic=-1 quiet boot=composefs root=/dev/vda rootfstype=ext4"),
            *("-drive", f"file={disk},if=virtio,format=raw"),
        ],
        capture_output=True,
        check=False,
        stdin=subprocess.DEVNULL,
        timeout=300,
    )
    return done.stdout.decode(errors="replace").replace("\r\n", "\n")


def test_the_image_boots_and_the_kernel_checks_it(initramfs, disk):
    said = console(initramfs, disk)
    # The kernel's own messages may stand on the same line of the console.
    root = re.search(r"composefs / overlay (\S+)", said)
    assert root, said
    assert "verity=require" in root[1].split(",")
    assert root[1].startswith("ro,")
    assert "Whatever is read is checked by the kernel" in said


def test_another_digest_boots_nothing(initramfs, disk, home):
    data = bytearray(disk.read_bytes())
    image = (home / "out/appliance-1.cfs").read_bytes()
    places = [at for at in range(0, len(data), 4096) if data[at : at + 4096] == image[:4096]]
    assert places
    for at in places:
        data[at + 2048] ^= 1
    (home / "flipped").write_bytes(data)
    said = console(initramfs, home / "flipped")
    assert "the image was not mounted" in said or "Input/output error" in said
    assert "Whatever is read" not in said
