"""A machine's identity: made once, kept where the machine keeps its state, never taken from who may write there."""

import os
import stat

import pytest

from cfsbuild.deploy.machine_id import keep_machine_id
from cfsbuild.errors import VerificationError
from cfsbuild.tree.inode import Inode
from cfsbuild.tree.layer import Tree

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")


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
