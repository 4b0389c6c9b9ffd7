"""How a machine ended, by what it reported, what its console shows, and how QEMU ended."""

import socket
import sys

import pytest

from cfsbuild.deploy.machine import Machine, run_machine
from cfsbuild.deploy.machine_end import Console, Reports, panic_in, pump
from cfsbuild.errors import CfsError, InputError
from cfsbuild.events import BootFinished, BootStep

PANIC = "Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100\r\n[    8.12] CPU: 0\r\n"
WHY = "Attempted to kill init! exitcode=0x00000100"
OFF = "[    9.00] reboot: Power down\r\n"


@pytest.mark.parametrize(
    "before", ["", "[    8.12] ", "login: [    8.12] ", "\x1b[?2004l\r[    8.12][    T1] "]
)
def test_a_panic_is_found_wherever_on_the_console_it_begins(before):
    assert panic_in(f"hello\r\n{before}{PANIC}") == WHY


@pytest.mark.parametrize("console", ["", OFF, f"[    8.12] {PANIC}{OFF}"])
def test_a_machine_that_was_switched_off_did_not_panic(console):
    assert panic_in(console) == ""


def test_what_a_kernel_says_as_it_panics_drives_no_terminal_and_is_short():
    found = panic_in("Kernel panic - not syncing: \x1b[2J" + "x" * 1000)
    assert found.startswith("\\x1b[2Jxxx")
    assert len(found) == 200


def report(event, more=""):
    return f'{{"event":"{event}",{more}"type":"cfsbuild.boot-report","v":1}}\n'


STARTED = report("started")
EXITED = report("exited", '"status":3,')
STEP = report("progress", '"brief":"opening",')

QEMU = """\
#!$PYTHON -S
import os, sys
words = dict(word.rpartition("=")[::2] for word in sys.argv)
path = words.get("file,id=console,path") or words["stdio,id=console,signal=on,logfile"]
with open(path, "w") as console:
    console.write($CONSOLE)
    console.flush()
    os.write(int(words["socket,id=cfsbuild.report,fd"]), $REPORTS)
sys.exit($STATUS)
"""


@pytest.fixture
def ended(tmp_path, monkeypatch):
    """Run a machine whose QEMU is a script that writes what a test says; return how it went."""

    def run(reports, console="", *, status=0, interactive=False):
        program = tmp_path / "qemu-system-x86_64"
        text = QEMU
        for name, value in (
            ("$PYTHON", sys.executable),
            ("$CONSOLE", repr(console)),
            ("$REPORTS", repr(reports.encode())),
            ("$STATUS", str(status)),
        ):
            text = text.replace(name, value)
        program.write_text(text)
        program.chmod(0o755)
        monkeypatch.setattr("cfsbuild.deploy.machine.find_program", lambda _: str(program))
        machine = Machine(
            kernel=tmp_path,
            initrd=tmp_path,
            disk=tmp_path,
            memory=1,
            cpus=1,
            kvm=False,
            tpm=None,
            interactive=interactive,
        )
        heard = []
        try:
            outcome = run_machine(machine, out=print, err=print, listener=heard.append)
        except CfsError as error:
            return error, heard
        return outcome.status, heard

    return run


def test_the_status_is_the_one_that_is_reported_and_steps_are_heard(ended):
    status, heard = ended(STEP + STARTED + EXITED, status=1)
    assert status == 3
    assert heard[0] == BootStep(text="opening")
    assert [type(one) for one in heard] == [BootStep, BootFinished]


@pytest.mark.parametrize(
    ("reports", "console", "reason"),
    [
        ("", "", "no-report"),
        (STEP, "", "no-report"),
        (STARTED, "", "no-exit"),
        (STARTED, PANIC, "panic"),
        ("", PANIC, "panic"),
        ("nonsense\n", "", "boot-report"),
        (STARTED[:20], "", "boot-report"),
        (STEP * 1000, "", "boot-report"),
        (STARTED * 2, "", "boot-report"),
        (STARTED + STEP, "", "boot-report"),
        (EXITED, "", "boot-report"),
        (STARTED + EXITED + STARTED, "", "boot-report"),
        (STARTED + report("failed", '"reason":"exec",'), "", "exec"),
    ],
)
@pytest.mark.parametrize("interactive", [False, True])
def test_a_machine_that_does_not_say_how_it_ended_is_a_failure(ended, reports, console, reason, interactive):
    found, _ = ended(reports, console, interactive=interactive)
    if interactive and reason == "no-exit":
        assert found == 0
    else:
        assert found.reason == reason


def test_a_long_log_behind_a_panic_hides_it_not(ended):
    assert ended(STARTED, PANIC + "[    8.12] trace\r\n" * 3000, interactive=True)[0].reason == "panic"


def test_the_last_step_is_told_where_a_machine_stops(ended):
    error, _ = ended(STEP, "some words\r\n")
    assert error.details == "some words\nits last step: opening"


def test_a_panic_after_the_command_has_ended_changes_nothing(ended):
    assert ended(STARTED + EXITED, PANIC)[0] == 3


def test_qemu_that_is_killed_is_no_machine_that_was_switched_off(ended):
    error, _ = ended(STARTED, interactive=True, status=1)
    assert (error.reason, error.brief) == ("qemu", "QEMU ended with status 1")


def test_that_a_machine_has_started_is_told_before_what_its_command_writes(tmp_path):
    came = []
    pairs = [socket.socketpair() for _ in range(3)]
    for number, (_, theirs) in reversed(list(enumerate(pairs))):
        theirs.send(b"%d" % number)
        theirs.close()
    with Console(tmp_path / "console") as console:
        pump([(ours, came.append) for ours, _ in pairs], console, 10)
    assert came == [b"0", b"1", b"2"]
    for ours, _ in pairs:
        ours.close()


def test_reports_may_come_in_pieces_and_drive_no_terminal():
    heard = []
    reports = Reports(heard.append, 0.0)
    data = report("progress", '"brief":"a\u009b\u202e\\u001b[2J\\nb' + "x" * 500 + '",').encode()
    for byte in data:
        reports.take(bytes([byte]))
    (step,) = heard
    assert step.text.startswith("a\\x9b\\u202e\\x1b[2J bxxx")
    assert len(step.text) == 200
    with pytest.raises(InputError):
        reports.take(b"{}\n")
