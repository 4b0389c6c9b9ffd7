"""`cfsbuild vm`: an image boots, the kernel checks what is read, and whatever is changed on the disk is found."""

import fcntl
import hashlib
import os
import pty
import select
import shutil
import signal
import subprocess
import termios
import time
from pathlib import Path

import msgspec
import pytest
import vm
from booting import APPLIANCE, another_disk, boot, command_line, environment

pytestmark = [pytest.mark.vm, pytest.mark.slow]

COMMAND = """\
cat /proc/mounts
cat /etc/motd
sha256sum /bin/busybox
echo to-the-other >&2
touch /new || echo read-only
/bin/busybox find / -xdev -type f -exec /bin/busybox cat {} + >/dev/null && echo read-all
ls /dev/tpmrm0
cat /sys/class/tpm/tpm0/pcr-sha256/15
ls /init /etc/cfsbuild 2>/dev/null | wc -l
exit 7
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    vm.require()
    return tmp_path_factory.mktemp("boots")


@pytest.fixture(scope="module")
def booted(home):
    return boot(home, "--keep", home / "disk", "--exec", COMMAND, "--json")


@pytest.fixture(scope="module")
def said(booted):
    assert booted.stdout, booted.stderr
    return msgspec.json.decode(booted.stdout)


def test_the_exit_status_is_that_of_the_command(booted, said):
    assert booted.returncode == 7
    assert said["status"] == 7


def test_the_kernel_checks_whatever_is_read(said):
    (root,) = [line for line in said["stdout"].splitlines() if line.startswith("composefs / ")]
    assert "verity=require" in root
    assert root.split()[3].startswith("ro,")
    assert "read-only" in said["stdout"]


def test_files_have_their_contents(said):
    busybox = subprocess.run(["sha256sum", "/bin/busybox"], capture_output=True, text=True, check=True).stdout
    assert busybox in said["stdout"]
    assert "Whatever is read is checked by the kernel" in said["stdout"]


def test_every_file_can_be_read(said):
    assert "read-all" in said["stdout"].splitlines()


def test_output_and_errors_come_apart(said):
    assert "to-the-other" not in said["stdout"]
    assert "to-the-other\n" in said["stderr"]


def test_nothing_of_the_initramfs_is_left(said):
    assert said["stdout"].splitlines()[-1] == "0"


def test_the_machine_has_a_tpm_where_there_is_a_software_one(said):
    assert said["tpm"] == (shutil.which("swtpm") is not None)
    assert ("/dev/tpmrm0" in said["stdout"].splitlines()) == said["tpm"]


def test_the_mount_is_recorded_in_pcr_15(said):
    if not said["tpm"]:
        pytest.skip("swtpm is not installed")
    event = f"cfsbuild:appliance-1:fsverity-sha256-12:{said['digest']}".encode()
    value = hashlib.sha256(bytes(32) + hashlib.sha256(event).digest()).hexdigest().upper()
    assert value in said["stdout"].splitlines()


def test_it_says_how_far_it_is(booted):
    lines = booted.stderr.splitlines()
    told = [line.removeprefix("booting: ") for line in lines if line.startswith("booting: ")]
    assert [text.split()[0] for text in told][:3] == ["the", "waiting", "opening"]
    assert [text.split()[0] for text in told][-1] == "mounting"
    assert lines[-1].startswith("booted in ")


def test_a_kernel_that_panics_while_the_command_runs_is_a_failure(home, booted):
    result = boot(home, "--no-tpm", "--exec", "echo c >/proc/sysrq-trigger; sleep 100", "--json")
    assert result.returncode == 1, result.stderr
    error = msgspec.json.decode(result.stderr.splitlines()[-1])["error"]
    assert (error["reason"], "sysrq triggered crash" in error["brief"]) == ("panic", True)


def test_an_init_that_dies_is_a_failure(home, booted):
    terminal = Terminal(home, "--no-tpm", "--init", "/bin/sh")
    terminal.wait_for("# ")
    terminal.type("exit\r")
    terminal.wait_for("the machine's kernel panics: Attempted to kill init!")
    assert terminal.process.wait(20) == 1


def test_an_image_with_digests_of_sha512_boots_as_well(home):
    recipe = home / "sha512.toml"
    recipe.write_text(f'include = ["{APPLIANCE}"]\n[image]\nname = "long"\ndigest = "sha512"\n')
    store = ("--store", home / "other-store")
    result = boot(home, *store, "--no-tpm", "--exec", "grep -c verity=require /proc/mounts", recipe=recipe)
    assert (result.returncode, result.stdout) == (0, "1\n"), result.stderr


def test_a_bit_that_changes_on_the_disk_is_an_io_error(home, booted):
    disk = home / "disk"
    flip(disk)
    result = boot(home, "--keep", disk, "--exec", "cat /etc/motd", "--no-tpm")
    assert result.returncode == 1
    assert result.stdout == ""
    assert "read error: Input/output error" in result.stderr or "I/O error" in result.stderr


def test_an_object_that_never_was_what_it_is_called_stops_the_machine(home, said):
    disk = another_disk(home, said, "other")
    flip(disk)
    result = boot(home, "--keep", disk, "--exec", "true", "--no-tpm", "--json")
    assert result.returncode == 5
    assert msgspec.json.decode(result.stderr.splitlines()[-1])["error"]["reason"] == "object-digest"


def test_a_forged_note_that_verity_is_on_gains_nothing(home, said):
    disk = another_disk(home, said, "forged")
    request = f"write /dev/null .fs-verity-{said['digest']}"
    subprocess.run(["debugfs", "-w", "-R", request, disk], check=True, capture_output=True)
    result = boot(home, "--keep", disk, "--exec", "true", "--no-tpm", "--json")
    assert result.returncode == 5
    assert msgspec.json.decode(result.stderr.splitlines()[-1])["error"]["reason"] == "image-no-verity"


def children(process):
    """Return the ids of a process's children, by the name of their program."""
    listed = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return {Path(f"/proc/{child}/comm").read_text().strip(): int(child) for child in listed}


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_machine_and_leaves_nothing(home, booted, number, status):
    arguments = command_line("--exec", "sleep 1000", "--cpus", "2", "--memory", "512")
    process = subprocess.Popen(
        arguments, env=environment(home), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 60
    while not any((home / "tmp").glob("cfsbuild-vm-*/console")):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    running = children(process.pid)
    assert any(name.startswith("qemu") for name in running)
    process.send_signal(number)
    _, told = process.communicate(timeout=30)
    assert process.returncode == status, told
    assert not [child for child in running.values() if Path(f"/proc/{child}").exists()]
    assert list((home / "tmp").iterdir()) == []


def test_a_machine_that_takes_too_long_is_ended(home, booted):
    result = boot(home, "--exec", "true", "--timeout", "1", "--no-tpm")
    assert result.returncode == 1
    assert "the machine was still running after 1 s" in result.stderr
    assert list((home / "tmp").iterdir()) == []


def flip(disk):
    """Change one letter of a file where it lies on the disk."""
    content = bytearray(disk.read_bytes())
    assert content.count(b"This machine runs from") == 1
    content[content.index(b"This machine runs from")] ^= 0x20
    disk.write_bytes(content)


class Terminal:
    """`cfsbuild vm` on a terminal, and what it shows."""

    def __init__(self, home, *arguments):
        self.ours, theirs = pty.openpty()
        self.before = termios.tcgetattr(theirs)
        self.theirs = theirs
        self.seen = ""
        self.process = subprocess.Popen(
            command_line(*arguments),
            env=environment(home) | {"TERM": "dumb"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 (no threads here)
        )

    def wait_for(self, text, seconds=90):
        deadline = time.monotonic() + seconds
        while text not in self.seen:
            ready, _, _ = select.select([self.ours], [], [], max(0, deadline - time.monotonic()))
            assert ready, self.seen
            self.seen += os.read(self.ours, 4096).decode(errors="replace")

    def type(self, text):
        os.write(self.ours, text.encode())


def test_the_console_is_the_terminal(home, booted):
    terminal = Terminal(home, "--no-tpm")
    terminal.wait_for("appliance# ")
    terminal.type("echo $((6 * 7)) answers; tty\r")
    terminal.wait_for("42 answers")
    terminal.wait_for("/dev/ttyS0")
    terminal.type("exit\r")
    terminal.wait_for("Power down")
    assert terminal.process.wait(20) == 0
    assert termios.tcgetattr(terminal.theirs) == terminal.before


def test_ctrl_c_on_the_console_ends_the_machine(home, booted):
    terminal = Terminal(home, "--no-tpm")
    terminal.wait_for("Ctrl-C ends the machine")
    time.sleep(1)
    terminal.type("\x03")
    assert terminal.process.wait(20) == 130
    assert termios.tcgetattr(terminal.theirs) == terminal.before
    assert list((home / "tmp").iterdir()) == []
