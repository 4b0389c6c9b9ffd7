"""A bundle that makes the whole tree writable: where changes go, and what is not said of it."""

import os
import subprocess
from pathlib import Path

import msgspec
import pytest
from test_interrupted_mount import machine  # noqa: F401 (a fixture)

from cfsbuild.deploy import mount as mounting
from cfsbuild.deploy.bundle_mount import mount_accepted
from cfsbuild.deploy.spec import MountSpec
from cfsbuild.errors import VerificationError
from cfsbuild.trust.bundle import Upper

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")


@pytest.fixture
def writable(machine, tmp_path):  # noqa: F811 (as above)
    """Give a bundle with an upper directory, and a disk in memory: not all file systems can be upper."""
    directory, bundle = machine
    disk = directory / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", disk], check=True)
    subprocess.run(["cp", "-r", directory / "objects", disk], check=True)
    changes = Upper("changes/upper", "changes/work")
    yield disk, msgspec.structs.replace(bundle, ro=False, state=None, upper=changes)
    subprocess.run(["umount", "-R", "-l", directory / "root", disk], check=False, capture_output=True)


def test_changes_go_to_directories_that_are_made(writable, tmp_path):
    disk, bundle = writable
    root = tmp_path / "root"
    mount_accepted(bundle, disk, root, allow_insecure=True)
    (root / "etc/new").write_text("x")
    assert (disk / "changes/upper/etc/new").read_text() == "x"


@pytest.mark.parametrize("link", ["changes", "changes/upper", "changes/work"])
def test_a_link_that_somebody_put_there_is_not_followed(writable, tmp_path, link):
    disk, bundle = writable
    (disk / "elsewhere/upper").mkdir(parents=True)
    (disk / "elsewhere/work").mkdir()
    (disk / link).parent.mkdir(exist_ok=True)
    (disk / link).symlink_to(disk / "elsewhere")
    with pytest.raises(VerificationError) as caught:
        mount_accepted(bundle, disk, tmp_path / "root", allow_insecure=True)
    assert caught.value.reason == "state"
    assert not os.path.ismount(tmp_path / "root")


def test_it_is_never_said_to_be_enforced():
    """The kernel checks the image's files, and not those that hide them."""
    spec = MountSpec(image="i", objects=("o",), verity="require", read_only=False, upper="/u", work="/w")
    told = mounting._outcome(spec, Path("root"), verity=True, measured=True)
    assert not told.enforced
    assert "upper directory" in told.why_not
    again = msgspec.structs.replace(spec, upper="", work="", read_only=True)
    assert mounting._outcome(again, Path("root"), verity=True, measured=True).enforced
