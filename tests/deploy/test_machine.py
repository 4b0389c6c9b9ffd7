"""How a machine ended, by what it reported and what its console shows."""

import sys

import pytest

from cfsbuild.deploy.machine import Machine, panic_in, run_machine
from cfsbuild.errors import CfsError
from cfsbuild.events import BootFinished, BootStep

PANIC = "[    8.12] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100\r\n[    8.12] CPU: 0\r\n"


def test_a_panic_is_found_where_the_console_ends_with_one():
    assert panic_in(f"hello\r\n{PANIC}") == "Attempted to kill init! exitcode=0x00000100"


@pytest.mark.parametrize(
    "console",
    [
        "",
        "[    9.00] reboot: Power down\r\n",
        "we once saw: [ 8.12] Kernel panic - not syncing: x\r\n",
        f"{PANIC}[    9.00] reboot: Power down\r\n",
    ],
)
def test_a_machine_that_was_switched_off_did_not_panic(console):
    assert panic_in(console) == ""


STARTED = '{"event":"started","type":"cfsbuild.boot-report","v":1}\n'
EXITED = '{"event":"exited","status":3,"type":"cfsbuild.boot-report","v":1}\n'
STEP = '{"brief":"opening","event":"progress","type":"cfsbuild.boot-report","v":1}\n'

QEMU = """\
#!$PYTHON -S
import os, sys
words = dict(word.rpartition("=")[::2] for word in sys.argv)
with open(words["file,id=console,path"], "w") as console:
    console.write($CONSOLE)
os.write(int(words["socket,id=cfsbuild.report,fd"]), $REPORTS)
"""


@pytest.fixture
def ended(tmp_path, monkeypatch):
    """Run a machine whose QEMU is a script that writes what a test says; return how it went."""

    def run(reports, console=""):
        program = tmp_path / "qemu-system-x86_64"
        text = QEMU.replace("$PYTHON", sys.executable).replace("$CONSOLE", repr(console))
        program.write_text(text.replace("$REPORTS", repr(reports.encode())))
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
            interactive=False,
        )
        heard = []
        try:
            outcome = run_machine(machine, out=print, err=print, listener=heard.append)
        except CfsError as error:
            return error.reason, heard
        return outcome.status, heard

    return run


def test_the_status_is_the_one_that_is_reported_and_steps_are_heard(ended):
    status, heard = ended(STEP + STARTED + EXITED)
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
    ],
)
def test_a_machine_that_does_not_say_how_it_ended_is_a_failure(ended, reports, console, reason):
    assert ended(reports, console)[0] == reason


def test_a_panic_after_the_command_has_ended_changes_nothing(ended):
    assert ended(STARTED + EXITED, PANIC)[0] == 3
