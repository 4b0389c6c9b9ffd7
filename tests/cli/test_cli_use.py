"""mount, umount, shell: an image as a directory tree. Needs root, and a kernel that mounts EROFS from files."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cfsbuild.cli.umount import mounted_source
from cfsbuild.store.store import Store

BUSYBOX = shutil.which("busybox")


def _has_erofs():
    known = "erofs" in Path("/proc/filesystems").read_text()
    return (
        known or subprocess.run(["modprobe", "-n", "erofs"], capture_output=True, check=False).returncode == 0
    )


can_mount = pytest.mark.skipif(
    os.geteuid() != 0 or not _has_erofs(), reason="mounting needs root and a kernel with EROFS"
)


@pytest.fixture
def target(lab):
    place = lab.directory / "m n\tt"
    place.mkdir()
    yield place
    with contextlib.suppress(subprocess.CalledProcessError):
        subprocess.run(["umount", place], check=True, capture_output=True)


@pytest.fixture
def rootfs(lab, run):
    """An image that has /bin/busybox, in the store as `rootfs`."""
    if (
        BUSYBOX is None
        or b"statically"
        not in subprocess.run(["file", "-L", BUSYBOX], capture_output=True, check=True).stdout
    ):
        pytest.skip("busybox is not statically linked, so it does not run alone")
    data = Path(BUSYBOX).read_bytes()
    with Store.open(lab.store) as store, store.transaction() as transaction:
        digest = transaction.add_bytes(data).hex()
        transaction.commit()
    lines = [
        "/ 4096 40755 5 0 0 0 0.0 - - -",
        "/bin 0 40755 2 0 0 0 0.0 - - -",
        f"/bin/busybox {len(data)} 100755 1 0 0 0 0.0 {digest[:2]}/{digest[2:]} - {digest}",
        "/bin/sh 7 120777 1 0 0 0 0.0 busybox - -",
        r"/bin/tool 11 100755 1 0 0 0 0.0 - #!/no/such\n -",
        "/etc 0 40755 2 0 0 0 0.0 - - -",
        r"/etc/hostname 5 100644 1 0 0 0 0.0 - edge\n -",
        "/proc 0 40755 2 0 0 0 0.0 - - -",
    ]
    (lab.directory / "rootfs.dump").write_text("\n".join(lines) + "\n")
    assert run("import", "rootfs.dump").status == 0
    return "rootfs"


@can_mount
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv is not installed")
def test_who_may_not_mount_is_told_that_only_root_may(lab, target):
    lab.image()
    program = ["setpriv", "--bounding-set=-sys_admin", sys.executable, "-m", "cfsbuild"]
    done = subprocess.run(
        [*program, "mount", "a.cfs", target],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 7
    assert "Operation not permitted" in done.stderr
    assert "hint: the kernel lets only root do that: try with sudo" in done.stderr


@can_mount
def test_a_mounted_image_is_the_tree_and_unmounts_again(lab, run, target):
    lab.image()
    outcome = run("mount", "a.cfs", target)
    assert outcome.status == 0, outcome.err
    assert (target / "usr/bin/tool").read_bytes() == lab.content
    assert (target / "etc/hostname").read_text() == "edge\n"
    assert (target / "bin").readlink() == Path("usr/bin")
    assert run("umount", target) == (0, b"", "")
    assert list(target.iterdir()) == []


@can_mount
def test_mount_says_whether_the_kernel_checks_contents(lab, run, target):
    lab.image()
    outcome = run("mount", "--json", "a.cfs", target)
    document = outcome.json
    assert document["target"] == str(target)
    assert document["enforced"] or document["why_not"]
    run("umount", target)
    text = run("mount", "a.cfs", target)
    assert bool(text.err) is not document["enforced"]
    assert "does not check contents" in text.err or document["enforced"]


@can_mount
def test_changes_go_to_the_upper_directory(lab, run, target):
    lab.image()
    for name in ("upper", "work-dir"):
        (lab.directory / name).mkdir()
    outcome = run("mount", "--upper", "upper", "--work", "work-dir", "a.cfs", target)
    if outcome.status:
        assert "upper" in outcome.err or "cannot mount" in outcome.err
        pytest.skip(f"this file system cannot be an overlay's upper: {outcome.err.splitlines()[0]}")
    (target / "etc/new").write_text("x")
    assert run("umount", target).status == 0
    assert (lab.directory / "upper/etc/new").read_text() == "x"


def test_a_mount_can_be_described_without_root(lab, run, target):
    lab.image()
    document = run("mount", "-n", "--verity", "require", "a.cfs", target).json
    assert document["image"] == str(lab.directory / "a.cfs")
    assert document["objects"] == [str(lab.store / "objects")]
    assert document["verity"] == "require"
    assert len(document["digest"]) == 64


def test_an_upper_without_a_work_directory_is_a_usage_error(lab, run, target):
    lab.image()
    outcome = run("mount", "-n", "--upper", "x", "a.cfs", target)
    assert outcome.status == 2
    assert "go together" in outcome.err


def test_an_image_without_objects_cannot_be_mounted(lab, run, target):
    lab.image()
    shutil.rmtree(lab.store)
    outcome = run("mount", "-n", "a.cfs", target)
    assert outcome.status == 2
    assert "--objects" in outcome.err


def test_umount_refuses_what_is_no_image(lab, run, target):
    outcome = run("umount", target)
    assert outcome.status == 2
    assert "nothing is mounted there" in outcome.err
    outcome = run("umount", "/proc")
    assert outcome.status == 2
    assert "it is a mount of proc" in outcome.err


def test_mount_points_with_odd_names_are_found_in_mountinfo():
    text = "1 2 0:1 / /a\\040b rw - overlay composefs rw\n2 2 0:1 / /a rw shared:1 - ext4 /dev/x rw\n"
    assert mounted_source(Path("/a b"), text) == "composefs"
    assert mounted_source(Path("/a"), text) == "/dev/x"
    assert mounted_source(Path("/b"), text) == ""


@can_mount
def test_shell_runs_a_command_in_the_image_and_keeps_its_status(run, rootfs, capfdbinary):
    outcome = run("shell", rootfs, "/bin/busybox", "cat", "/etc/hostname")
    assert (outcome.status, outcome.out) == (0, b"edge\n")
    assert run("shell", rootfs, "/bin/sh", "-c", "exit 42").status == 42
    assert run("shell", rootfs, "/bin/sh", "-c", "kill -9 $$").status == 128 + signal.SIGKILL
    missing = run("shell", rootfs, "/no/such")
    assert missing.status == 127
    assert "not found in the image" in missing.err
    for command in ("/bin/tool", "tool"):
        without_interpreter = run("shell", rootfs, command)
        assert without_interpreter.status == 127
        assert f"{command}: its interpreter" in without_interpreter.err


@can_mount
def test_shell_leaves_nothing_mounted_and_changes_nothing(run, rootfs):
    assert (
        run("shell", "-w", rootfs, "/bin/sh", "-c", "echo x > /etc/hostname; busybox cat /etc/hostname").out
        == b"x\n"
    )
    assert run("shell", rootfs, "/bin/sh", "-c", "echo x > /etc/hostname").status != 0
    assert "cfsbuild-shell-" not in Path("/proc/self/mountinfo").read_text()
    assert run("cat", rootfs, "/etc/hostname").out == b"edge\n"


def test_an_image_with_another_digest_than_expected_is_not_mounted(lab, run, target):
    lab.image()
    outcome = run("mount", "--digest", "0" * 64, "a.cfs", target)
    assert outcome.status == 5
    assert "does not have the digest" in outcome.err
    right = run("verify", "--json", "a.cfs").json["digest"]
    assert run("mount", "-n", "--digest", right.upper(), "a.cfs", target).status == 0


@pytest.mark.parametrize("verity", ["off", "try"])
def test_verity_that_nothing_here_has_is_not_asked_for(lab, run, target, verity):
    lab.image()
    document = run("mount", "-n", "--verity", verity, "a.cfs", target).json
    assert document["verity"] in ({"off"} if verity == "off" else {"off", "require"})
    assert bool(document["digest"]) is (document["verity"] == "require")
