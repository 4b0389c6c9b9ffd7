"""Linux itself unpacks an initramfs: a walk inside the machine finds the tree, whatever the compression."""

import os
import stat
import subprocess

import pytest
import vm

from cfsbuild.build.pipeline import Options, build, make_request
from cfsbuild.erofs.reader import read_image
from cfsbuild.store.store import Store
from cfsbuild.tree.flavour import from_dump

pytestmark = [pytest.mark.vm, pytest.mark.slow]

RECIPE = """\
[image]
name = "walk"
epoch = 1234567890
[nodes.busybox]
kind = "programs"
programs = ["/bin/busybox"]
[nodes.tree]
kind = "tree"
source = "source"
target = "/data"
[nodes.owned]
kind = "file"
target = "/owned"
content = "{{ 'somebody else has this ' * 20 }}"
mode = "6751"
owner = 1234
group = 65534
[nodes.devices]
kind = "device"
target = "/dev/odd"
type = "block"
major = 300
minor = 1000
mode = "0604"
[nodes.pipe]
kind = "device"
target = "/pipe"
type = "fifo"
[nodes.init]
kind = "file"
target = "/init"
mode = "0755"
raw = true
content = '''
#!/bin/busybox sh
echo WALK-BEGIN
/bin/busybox find / -xdev -exec /bin/busybox stat -c '%n %f %u %g %Y %t %T %h' {} ';'
echo WALK-LINKS
/bin/busybox find / -xdev -type l -exec /bin/busybox stat -c '%N' {} ';'
echo WALK-SUMS
/bin/busybox find / -xdev -type f -exec /bin/busybox sha256sum {} ';'
echo WALK-END
/bin/busybox poweroff -f
'''
[targets.initramfs]
compression = "COMPRESSION"
"""


def boot(initrd):
    """Boot nothing but the initramfs; return what its walk wrote, by part."""
    command = [
        *("qemu-system-x86_64", "-machine", "q35,accel=tcg", "-cpu", vm.CPU, "-m", "512", "-nodefaults"),
        *("-display", "none", "-no-reboot", "-serial", "stdio", "-kernel", vm.CACHE / "vmlinuz"),
        *("-initrd", initrd, "-append", "console=ttyS0 panic=-1 quiet loglevel=3"),
    ]
    done = subprocess.run(command, check=False, capture_output=True, timeout=120, stdin=subprocess.DEVNULL)
    console = done.stdout.decode().replace("\r\n", "\n")
    assert "WALK-END" in console, console
    _, *parts = console.partition("WALK-END")[0].split("WALK-")
    return {name: rest.splitlines() for name, _, rest in (part.partition("\n") for part in parts)}


@pytest.mark.parametrize("compression", ["zstd", "gzip", "none"])
def test_a_walk_in_the_machine_finds_the_tree(tmp_path, compression):
    vm.require()
    source = tmp_path / "source"
    (source / "deep/er").mkdir(parents=True)
    (source / "deep/er/file with spaces").write_bytes(b"x" * 5001)
    (source / "a").write_text("three names" * 10)
    for name in ("b", "deep/c"):
        (source / name).hardlink_to(source / "a")
    (source / "empty").touch()
    (source / "link").symlink_to("deep/er")
    (tmp_path / "walk.toml").write_text(RECIPE.replace("COMPRESSION", compression))
    request = make_request(tmp_path / "walk.toml", store=tmp_path / "store", output=tmp_path / "out")
    (result,) = build(request, Options(), environ={})
    found = boot(tmp_path / "out/walk.initrd")
    with Store.open(tmp_path / "store", read_only=True) as store:
        tree = tree_of(store, result)
    walked = {}
    for line in found["BEGIN"]:
        name, mode, uid, gid, mtime, major, minor, links = line.rsplit(" ", 7)
        walked[name] = (
            int(mode, 16),
            int(uid),
            int(gid),
            int(mtime),
            int(major, 16),
            int(minor, 16),
            int(links),
        )
    names = {**dict.fromkeys(tree.entries, ""), **tree.links}
    count = {real: 1 + list(tree.links.values()).count(real) for real in tree.entries}
    for path in names:
        inode = tree.entries[tree.links.get(path, path)]
        rdev = (os.major(inode.rdev), os.minor(inode.rdev)) if inode.is_device else (0, 0)
        seen = walked.pop(os.fsdecode(path))
        assert seen[:3] == (inode.mode, inode.uid, inode.gid), path
        if path != b"/":  # things come and go in it until the walk
            assert seen[3] == 1234567890, path
        assert seen[4:6] == rdev, path
        if not inode.is_directory:
            assert seen[6] == count[tree.links.get(path, path)], path
    assert set(walked) <= {"/dev/console", "/root"}  # what Linux always has
    assert sorted(found["LINKS"]) == sorted(
        f"'{os.fsdecode(path)}' -> '{os.fsdecode(inode.target)}'"
        for path, inode in tree.entries.items()
        if inode.is_symlink
    )
    sums = dict(reversed(line.split("  ", 1)) for line in found["SUMS"])
    for name, content in (
        ("/data/deep/c", b"three names" * 10),
        ("/data/deep/er/file with spaces", b"x" * 5001),
    ):
        digest = subprocess.run(["sha256sum"], input=content, capture_output=True, check=True).stdout.split()[
            0
        ]
        assert sums[name] == digest.decode()
    assert stat.S_ISFIFO(tree.entries[b"/pipe"].mode)


def tree_of(store, result):
    return from_dump(read_image(store.read_image(result.digest)).entries())
