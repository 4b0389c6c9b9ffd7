"""What stays writable above a mounted image: the kernel is asked, and what must be gone is gone."""

import os
import stat
import subprocess
from pathlib import Path

import pytest

from cfsbuild.deploy.mount import unmount
from cfsbuild.errors import VerificationError
from cfsbuild.tree.inode import Inode
from cfsbuild.tree.layer import Tree

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")


def test_what_is_read_only_cannot_be_written(machine):
    root = machine.boot(etc="read-only", var="read-only")
    with pytest.raises(OSError, match="Read-only"):
        (root / "etc" / "new").write_text("x")
    assert not list(machine.base.iterdir())


def test_what_is_transient_is_gone_after_the_next_boot(machine):
    root = machine.boot(etc="transient")
    (root / "etc" / "motd").write_text("changed")
    assert (root / "etc" / "motd").read_text() == "changed"
    machine.off()
    root = machine.boot(etc="transient")
    assert (root / "etc" / "motd").read_text() == "hi\n"
    assert not list(machine.base.iterdir())


def test_what_is_persistent_stays_and_the_images_files_show_through(machine):
    root = machine.boot(var="persistent")
    (root / "var" / "new").write_text("kept")
    (root / "var" / "old").unlink()
    machine.off()
    root = machine.boot(var="persistent")
    assert [path.name for path in (root / "var").iterdir()] == ["new"]


def test_what_is_bound_stays_and_hides_what_the_image_has(machine):
    root = machine.boot(var="bind")
    assert not list((root / "var").iterdir())
    (root / "var" / "new").write_text("kept")
    machine.off()
    assert (machine.base / "state/m/var/new").read_text() == "kept"
    root = machine.boot(var="bind")
    assert (root / "var" / "new").read_text() == "kept"


@pytest.mark.parametrize("way", ["transient", "persistent", "bind"])
def test_owner_and_mode_are_those_of_the_image(machine, way):
    root = machine.boot(etc=way, var=way)
    status = (root / "etc").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o751, 3, 4)
    status = (root / "var").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_gid) == (0o1770, 5)


def test_an_image_without_the_directory_is_refused_and_nothing_stays_mounted(machine):
    machine.image(Tree(entries={b"/": Inode(stat.S_IFDIR | 0o755), b"/etc": Inode(stat.S_IFDIR | 0o755)}))
    with pytest.raises(VerificationError, match="no directory /var") as caught:
        machine.boot(etc="transient", var="transient")
    assert caught.value.reason == "state"
    unmount(machine.target)
    assert not os.path.ismount(machine.target / "etc")


def test_a_symbolic_link_in_the_image_is_not_followed(machine):
    # Not a directory of the machine that runs the test: if the link is followed, something is mounted there.
    elsewhere = machine.directory / "elsewhere"
    elsewhere.mkdir()
    link = os.fsencode(elsewhere)
    machine.image(
        Tree(
            entries={
                b"/": Inode(stat.S_IFDIR | 0o755),
                b"/etc": Inode(stat.S_IFLNK | 0o777, size=len(link), target=link),
            }
        )
    )
    with pytest.raises(VerificationError, match="no directory /etc"):
        machine.boot(etc="bind")
    assert not os.path.ismount(elsewhere)
    assert not (machine.base / "state").exists()


@pytest.mark.parametrize("place", ["state", "state/m", "state/m/var"])
def test_a_link_that_somebody_put_on_the_disk_is_not_followed(machine, place):
    elsewhere = machine.directory / "elsewhere"
    elsewhere.mkdir()
    path = machine.base / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(elsewhere)
    for way in ("persistent", "bind"):
        with pytest.raises(VerificationError) as caught:
            machine.boot(var=way)
        assert caught.value.reason == "state"
        machine.off()
    assert not list(elsewhere.iterdir())


def test_a_first_boot_that_was_cut_off_half_way_is_completed(machine):
    left = machine.base / "state/m/var/.upper.new"
    left.mkdir(parents=True)
    root = machine.boot(var="persistent")
    assert stat.S_IMODE((root / "var").stat().st_mode) == 0o1770
    assert not left.exists()


@pytest.mark.parametrize("way", ["transient", "persistent", "bind"])
def test_what_can_be_written_gives_no_rights_and_has_no_devices_but_runs(machine, way):
    root = machine.boot(etc=way, var=way)
    for name in ("etc", "var"):
        options = next(
            line.split()[3].split(",")
            for line in reversed(Path("/proc/mounts").read_text().splitlines())
            if line.split()[1] == str(root / name)
        )
        assert {"rw", "nosuid", "nodev"} <= set(options)
        assert "noexec" not in options
    script = root / "var/script"
    script.write_text("#!/bin/sh\nexit 7\n")
    script.chmod(0o755)
    assert subprocess.run([script], check=False).returncode == 7
