"""What stays writable above a read-only image: /etc and /var, each in the way that its bundle says.

`transient` is an overlay on a tmpfs, `persistent` an overlay whose upper directory is kept, `bind` a
directory that is kept and hides the image's. An overlay above composefs is the last that the kernel stacks.

The directory with what is kept lies on a disk that others may have written to: nothing in it is followed if
it is a symbolic link, and neither device nodes nor set-user-id programs count there.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cfsbuild.deploy import syscalls
from cfsbuild.deploy.attach import attach, detach_until, mount_id, private_place, refused_to
from cfsbuild.deploy.sequence import FilesystemMount, Setting, escape
from cfsbuild.errors import VerificationError

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NOTHING_IN_IT = "it is to be written to, and a mount needs something to be mounted on"


def mount_state(target: Path, ways: dict[str, str], base: Path, directory: str) -> list[Path]:
    """Make directories of the image mounted at `target` writable; returns them.

    `ways` says how, by name ("etc", "var"): "read-only", "transient", "persistent" or "bind". What is kept
    goes to `directory`, relative to `base`. Raises `VerificationError` (reason `state`) for an image without
    them or something else in the way, `MountError`.
    """
    writable = {name: way for name, way in ways.items() if way != "read-only"}
    before = {target / name: mount_id(target / name) for name in writable}
    try:
        for name, way in writable.items():
            _mount_one(target / name, name, way, base, directory)
    except BaseException:
        for place, mounted in before.items():
            detach_until(place, mounted)
        raise
    return list(before)


def _mount_one(place: Path, name: str, way: str, base: Path, directory: str) -> None:
    try:
        lower = os.open(place, _DIRECTORY)
    except OSError as error:
        raise VerificationError(
            f"the image has no directory /{name}",
            details=f"{error.strerror}; {_NOTHING_IN_IT}",
            resolution=f'add a node of kind "dir" with target "/{name}"',
            reason="state",
        ) from error
    try:
        if way == "transient":
            with _tmpfs() as scratch:
                _overlay(lower, scratch, place)
            return
        with opened_below(base, f"{directory}/{name}" if way == "persistent" else directory) as kept:
            if way == "persistent":
                _overlay(lower, kept, place)
            else:
                _bind(lower, kept, name, place)
    except OSError as error:
        raise refused_to(f"make {place} writable", error) from error
    finally:
        os.close(lower)


@contextmanager
def opened_below(base: Path, directory: str) -> Iterator[int]:
    """Give a descriptor of `directory` below `base`, made if need be, no symbolic link followed."""
    fd = os.open(base, _DIRECTORY & ~os.O_NOFOLLOW)
    try:
        for name in directory.split("/"):
            with suppress(FileExistsError):
                os.mkdir(name, 0o755, dir_fd=fd)
            try:
                inner = os.open(name, _DIRECTORY, dir_fd=fd)
            except OSError as error:
                raise VerificationError(
                    f"{base / directory} is not a directory all the way",
                    details=f"{name}: {error.strerror}",
                    resolution="look at who put it there; remove it if it is not yours",
                    reason="state",
                ) from error
            outer, fd = fd, inner
            os.close(outer)
        yield fd
    finally:
        os.close(fd)


@contextmanager
def _tmpfs() -> Iterator[int]:
    """Give a descriptor of a new tmpfs, which lives as long as something is mounted from it."""
    with private_place("cfsbuild-state-") as directory:
        settings = (Setting("source", "cfsbuild"), Setting("mode", "0755"))
        attach(FilesystemMount("tmpfs", settings, read_only=False), directory)
        fd = os.open(directory, _DIRECTORY)
        try:
            yield fd
        finally:
            os.close(fd)


def _overlay(lower: int, kept: int, place: Path) -> None:
    """Mount an overlay at `place`, with upper and work directories in `kept`."""
    _make_like(lower, kept, "upper")
    _make_like(lower, kept, "work")
    below = f"/proc/self/fd/{kept}"
    settings = (
        Setting("source", "cfsbuild"),
        Setting("lowerdir", f"/proc/self/fd/{lower}"),
        Setting("upperdir", escape(f"{below}/upper", "\\")),
        Setting("workdir", escape(f"{below}/work", "\\")),
    )
    attach(FilesystemMount("overlay", settings, read_only=False, restricted=True), str(place))


def _bind(lower: int, kept: int, name: str, place: Path) -> None:
    _make_like(lower, kept, name)
    syscalls.mount(f"/proc/self/fd/{kept}/{name}", str(place), "", syscalls.MS_BIND, "")
    # Not what the disk has: a machine mounts that without execution.
    flags = syscalls.MS_REMOUNT | syscalls.MS_BIND | syscalls.MS_NOSUID | syscalls.MS_NODEV
    syscalls.mount("none", str(place), "", flags, "")


def _make_like(model: int, parent: int, name: str) -> None:
    """Make the directory `name` in `parent`, if it is not there, like `model` (owner, mode, attributes)."""
    try:
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        pass
    else:
        if not stat.S_ISDIR(status.st_mode):
            raise VerificationError(f"what is kept in {name!r} is not a directory", reason="state")
        return
    new = f".{name}.new"
    with suppress(FileExistsError):
        os.mkdir(new, 0o700, dir_fd=parent)
    fd = os.open(new, _DIRECTORY, dir_fd=parent)
    try:
        wanted = os.fstat(model)
        os.fchown(fd, wanted.st_uid, wanted.st_gid)
        os.fchmod(fd, stat.S_IMODE(wanted.st_mode))
        for key in os.listxattr(model):
            if not key.startswith("trusted."):
                os.setxattr(fd, key, os.getxattr(model, key))
    finally:
        os.close(fd)
    os.rename(new, name, src_dir_fd=parent, dst_dir_fd=parent)
