"""The machine's identity, made when it first boots: /etc/machine-id (machine-id(5))."""

from __future__ import annotations

import os
import stat
import uuid
from contextlib import suppress
from pathlib import Path

from cfsbuild.deploy import syscalls
from cfsbuild.deploy.attach import refused_to
from cfsbuild.deploy.state import opened_below
from cfsbuild.errors import VerificationError

FILE = "machine-id"
_UNSET = {b"", b"uninitialized"}


def keep_machine_id(target: Path, etc: str, base: Path, directory: str) -> bool:
    """Let the system mounted at `target` have an identity that is the same at each boot; say whether it has.

    `etc` says how its /etc can be written to. Where that is kept, the file is made there once. Otherwise it
    is kept in `directory` below `base`, and shown at /etc/machine-id: written if /etc is transient, mounted
    over the file if that is there. An image with an identity of its own keeps it.
    Raises `VerificationError` (reason `state`) for something else in the file's place, `OSError`.
    """
    place = target / "etc" / FILE
    here = _read(place)
    if here is not None and here.strip() not in _UNSET:
        return True
    if etc in {"persistent", "bind"}:
        _write_new(
            os.open(target / "etc", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC), _new()
        )
        return True
    with opened_below(base, directory) as fd:
        kept = _read(Path(f"/proc/self/fd/{fd}") / FILE)
        if kept is None or kept.strip() in _UNSET:
            kept = _new()
            _write_new(os.dup(fd), kept)
        if etc == "transient":
            etc_fd = os.open(target / "etc", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            _write_new(etc_fd, kept)
            return True
        if here is None:
            return False
        try:
            syscalls.mount(f"/proc/self/fd/{fd}/{FILE}", str(place), "", syscalls.MS_BIND, "")
        except OSError as error:
            raise refused_to(f"mount the machine's identity at {place}", error) from error
    return True


def _new() -> bytes:
    return uuid.uuid4().hex.encode() + b"\n"


def _read(path: Path) -> bytes | None:
    """Return the content of a short regular file; None if there is none."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return os.read(fd, 64) if stat.S_ISREG(os.fstat(fd).st_mode) else None
    finally:
        os.close(fd)


def _write_new(directory: int, data: bytes) -> None:
    """Write the file whole or not at all, and close `directory`.

    Others may have put there what they like; the file is a new one, never one that is there.
    """
    new = f".{FILE}.{os.urandom(8).hex()}"
    try:
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444, dir_fd=directory)
        with open(fd, "wb") as file:  # noqa: PTH123 (a descriptor)
            os.fchmod(fd, 0o444)
            file.write(data)
            file.flush()
            os.fsync(fd)
        os.rename(new, FILE, src_dir_fd=directory, dst_dir_fd=directory)
    except IsADirectoryError as error:
        raise VerificationError(
            f"what is kept in {FILE!r} is a directory",
            resolution="look at who put it there; remove it if it is not yours",
            reason="state",
        ) from error
    finally:
        with suppress(FileNotFoundError):
            os.unlink(new, dir_fd=directory)
        os.close(directory)
