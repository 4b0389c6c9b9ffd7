"""Enter a mounted image: a mount namespace of its own, the image as root, a command inside."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cfsbuild.deploy import syscalls
from cfsbuild.deploy.attach import MountError
from cfsbuild.deploy.mount import mount
from cfsbuild.deploy.spec import MountSpec
from cfsbuild.errors import CfsError

COMMAND_NOT_FOUND = 127
COMMAND_NOT_EXECUTABLE = 126
_SIGNALLED = 128
_SETUP_FAILED = 125


def run_inside(spec: MountSpec, command: Sequence[str], *, writable: bool = False) -> int:
    """Mount `spec` in a new mount namespace, chroot into it and run `command` there; needs root.

    With `writable`, changes go to a tmpfs that vanishes with the command. Returns the exit status as a shell
    does: 128 + signal when killed, 127 when the program is not there. Nothing is left mounted.
    """
    with tempfile.TemporaryDirectory(prefix="cfsbuild-shell-") as directory:
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            _child(spec, command, Path(directory), writable=writable, report=writer)
        os.close(writer)
        with os.fdopen(reader) as pipe:
            status = _wait(child)
            failure = pipe.read()
    if failure:
        raise MountError(f"cannot enter {spec.image}", details=failure)
    return status


def _wait(child: int) -> int:
    # The command shares the terminal: Ctrl-C is for it to handle, not for us.
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        _, status = os.waitpid(child, 0)
    finally:
        signal.signal(signal.SIGINT, previous)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else _SIGNALLED - code


def _child(spec: MountSpec, command: Sequence[str], directory: Path, *, writable: bool, report: int) -> None:
    """Become `command`, or write why not to `report`. Never returns."""
    try:
        _enter(spec, directory, writable=writable)
    except (CfsError, OSError) as error:
        os.write(report, _describe(error).encode())
        os._exit(_SETUP_FAILED)
    os.close(report)
    environment = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "TERM": os.environ.get("TERM", "dumb"),
    }
    try:
        os.execvpe(command[0], list(command), environment)  # noqa: S606 (no shell is wanted)
    except FileNotFoundError:
        # The kernel says the same of a program that is there and whose interpreter or loader is not.
        there = shutil.which(command[0], path=environment["PATH"])
        lacks = (
            "its interpreter (#! line, or ELF loader) is not in the image"
            if there
            else "not found in the image"
        )
        os.write(2, f"{command[0]}: {lacks}\n".encode())
        os._exit(COMMAND_NOT_FOUND)
    except OSError as error:
        os.write(2, f"{command[0]}: {error.strerror}\n".encode())
        os._exit(COMMAND_NOT_EXECUTABLE)


def _describe(error: CfsError | OSError) -> str:
    if isinstance(error, CfsError):
        return "\n".join(part for part in (error.brief, error.details, error.resolution) if part)
    return str(error)


def _enter(spec: MountSpec, directory: Path, *, writable: bool) -> None:
    syscalls.unshare_mounts()
    syscalls.mount("tmpfs", str(directory), "tmpfs", 0, "mode=0700")
    root = directory / "root"
    root.mkdir()
    if writable:
        upper, work = directory / "upper", directory / "work"
        upper.mkdir(mode=0o755)
        work.mkdir()
        spec = MountSpec(
            image=spec.image,
            objects=spec.objects,
            digest=spec.digest,
            verity=spec.verity,
            idmap=spec.idmap,
            read_only=False,
            upper=str(upper),
            work=str(work),
        )
    mount(spec, root)
    for name in ("proc", "sys", "dev"):
        if (root / name).is_dir():
            syscalls.mount(f"/{name}", str(root / name), "", syscalls.MS_BIND | syscalls.MS_REC, "")
    os.chroot(root)
    os.chdir("/")
