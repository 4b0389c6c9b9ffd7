"""Device nodes, compared with real ones."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from node_helpers import problems, run


@pytest.mark.parametrize("path", ["/dev/null", "/dev/zero", "/dev/full", "/dev/urandom"])
def test_a_device_has_the_numbers_that_the_kernel_reports(path):
    if not Path(path).exists():
        pytest.skip(f"{path} is not there")
    real = Path(path).stat()
    ((_, inode),) = run(
        "device",
        target=path,
        type="char",
        major=os.major(real.st_rdev),
        minor=os.minor(real.st_rdev),
        mode="0666",
    ).entries.items()
    assert inode.rdev == real.st_rdev
    assert inode.mode == stat.S_IFCHR | 0o666


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes device nodes")
@pytest.mark.parametrize(("major", "minor"), [(8, 1), (259, 300), (4095, 1048575), (0, 256)])
def test_large_numbers_are_encoded_as_the_kernel_encodes_them(tmp_path, major, minor):
    try:
        os.mknod(tmp_path / "d", stat.S_IFBLK | 0o600, os.makedev(major, minor))
    except PermissionError:
        pytest.skip("device nodes cannot be made here")
    ((_, inode),) = run("device", target="/d", type="block", major=major, minor=minor).entries.items()
    assert inode.rdev == os.lstat(tmp_path / "d").st_rdev < 2**32
    assert inode.mode == stat.S_IFBLK | 0o600


def test_a_fifo_has_no_numbers():
    ((_, inode),) = run("device", target="/run/f", type="fifo", mode="0620", group=5).entries.items()
    assert (inode.mode, inode.rdev, inode.gid) == (stat.S_IFIFO | 0o620, 0, 5)


def test_missing_and_superfluous_numbers_are_found():
    assert problems("device", target="/d", type="char", major=1) == [
        "node: a char device needs a minor number"
    ]
    assert problems("device", target="/d", type="fifo", major=1) == ["node: a fifo has no major number"]
    assert problems("device", target="/", type="fifo") == ["node: a device cannot be the root"]
