"""What a virtual machine tells while it runs, and how it ended by that. It may tell whatever it likes."""

from __future__ import annotations

import os
import re
import selectors
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from cfsbuild.deploy import boot_report
from cfsbuild.deploy.boot_report import BootReport
from cfsbuild.errors import CfsError, InputError, StoreError, VerificationError
from cfsbuild.events import BootFinished, BootStep, Listener

Take = Callable[[bytes], None]

_CONSOLE_BYTES = 1 << 16
_PIECE = 1 << 16
_LINES = 20
_STEP_CHARACTERS = 200

_PANIC = re.compile(r"Kernel panic - not syncing: ([^\r\n]*)")
_SWITCHED_OFF = "] reboot: "
"""What Linux writes when it is switched off or started anew in an orderly way."""


class MachineError(CfsError):
    """A machine cannot be started, or ended before it said how."""

    exit_code = 1


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a machine ended: the exit status of what ran in it, and seconds from its start to its end."""

    status: int
    seconds: float


class Reports:
    """The reports of a machine, as they come: steps, that it has started, and how what ran ended."""

    def __init__(self, listener: Listener, began: float) -> None:
        self._step = ""
        self._listener = listener
        self._began = began
        self._line = bytearray()
        self._bytes = 0
        self._reports: list[BootReport] = []

    def take(self, data: bytes) -> None:
        """Take what came. Raises `InputError` for what is no report, too much, or out of order."""
        self._bytes += len(data)
        if self._bytes > boot_report.REPORT_BYTES:
            raise InputError("the machine reports too much", reason="boot-report")
        *lines, rest = (bytes(self._line) + data).split(b"\n")
        self._line = bytearray(rest)
        for line in lines:
            self._add(boot_report.decode(line))

    def all(self) -> list[BootReport]:
        """Return the reports but those of steps. Raises `InputError` if the last is not whole."""
        if self._line:
            self._add(boot_report.decode(bytes(self._line)))
        return self._reports

    @property
    def doing(self) -> str:
        """What the machine said last that it does, in words."""
        return f"its last step: {self._step}" if self._step else ""

    def _add(self, report: BootReport) -> None:
        before = self._reports[-1].event if self._reports else ""
        follows = {"progress": {""}, "started": {""}, "exited": {"started"}, "failed": {"", "started"}}
        if before not in follows[report.event]:
            raise InputError(f"the machine reports {report.event!r} after {before!r}", reason="boot-report")
        if report.event == "progress":
            self._step = report.brief.replace("\n", " ")[:_STEP_CHARACTERS]
            self._listener(BootStep(text=self._step))
            return
        if report.event == "started":
            self._listener(BootFinished(seconds=time.monotonic() - self._began))
        self._reports.append(report)


class Console:
    """A pipe with a name for what a machine writes to its console, of which the end is kept."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path, 0o600)
        self.fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self._kept = b""

    def __enter__(self) -> Console:
        return self

    def __exit__(self, *exception: object) -> None:
        os.close(self.fd)

    def read(self) -> bool:
        """Take what is there; say whether it was anything."""
        try:
            data = os.read(self.fd, _PIECE)
        except BlockingIOError:
            return False
        self._kept = (self._kept + data)[-_CONSOLE_BYTES:]
        return bool(data)

    def read_all(self) -> None:
        """Take what is still there, once nobody writes any more."""
        while self.read():
            pass

    @property
    def text(self) -> str:
        """The end of what was written."""
        return self._kept.decode(errors="replace")


def pump(ports: Sequence[tuple[socket.socket, Take]], console: Console, seconds: float | None) -> None:
    """Hand on what comes over `ports` until all are closed, and read the console.

    Of ports that have something at the same time the first comes first. Raises `MachineError` when that
    takes longer than `seconds`.
    """
    deadline = None if seconds is None else time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        selector.register(console.fd, selectors.EVENT_READ, len(ports))
        for number, (port, _) in enumerate(ports):
            selector.register(port, selectors.EVENT_READ, number)
        open_ports = len(ports)
        while open_ports:
            left = None if deadline is None else deadline - time.monotonic()
            ready = selector.select(left) if left is None or left > 0 else []
            if not ready:
                raise MachineError(f"the machine was still running after {seconds:.0f} s", reason="timeout")
            for key, _ in sorted(ready, key=lambda one: one[0].data):
                if key.fd == console.fd:
                    if not console.read():
                        selector.unregister(console.fd)
                elif data := os.read(key.fd, _PIECE):
                    ports[key.data][1](data)
                else:
                    selector.unregister(key.fileobj)
                    open_ports -= 1


class End(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known of a machine that has ended; `status` is QEMU's."""

    reports: list[BootReport]
    doing: str
    panic: str
    status: int
    texts: tuple[str, ...]
    interactive: bool


def outcome(end: End, *, seconds: float) -> Outcome:
    """Return how it went. Raises `MachineError`, and what the machine reports as a failure."""
    last = end.reports[-1] if end.reports else None
    if last is not None and last.event == "failed":
        raise failure(last)
    if last is not None and last.event == "exited":
        return Outcome(status=last.status, seconds=seconds)
    if end.panic:
        brief, reason = f"the machine's kernel panics: {end.panic}", "panic"
    elif last is None:
        brief, reason = "the machine stopped before it had started", "no-report"
    elif not end.interactive:
        brief, reason = "the machine stopped before its command had ended", "no-exit"
    elif end.status:
        brief, reason = f"QEMU ended with status {end.status}", "qemu"
    else:
        return Outcome(status=last.status, seconds=seconds)
    details = "\n".join(filter(None, (*map(_last_lines, end.texts), end.doing)))
    raise MachineError(brief, details=details, reason=reason)


def failure(report: BootReport) -> CfsError:
    """Return the error that a machine reports."""
    kinds: dict[int, type[CfsError]] = {5: VerificationError, 7: StoreError}
    return kinds.get(report.exit_code, MachineError)(
        f"the machine cannot start: {report.brief}", details=report.details, reason=report.reason
    )


def panic_in(console: str) -> str:
    """Return why the kernel gave up, by its console; empty if it did not, or was switched off later."""
    found = list(_PANIC.finditer(console))
    if not found or _SWITCHED_OFF in console[found[-1].end() :]:
        return ""
    return boot_report.harmless(found[-1][1].strip())[:_STEP_CHARACTERS] or "it does not say why"


def _last_lines(text: str) -> str:
    """Return the last lines of `text`; if a kernel panics in it, those before."""
    before, panic, after = text.partition("Kernel panic")
    return "\n".join((before + panic + after.partition("\n")[0]).splitlines()[-_LINES:])
