"""A virtual machine in QEMU with a software TPM: started, watched, and gone when it is over."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from cfsbuild.deploy import software_tpm
from cfsbuild.deploy.host_programs import end_program, find_program
from cfsbuild.deploy.machine_end import (
    Console,
    End,
    MachineError,
    Outcome,
    Reports,
    Take,
    outcome,
    panic_in,
    pump,
)
from cfsbuild.deploy.software_tpm import SWTPM
from cfsbuild.events import Listener

QEMU = "qemu-system-x86_64"
PACKAGES = {QEMU: "qemu-system-x86", "mkfs.ext4": "e2fsprogs", SWTPM: "swtpm"}
"""The Debian package of each program."""

REPORT = "cfsbuild.report"
"""The port over which a machine reports; `.out` and `.err` are those of what runs in it."""

EMULATED_CPU = "Haswell-noTSX,-cx16,-pcid,-x2apic,-tsc-deadline,-invpcid"
"""What Debian's programs need. With cx16, kernels crash in the emulator of QEMU 7.2; the rest it has not."""

_CONSOLE = "console"

_MACHINE = "x86_64"


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """A virtual machine. `memory` in MiB; `tpm` is a directory for the TPM's state, None for no TPM.

    Without `interactive` nothing is connected to the terminal.
    """

    kernel: Path
    initrd: Path
    disk: Path
    memory: int
    cpus: int
    kvm: bool
    tpm: Path | None
    interactive: bool
    seconds: float | None = None


def check_programs(names: tuple[str, ...]) -> None:
    """Raise `MachineError` if one of the programs `names` is not installed, or if none would help."""
    if os.uname().machine != _MACHINE:
        raise MachineError(
            f"machines are {_MACHINE}, and this one is {os.uname().machine}",
            details="the initramfs takes its programs from here",
            reason="architecture",
        )
    absent = [name for name in names if find_program(name) is None]
    if absent:
        raise MachineError(
            f"not installed: {', '.join(absent)}",
            resolution=f"apt-get install {' '.join(PACKAGES[name] for name in absent)}",
            reason="not-installed",
        )


def run_machine(machine: Machine, *, out: Take, err: Take, listener: Listener) -> Outcome:
    """Run a machine until it is switched off. `out` and `err` take what its command writes.

    `listener` hears of the steps that the machine takes, and once that it has started. Raises `MachineError`
    if it cannot be started, does not report, panics, or takes longer than `seconds`; what the machine itself
    reports as a failure is raised with its reason and exit code. Nothing is left.
    """
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cfsbuild-vm-")))
        tpm = stack.enter_context(software_tpm.for_machine(machine.tpm, scratch)) if machine.tpm else None
        ports = {
            name: stack.enter_context(_Port(name)) for name in (REPORT, f"{REPORT}.out", f"{REPORT}.err")
        }
        if machine.interactive:
            stack.enter_context(_terminal_kept())
        console = stack.enter_context(Console(scratch / _CONSOLE))
        log = stack.enter_context((scratch / "qemu.log").open("w+b"))
        process = _start(machine, _command(machine, scratch, tpm), ports.values(), log)
        stack.callback(end_program, process)
        reports = Reports(listener, began)
        takes = {REPORT: reports.take, f"{REPORT}.out": out, f"{REPORT}.err": err}
        try:
            pump([(ports[name].ours, take) for name, take in takes.items()], console, machine.seconds)
        except MachineError as error:
            error.details = reports.doing
            raise
        status = process.wait()
        console.read_all()
        log.seek(0)
        texts = ("" if machine.interactive else console.text, log.read().decode(errors="replace"))
        ended = End(
            reports=reports.all(),
            doing=reports.doing,
            panic=panic_in(console.text),
            status=status,
            texts=texts,
            interactive=machine.interactive,
        )
        return outcome(ended, seconds=time.monotonic() - began)


def _start(
    machine: Machine, command: Iterable[str], ports: Collection[_Port], log: BinaryIO
) -> subprocess.Popen[bytes]:
    """Start QEMU, which alone has the other ends of `ports` then."""
    process = subprocess.Popen(
        [*command, *(word for port in ports for word in port.options())],
        stdin=None if machine.interactive else subprocess.DEVNULL,
        stdout=None if machine.interactive else log,
        stderr=log,
        pass_fds=[port.theirs.fileno() for port in ports],
    )
    for port in ports:
        port.theirs.close()
    return process


def _command(machine: Machine, scratch: Path, tpm: Path | None) -> Iterator[str]:
    yield from (find_program(QEMU) or QEMU, "-machine", f"q35,accel={'kvm' if machine.kvm else 'tcg'}")
    yield from ("-cpu", "host" if machine.kvm else EMULATED_CPU, "-smp", str(machine.cpus))
    yield from ("-m", str(machine.memory), "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot")
    yield from ("-kernel", str(machine.kernel), "-initrd", str(machine.initrd))
    yield from ("-append", "console=ttyS0 panic=-1 loglevel=4")
    console = _escaped(scratch / _CONSOLE)
    if machine.interactive:
        yield from ("-chardev", f"stdio,id=console,signal=on,logfile={console}")
    else:
        yield from ("-chardev", f"file,id=console,path={console}")
    yield from ("-serial", "chardev:console", "-device", "virtio-serial-pci")
    yield from ("-drive", f"file={_escaped(machine.disk)},if=virtio,format=raw,cache=writeback")
    if tpm is not None:
        yield from (
            "-chardev",
            f"socket,id=tpm,path={_escaped(tpm)}",
            "-tpmdev",
            "emulator,id=tpm0,chardev=tpm",
        )
        yield from ("-device", "tpm-tis,tpmdev=tpm0")


def _escaped(path: Path) -> str:
    """Return a path as QEMU wants it among options."""
    return str(path).replace(",", ",,")


class _Port:
    """A virtio port: a pair of sockets, one of which QEMU inherits."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.ours, self.theirs = socket.socketpair()

    def __enter__(self) -> _Port:
        return self

    def __exit__(self, *exception: object) -> None:
        self.ours.close()
        self.theirs.close()

    def options(self) -> tuple[str, ...]:
        """Return QEMU's options for this port."""
        name = self._name
        return (
            *("-chardev", f"socket,id={name},fd={self.theirs.fileno()}"),
            *("-device", f"virtserialport,chardev={name},name={name}"),
        )


@contextlib.contextmanager
def _terminal_kept() -> Iterator[None]:
    """Put the terminal back to how it was, whatever QEMU did to it."""
    import termios  # noqa: PLC0415 (only for a machine on a terminal)

    try:
        before = termios.tcgetattr(0)
    except termios.error:  # standard input is no terminal
        yield
        return
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
