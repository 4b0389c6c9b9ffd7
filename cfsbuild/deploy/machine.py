"""A virtual machine in QEMU with a software TPM: started, watched, and gone when it is over."""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from cfsbuild.deploy import boot_report, software_tpm
from cfsbuild.deploy.boot_report import BootReport
from cfsbuild.deploy.host_programs import end_program, find_program
from cfsbuild.deploy.software_tpm import SWTPM
from cfsbuild.errors import CfsError, InputError, StoreError, VerificationError
from cfsbuild.events import BootFinished, BootStep, Listener

QEMU = "qemu-system-x86_64"
PACKAGES = {QEMU: "qemu-system-x86", "mkfs.ext4": "e2fsprogs", SWTPM: "swtpm"}
"""The Debian package of each program."""

REPORT = "cfsbuild.report"
"""The port over which a machine reports; `.out` and `.err` are those of what runs in it."""

EMULATED_CPU = "Haswell-noTSX,-cx16,-pcid,-x2apic,-tsc-deadline,-invpcid"
"""What Debian's programs need. With cx16, kernels crash in the emulator of QEMU 7.2; the rest it has not."""

CONSOLE = "console"
"""The file that has what a machine wrote to its console."""

_PANIC = re.compile(r"^\[ *\d+\.\d+\] Kernel panic - not syncing: (.*)", re.MULTILINE)
_REBOOT = re.compile(r"^\[ *\d+\.\d+\] reboot: ", re.MULTILINE)

_MACHINE = "x86_64"
_CONSOLE_BYTES = 1 << 14

Take = Callable[[bytes], None]


class MachineError(CfsError):
    """A machine cannot be started, or ended before it said how."""

    exit_code = 1


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


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a machine ended: the exit status of what ran in it, and seconds from its start to its end."""

    status: int
    seconds: float


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

    Raises `MachineError` if it cannot be started, does not report, panics, or takes longer than `seconds`;
    what the machine itself reports as a failure is raised with its reason and exit code. Nothing is left.
    """
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cfsbuild-vm-")))
        tpm = stack.enter_context(software_tpm.for_machine(machine.tpm, scratch)) if machine.tpm else None
        ports = {
            name: stack.enter_context(_Port(name)) for name in (REPORT, f"{REPORT}.out", f"{REPORT}.err")
        }
        command = [
            *_command(machine, scratch, tpm),
            *(word for port in ports.values() for word in port.options()),
        ]
        if machine.interactive:
            stack.enter_context(_terminal_kept())
        log = stack.enter_context((scratch / "qemu.log").open("wb"))
        process = subprocess.Popen(
            command,
            stdin=None if machine.interactive else subprocess.DEVNULL,
            stdout=None if machine.interactive else log,
            stderr=log,
            pass_fds=[port.theirs.fileno() for port in ports.values()],
        )
        stack.callback(end_program, process)
        for port in ports.values():
            port.theirs.close()
        reports = _Reports(listener, began)
        takes = {REPORT: reports.take, f"{REPORT}.out": out, f"{REPORT}.err": err}
        _pump({ports[name].ours: take for name, take in takes.items()}, machine.seconds)
        process.wait()
        return _outcome(reports.all(), machine, scratch, time.monotonic() - began)


def failure(report: BootReport) -> CfsError:
    """Return the error that a machine reports."""
    kinds: dict[int, type[CfsError]] = {5: VerificationError, 7: StoreError}
    return kinds.get(report.exit_code, MachineError)(
        f"the machine cannot start: {report.brief}", details=report.details, reason=report.reason
    )


def _command(machine: Machine, scratch: Path, tpm: Path | None) -> Iterator[str]:
    yield from (find_program(QEMU) or QEMU, "-machine", f"q35,accel={'kvm' if machine.kvm else 'tcg'}")
    yield from ("-cpu", "host" if machine.kvm else EMULATED_CPU, "-smp", str(machine.cpus))
    yield from ("-m", str(machine.memory), "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot")
    yield from ("-kernel", str(machine.kernel), "-initrd", str(machine.initrd))
    yield from ("-append", "console=ttyS0 panic=-1 loglevel=4")
    console = _escaped(scratch / CONSOLE)
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


class _Reports:
    """The reports of a machine, as they come; it may send what it likes."""

    def __init__(self, listener: Listener, began: float) -> None:
        self._listener = listener
        self._began = began
        self._line = bytearray()
        self._bytes = 0
        self._reports: list[BootReport] = []

    def take(self, data: bytes) -> None:
        """Take what came. Raises `InputError` for what is no report, or too much."""
        self._bytes += len(data)
        if self._bytes > boot_report.REPORT_BYTES:
            raise InputError("the machine reports too much", reason="boot-report")
        *lines, rest = (bytes(self._line) + data).split(b"\n")
        self._line = bytearray(rest)
        for line in lines:
            self._add(boot_report.decode(line))

    def all(self) -> list[BootReport]:
        """Return the reports but those of progress. Raises `InputError` if the last is not whole."""
        if self._line:
            self._add(boot_report.decode(bytes(self._line)))
        return self._reports

    def _add(self, report: BootReport) -> None:
        if report.event == "progress":
            self._listener(BootStep(text=report.brief))
            return
        if report.event == "started":
            self._listener(BootFinished(seconds=time.monotonic() - self._began))
        self._reports.append(report)


def _pump(takes: dict[socket.socket, Take], seconds: float | None) -> None:
    """Hand on what comes over the ports, until all are closed."""
    deadline = None if seconds is None else time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        for port, take in takes.items():
            selector.register(port, selectors.EVENT_READ, take)
        while selector.get_map():
            left = None if deadline is None else deadline - time.monotonic()
            ready = selector.select(left) if left is None or left > 0 else []
            if not ready:
                raise MachineError(f"the machine was still running after {seconds:.0f} s", reason="timeout")
            # By age: that the machine has started is told before anything that its command writes.
            for key, _ in sorted(ready, key=lambda one: one[0].fd):
                data = os.read(key.fd, 1 << 16)
                if data:
                    key.data(data)
                else:
                    selector.unregister(key.fileobj)


def _outcome(reports: list[BootReport], machine: Machine, scratch: Path, seconds: float) -> Outcome:
    """Return how it went, by what the machine reported. Raises what `run_machine` does."""
    failed = next((report for report in reports if report.event == "failed"), None)
    if failed is not None:
        raise failure(failed)
    console = _end(scratch / CONSOLE)
    panic = panic_in(console)
    ended = bool(reports) and (machine.interactive or reports[-1].event == "exited")
    if ended and (reports[-1].event == "exited" or not panic):
        return Outcome(status=reports[-1].status, seconds=seconds)
    if panic:
        brief, reason = f"the machine's kernel panics: {panic}", "panic"
    elif reports:
        brief, reason = "the machine stopped before its command had ended", "no-exit"
    else:
        brief, reason = "the machine stopped before it had started", "no-report"
    texts = (_end(scratch / "qemu.log"),) if machine.interactive else (console, _end(scratch / "qemu.log"))
    raise MachineError(brief, details="\n".join(filter(None, map(_last_lines, texts))), reason=reason)


def panic_in(console: str) -> str:
    """Return why the kernel gave up, by its console; empty if it did not, or was switched off later."""
    found = list(_PANIC.finditer(console))
    if not found or _REBOOT.search(console, found[-1].end()):
        return ""
    return found[-1][1].strip()


def _end(path: Path) -> str:
    """Return the end of what a machine, or QEMU, wrote."""
    if not path.exists():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _CONSOLE_BYTES))
        return file.read().decode(errors="replace")


def _last_lines(text: str) -> str:
    """Return the last lines of `text`; if a kernel panics in it, those before."""
    before, panic, after = text.partition("Kernel panic")
    return "\n".join((before + panic + after.partition("\n")[0]).splitlines()[-20:])


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
