"""The first process of a machine: mounts the image that its initramfs vouches for, and runs it.

Runs in an initramfs, as /init (`docs/formats/boot.md`): no click, nothing that is not needed there. What goes
wrong is told on the console and to whoever started the machine, which then is switched off.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from cfsbuild.deploy import boot_bundle, boot_config, boot_report, early
from cfsbuild.deploy.boot_config import BootConfig
from cfsbuild.deploy.switch_root import switch_root
from cfsbuild.errors import CfsError

FIRST_PROCESS = 1

STATE = Path("/run/cfsbuild/state")
ROOT = Path("/sysroot")

ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}

NOT_FOUND = 127
NOT_EXECUTABLE = 126
SIGNALLED = 128


class Ports(NamedTuple):
    """Descriptors of the ports to whoever started the machine; opened first, the image may have no /dev."""

    report: int | None = None
    out: int | None = None
    err: int | None = None


def main() -> int:
    """Start the machine. Returns only when that fails, or where it makes no sense."""
    if os.getpid() != FIRST_PROCESS:
        _say("cfsbuild: this starts a machine: it has to be the first process of one")
        return 2
    config, ports = None, Ports()
    try:
        early.mount_kernel_filesystems()
        words = early.command_line()
        tell = teller(words)
        early.load_modules()
        config = boot_config.read()
        ports = open_ports(config.report)
        _enter(config, words, reporting(tell, ports.report))
        _run(config, ports)
    except Exception as error:  # noqa: BLE001 (nobody is left to tell what a bug is)
        _fail(config, ports, boot_report.failure(error))
    return 1


def open_ports(name: str) -> Ports:
    """Return the ports that there are of those called `name`; none without a name. Raises `OSError`."""
    if not name:
        return Ports()
    return Ports(*(boot_report.open_port(name + end) for end in ("", ".out", ".err")))


def _enter(config: BootConfig, words: dict[str, str], tell: Callable[[str], None]) -> None:
    """Mount the image and make it the root directory."""
    mount_state(config, words, tell)
    boot_bundle.enter(config, STATE, ROOT, tell)
    switch_root(ROOT)


def mount_state(config: BootConfig, words: dict[str, str], tell: Callable[[str], None]) -> None:
    """Wait for the state device and mount it; make where the image goes. Raises `BootError`, `MountError`."""
    device = config.state.device
    tell(f"waiting for {device}")
    early.wait_for_device(device, early.patience(config.state.seconds, words))
    early.mount_state(config.state, STATE)
    ROOT.mkdir(exist_ok=True)


def _run(config: BootConfig, ports: Ports) -> None:
    """Become the image's first process; or run it as a child, tell how it ended, and switch off."""
    boot_report.send(boot_report.BootReport(event="started"), ports.report)
    if not config.once:
        environment = {**ENVIRONMENT, "TERM": os.environ.get("TERM", "linux")}
        try:
            os.execve(config.exec[0], config.exec, environment)  # noqa: S606 (as init does)
        except OSError as error:
            raise early.BootError(
                f"the image cannot run {config.exec[0]}: {error.strerror}", reason="exec"
            ) from error
    child = os.fork()
    if child == 0:
        _become(config, ports)
    status = _wait(child)
    boot_report.send(boot_report.BootReport(event="exited", status=status), ports.report)
    early.power_off()


def _become(config: BootConfig, ports: Ports) -> None:
    """Become the command, its output going to the ports that there are. Never returns."""
    try:
        os.setsid()
        for number, port in ((1, ports.out), (2, ports.err)):
            if port is not None:
                os.dup2(port, number)
        reader, writer = os.pipe()
        os.close(writer)
        os.dup2(reader, 0)
        os.execve(config.exec[0], config.exec, {**ENVIRONMENT, "TERM": "dumb"})  # noqa: S606
    except OSError as error:
        os.write(2, f"cfsbuild: cannot run {config.exec[0]}: {error.strerror}\n".encode())
        os._exit(NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE)


def _wait(child: int) -> int:
    """Return the exit status of `child`; whatever else ends meanwhile is reaped."""
    while True:
        process, status = os.wait()
        if process == child:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else SIGNALLED - code


def _fail(config: BootConfig | None, ports: Ports, report: boot_report.BootReport) -> None:
    """Tell what went wrong and switch the machine off, or start a shell if the configuration says so."""
    tell_failure(report)
    try:
        boot_report.send(report, ports.report)
    except (CfsError, OSError) as error:
        _say(f"cfsbuild:   and then: {error}")
    give_up(config)
    signal.pause()


def give_up(config: BootConfig | None) -> None:
    """Switch the machine off; or start a shell, if the configuration says so and the TPM releases no more."""
    if config is not None and config.on_failure == "shell":
        try:
            boot_bundle.forfeit(config)
            os.execve("/bin/sh", ["/bin/sh"], ENVIRONMENT)  # noqa: S606 (as init does)
        except (CfsError, OSError) as error:
            _say(f"cfsbuild:   and then: {error}")
    early.power_off()


def tell_failure(report: boot_report.BootReport) -> None:
    """Say on the console what went wrong."""
    _say(f"cfsbuild: this machine cannot start: {report.brief}")
    for line in (*report.details.splitlines(), f"reason: {report.reason or 'unknown'}"):
        _say(f"cfsbuild:   {line}")


def teller(words: dict[str, str]) -> Callable[[str], None]:
    """Return what tells of progress, by the words of the command line."""
    return _silent if "quiet" in words else _progress


def reporting(tell: Callable[[str], None], port: int | None) -> Callable[[str], None]:
    """Return what tells of progress on the console, by `tell`, and to whoever started the machine.

    A machine starts though nobody listens at the port, or it is gone.
    """

    def told(text: str) -> None:
        tell(text)
        if port is not None:
            with contextlib.suppress(OSError):
                boot_report.mention(text, port)

    return told


def _progress(text: str) -> None:
    _say(f"cfsbuild: {text}")


def _silent(text: str) -> None:
    del text


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    raise SystemExit(main())
