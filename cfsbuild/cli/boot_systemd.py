"""The steps that systemd takes as the first process of a machine's initramfs (`docs/formats/boot.md`).

systemd opens the bundle, which is a credential, and hands it to `mount`; what is believed of it is decided
there. A step that fails says why, and leaves a note that it did; `failed` says it for steps that systemd
could not even start, and systemd switches the machine off then.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from cfsbuild.cli import boot
from cfsbuild.deploy import boot_bundle, boot_config, boot_report, early, syscalls
from cfsbuild.deploy.boot_config import BootConfig
from cfsbuild.errors import CfsError, InputError, VerificationError

CREDENTIAL = "boot"
"""The credential's name, as the unit says; the name is sealed with it."""

RUN = Path("/run/cfsbuild")
TOLD = RUN / "failed"
COMMAND = RUN / "exec"
SWITCH = RUN / "switch-root.env"

_EXIT_CREDENTIALS = "243"
"""systemd's status of a service whose credentials it cannot set up: systemd.exec(5)."""

_MOST_LOG_LINES = 12
_LOG_RECORD_BYTES = 1 << 13
_WARNING = 4
_BITS_OF_SEVERITY = 3


def main() -> int:
    """Take the step that the first argument names; return the exit status."""
    steps: dict[str, Callable[[BootConfig], None]] = {"state": _state, "mount": _mount, "failed": _failed}
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in steps:
        sys.stderr.write(f"cfsbuild: one of these: {', '.join(steps)}\n")
        return 2
    report = ""
    try:
        config = boot_config.read()
        report = config.report
        steps[name](config)
    except Exception as error:  # noqa: BLE001 (nobody is left to tell what a bug is)
        return _tell(boot_report.failure(error), report)
    return 0


def _tell(report: boot_report.BootReport, port: str) -> int:
    """Tell what went wrong, once for each start of a machine."""
    if not TOLD.exists():
        boot.tell_failure(report)
        try:
            with contextlib.closing(_Port(port)) as opened:
                boot_report.send(report, opened.number)
            TOLD.parent.mkdir(parents=True, exist_ok=True)
            TOLD.touch()
        except OSError as error:
            sys.stderr.write(f"cfsbuild:   and then: {error}\n")
    return 1


class _Port:
    """A virtio port that is free again for the next step when this is closed."""

    def __init__(self, name: str) -> None:
        self.number = boot_report.open_port(name) if name else None

    def close(self) -> None:
        if self.number is not None:
            os.close(self.number)


@contextlib.contextmanager
def _telling(config: BootConfig, words: dict[str, str]) -> Iterator[Callable[[str], None]]:
    """Yield what tells of progress; the port is free again when the step has ended, or failed."""
    with contextlib.closing(_Port(config.report)) as port:
        yield boot.reporting(boot.teller(words), port.number)


def _state(config: BootConfig) -> None:
    """Mount what has the credential, from which systemd reads it."""
    early.load_modules()
    words = early.command_line()
    with _telling(config, words) as tell:
        boot.mount_state(config, words, tell)


def _mount(config: BootConfig) -> None:
    """Mount the image by the bundle that systemd opened, and say what is to be started in it."""
    directory = os.environ.get("CREDENTIALS_DIRECTORY", "")
    if not directory:
        raise InputError("systemd hands over no credential", reason="credential")
    with _telling(config, early.command_line()) as tell:
        boot_bundle.enter(config, boot.STATE, boot.ROOT, tell, opened_by=Path(directory, CREDENTIAL))
    check_image(boot.ROOT, config)
    if config.once:
        # systemd looks for what it starts before it moves /run, and moves none that is there already. Not all
        # that is mounted below goes along: the credential is, for now.
        for place in (Path("/run"), boot.STATE):
            syscalls.mount(str(place), f"{boot.ROOT}{place}", "", syscalls.MS_BIND, "")
        COMMAND.write_text(command_script(config), encoding="utf-8", errors="surrogateescape")
        COMMAND.chmod(0o700)
    init = str(COMMAND) if config.once else config.exec[0]
    SWITCH.write_text(environment_file(init), encoding="utf-8", errors="surrogateescape")
    with contextlib.closing(_Port(config.report)) as port:
        boot_report.send(boot_report.BootReport(event="started"), port.number)


def check_image(root: Path, config: BootConfig) -> None:
    """Raise `BootError` (reason `os-release`, `exec`) if systemd cannot switch to an image and run it."""
    if not any(os.path.lexists(root / place) for place in ("etc/os-release", "usr/lib/os-release")):
        raise early.BootError(
            "systemd switches to no image without os-release",
            resolution="add /etc/os-release to the image, with an ID",
            reason="os-release",
        )
    if not config.once:
        if len(config.exec) > 1:
            raise early.BootError("systemd gives the image's first process no arguments", reason="exec")
        return
    absent = [name for name in ("dev", "proc", "run") if not _is_directory(root / name)]
    if absent:
        raise early.BootError(
            "a command cannot run in the image", details=f"it has no /{', no /'.join(absent)}", reason="exec"
        )
    # Where a link of the image leads is not known out here.
    if not (root / "bin").is_symlink() and not os.path.lexists(root / "bin" / "sh"):
        raise early.BootError("the image cannot run /bin/sh: it has none", reason="exec")


def _is_directory(path: Path) -> bool:
    """Say whether `path` is a directory, and no link to one: links of an image mean nothing out here."""
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except FileNotFoundError:
        return False


def environment_file(init: str) -> str:
    """Return what systemd reads from an `EnvironmentFile`. Raises `BootError` for what cannot be in one."""
    if any(character < " " for character in init):
        raise early.BootError(f"systemd cannot start {init!r}", reason="exec")
    escaped = "".join(f"\\{one}" if one in '\\"`$' else one for one in init)
    return f'INIT="{escaped}"\n'


def command_script(config: BootConfig) -> str:
    """Return the image's first process: runs the command, reports its exit status, switches off.

    The kernel does the latter, since an image need not have a program for it.
    """
    report, out, err = (_device(config.report + end) for end in ("", ".out", ".err"))
    exited = boot_report.encode(boot_report.BootReport(event="exited", status=0)).decode().rstrip("\n")
    before, status, after = exited.partition('"status":')
    lines = [
        "#!/bin/sh",
        *(f"export {name}={shlex.quote(value)}" for name, value in boot.ENVIRONMENT.items()),
        "export TERM=dumb",
        "cd /",
        f"{shlex.join(config.exec)} </dev/null >{out} 2>{err}",
        f"echo {shlex.quote(before + status)}$?{shlex.quote(after.removeprefix('0'))} >{report}",
        "echo s >/proc/sysrq-trigger",
        "echo o >/proc/sysrq-trigger",
        "while :; do :; done",
    ]
    return "\n".join(lines) + "\n"


def _device(name: str) -> str:
    """Return the node of a virtio port; the console if there is none."""
    return boot_report.find_port(name) or "/dev/console"


def _failed(config: BootConfig) -> None:
    """Say what systemd could not do, unless the step that failed did; switch off, or start a shell."""
    if not TOLD.exists():
        _tell(boot_report.failure(_why_failed()), config.report)
    boot.give_up(config)


def _why_failed() -> CfsError:
    """Return what systemd tells of the unit that failed: `OnFailure` in systemd.unit(5)."""
    unit = os.environ.get("MONITOR_UNIT", "")
    details = "\n".join([line for line in _warnings() if unit in line][-_MOST_LOG_LINES:])
    if os.environ.get("MONITOR_EXIT_STATUS") == _EXIT_CREDENTIALS:
        return VerificationError("systemd cannot open the credential", details=details, reason="credential")
    return early.BootError(
        f"systemd could not start {unit or 'the machine'}", details=details, reason="systemd"
    )


def _warnings() -> Iterator[str]:
    """Yield what systemd warned of: it writes to the kernel's log where there is no journal."""
    fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        while True:
            try:
                record = os.read(fd, _LOG_RECORD_BYTES)
            except BlockingIOError:
                return
            except BrokenPipeError:  # overwritten while we read: the next one is there
                continue
            line = warning_of(record)
            if line:
                yield line
    finally:
        os.close(fd)


def warning_of(record: bytes) -> str:
    """Return the text of a record of /dev/kmsg if it is a warning of a process, else an empty one.

    Source: Documentation/ABI/testing/dev-kmsg of Linux.
    """
    head, _, text = record.partition(b";")
    priority = head.partition(b",")[0]
    if not priority.isdigit() or int(priority) >> _BITS_OF_SEVERITY == 0 or int(priority) & 7 > _WARNING:
        return ""
    return text.partition(b"\n")[0].decode(errors="replace")


if __name__ == "__main__":
    raise SystemExit(main())
