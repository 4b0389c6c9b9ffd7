"""What stays writable above a mounted image: the kernel is asked, and what must be gone is gone."""

import os
import stat
import subprocess
from pathlib import Path

import pytest

from cfsbuild.deploy.machine_id import keep_machine_id
from cfsbuild.deploy.mount import mount, unmount
from cfsbuild.deploy.spec import MountSpec
from cfsbuild.deploy.state import mount_state
from cfsbuild.erofs.writer import write_image
from cfsbuild.errors import VerificationError
from cfsbuild.fsverity.algorithm import Algorithm
from cfsbuild.tree.flavour import to_dump
from cfsbuild.tree.inode import Inode
from cfsbuild.tree.layer import Tree

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")


def tree():
    return Tree(
        entries={
            b"/": Inode(stat.S_IFDIR | 0o755),
            b"/etc": Inode(stat.S_IFDIR | 0o751, uid=3, gid=4),
            b"/etc/motd": Inode(stat.S_IFREG | 0o644, size=3, content=b"hi\n"),
            b"/var": Inode(stat.S_IFDIR | 0o1770, gid=5),
            b"/var/old": Inode(stat.S_IFREG | 0o644, size=2, content=b"o\n"),
        }
    )


class Machine:
    """An image that can be mounted again and again, as a machine boots again and again."""

    def __init__(self, directory):
        self.directory = directory
        self.target = directory / "root"
        self.base = directory / "disk"
        for path in (self.target, self.base, directory / "objects"):
            path.mkdir()
        self.up = []
        self.image(tree())

    def image(self, made):
        data = write_image(to_dump(made, epoch=1), format=1, algorithm=Algorithm.SHA256)
        (self.directory / "image.cfs").write_bytes(data)

    def boot(self, **ways):
        spec = MountSpec(
            image=str(self.directory / "image.cfs"), objects=(str(self.directory / "objects"),), verity="off"
        )
        mount(spec, self.target)
        self.up = [self.target]
        self.up += mount_state(self.target, ways, self.base, "state/m")
        return self.target

    def off(self):
        subprocess.run(["umount", "-R", "-l", self.target], check=False, capture_output=True)


@pytest.fixture
def machine(tmp_path):
    made = Machine(tmp_path)
    yield made
    made.off()


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


def identity(machine, way):
    root = machine.boot(etc=way)
    had = keep_machine_id(root, way, machine.base, "state/m")
    text = (root / "etc/machine-id").read_text() if (root / "etc/machine-id").exists() else ""
    machine.off()
    return had, text


@pytest.mark.parametrize("way", ["transient", "persistent", "bind"])
def test_a_machine_has_one_identity_made_at_its_first_boot(machine, way):
    first, second = identity(machine, way), identity(machine, way)
    assert first == second
    assert first[0]
    assert len(first[1].strip()) == 32
    assert set(first[1].strip()) <= set("0123456789abcdef")


def test_a_read_only_etc_shows_it_where_the_image_has_a_file(machine):
    assert identity(machine, "read-only") == (False, "")
    machine.image(
        Tree(
            entries={
                b"/": Inode(stat.S_IFDIR | 0o755),
                b"/etc": Inode(stat.S_IFDIR | 0o755),
                b"/etc/machine-id": Inode(stat.S_IFREG | 0o444),
            }
        )
    )
    first, second = identity(machine, "read-only"), identity(machine, "read-only")
    assert first == second
    assert len(first[1]) == 33


def test_an_identity_that_the_image_has_is_left_alone(machine):
    machine.image(
        Tree(
            entries={
                b"/": Inode(stat.S_IFDIR | 0o755),
                b"/etc": Inode(stat.S_IFDIR | 0o755),
                b"/etc/machine-id": Inode(stat.S_IFREG | 0o444, size=5, content=b"mine\n"),
            }
        )
    )
    assert identity(machine, "transient") == (True, "mine\n")
    assert not (machine.base / "state").exists()


@pytest.mark.parametrize("way", ["read-only", "transient", "persistent", "bind"])
def test_what_somebody_put_in_the_way_of_the_identity_is_neither_waited_for_nor_written_to(machine, way):
    kept = machine.base / {"persistent": "state/m/etc/upper", "bind": "state/m/etc"}.get(way, "state/m")
    kept.mkdir(parents=True)
    victim = machine.directory / "victim"
    victim.write_text("precious")
    os.mkfifo(kept / "machine-id")
    (kept / ".machine-id.new").hardlink_to(victim)
    root = machine.boot(etc=way)
    assert keep_machine_id(root, way, machine.base, "state/m") == (way != "read-only")
    assert len((kept / "machine-id").read_text()) == 33
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("way", ["transient", "persistent"])
def test_a_directory_in_the_place_of_the_identity_is_refused(machine, way):
    kept = machine.base / {"persistent": "state/m/etc/upper"}.get(way, "state/m")
    (kept / "machine-id").mkdir(parents=True)
    root = machine.boot(etc=way)
    with pytest.raises(VerificationError) as caught:
        keep_machine_id(root, way, machine.base, "state/m")
    assert caught.value.reason == "state"
    assert [path.name for path in kept.iterdir()] == ["machine-id"]


def test_an_identity_that_was_cut_off_half_way_is_made_again(machine):
    (machine.base / "state/m").mkdir(parents=True)
    (machine.base / "state/m/machine-id").write_text("\n")
    first = identity(machine, "transient")
    assert len(first[1]) == 33
    assert identity(machine, "transient") == first


def test_an_identity_that_is_a_link_is_not_read_through_it(machine):
    (machine.base / "state/m").mkdir(parents=True)
    (machine.directory / "secret").write_text("not an identity\n")
    (machine.base / "state/m/machine-id").symlink_to(machine.directory / "secret")
    assert len(identity(machine, "transient")[1]) == 33
    assert (machine.directory / "secret").read_text() == "not an identity\n"


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
