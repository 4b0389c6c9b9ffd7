"""A mount by a bundle that is interrupted, at whatever line, leaves nothing mounted and no error of its own."""

import os
import tempfile
from pathlib import Path

import pytest
from interruption import InterruptAt
from machines import tree

from cfsbuild.deploy import bundle_mount
from cfsbuild.erofs.writer import write_image
from cfsbuild.fsverity.algorithm import Algorithm
from cfsbuild.fsverity.digest import digest_bytes
from cfsbuild.tree.flavour import to_dump
from cfsbuild.trust.bundle import INSECURE, Bundle, State
from cfsbuild.trust.statement import image_file

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")

MOUNTING = tuple(
    str(Path(bundle_mount.__file__).with_name(name))
    for name in ("attach.py", "bundle_mount.py", "mount.py", "state.py", "syscalls.py")
)


@pytest.fixture
def machine(tmp_path, monkeypatch):
    scratch = tmp_path / "scratch"
    for name in ("scratch", "root", "objects"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    data = bytes(write_image(to_dump(tree(), epoch=1), format=1, algorithm=Algorithm.SHA256))
    digest = digest_bytes(data, Algorithm.SHA256)
    image = tmp_path / "objects" / digest.hex()[:2] / digest.hex()[2:]
    image.parent.mkdir()
    image.write_bytes(data)
    bundle = Bundle(
        type=INSECURE,
        name="m",
        version="",
        generation=1,
        image=image_file(digest, 1, len(data)),
        objects=["objects"],
        verity="off",
        ro=True,
        upper=None,
        state=State(directory="state/m", etc="transient", var="persistent"),
        kernel=[],
        target=None,
        not_after=None,
        secrets={},
    )
    return tmp_path, bundle


def mounted_below(directory):
    lines = Path("/proc/self/mountinfo").read_text().split("\n")
    return [line.split(" ")[4] for line in lines if str(directory) in line]


def interrupted(number, directory, bundle):
    """Stop at the line of that number that runs in what mounts; say whether it got so far."""
    try:
        with InterruptAt(number, *MOUNTING):
            bundle_mount.mount_accepted(bundle, directory, directory / "root", allow_insecure=True)
    except KeyboardInterrupt:
        return True
    return False


# A descriptor that was being opened is left to the interpreter.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_at_no_line_does_it_leave_anything(machine):
    directory, bundle = machine
    number = 0
    while interrupted(number := number + 1, directory, bundle):
        assert mounted_below(directory) == [], number
        assert list((directory / "scratch").iterdir()) == [], number
    assert number > 200
    assert len(mounted_below(directory)) == 3
    assert (directory / "root/etc/motd").read_text() == "hi\n"
    bundle_mount.detach_until(directory / "root", bundle_mount.mount_id(directory))
    assert mounted_below(directory) == []
