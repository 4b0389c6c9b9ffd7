"""The first steps of a machine: the kernel's own file systems, modules, the device with the state."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterator
from pathlib import Path

from cfsbuild.deploy import syscalls
from cfsbuild.deploy.attach import MountError
from cfsbuild.deploy.boot_config import MOST_SECONDS, StateDevice
from cfsbuild.errors import StoreError

MODULES = Path("/etc/cfsbuild/modules")

_POLL_SECONDS = 0.02

_STATE_FLAGS = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC

_API = (
    ("proc", "/proc", syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC, ""),
    ("sysfs", "/sys", syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC, ""),
    ("devtmpfs", "/dev", syscalls.MS_NOSUID, "mode=0755"),
    ("tmpfs", "/run", syscalls.MS_NOSUID | syscalls.MS_NODEV, "mode=0755"),
)


class BootError(StoreError):
    """The machine cannot go on."""


def mount_kernel_filesystems() -> None:
    """Mount /proc, /sys, /dev and /run; what is mounted already stays. Raises `OSError`."""
    for filesystem, target, flags, options in _API:
        Path(target).mkdir(exist_ok=True)
        try:
            syscalls.mount(filesystem, target, filesystem, flags, options)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise


def load_modules(listing: Path = MODULES) -> int:
    """Load the modules that the file `listing` names, one path a line, in order; return how many.

    No file, nothing to load. Raises `BootError` for one that the kernel refuses.
    """
    try:
        lines = listing.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return 0
    for path in lines:
        _load_module(path)
    return len(lines)


def _load_module(path: str) -> None:
    if os.uname().machine not in syscalls.SYS_FINIT_MODULE:
        raise BootError(f"modules cannot be loaded on {os.uname().machine}", reason="module")
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            syscalls.finit_module(fd)
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno == errno.EEXIST:
            return
        raise BootError(f"cannot load module {path}: {error.strerror}", reason="module") from error


def command_line() -> dict[str, str]:
    """Return the kernel's command line: each word that has one by its name, "" for those without a value."""
    words = Path("/proc/cmdline").read_text(encoding="utf-8", errors="replace").split()
    return {name: value for name, _, value in (word.partition("=") for word in words)}


def patience(configured: int, words: dict[str, str]) -> int:
    """Return how many seconds to wait for the state device: `cfsbuild.wait=` on the command line wins."""
    asked = words.get("cfsbuild.wait", "")
    return min(int(asked), MOST_SECONDS) if asked.isascii() and asked.isdecimal() else configured


def wait_for_device(device: str, seconds: float) -> None:
    """Wait until `device` is there. Raises `BootError` when it does not come."""
    deadline = time.monotonic() + seconds
    while not Path(device).is_block_device():
        if time.monotonic() >= deadline:
            raise BootError(
                f"there is no block device {device}",
                details=f"waited {seconds:.0f} s; there are: {' '.join(_block_devices()) or 'none'}",
                resolution="check its name, and that the initramfs has the module that drives it",
                reason="state-device",
            )
        time.sleep(_POLL_SECONDS)


def _block_devices() -> list[str]:
    return sorted(f"/dev/{path.name}" for path in Path("/sys/class/block").iterdir())


def mount_state(state: StateDevice, target: Path) -> None:
    """Mount the state device read-only at `target`, which is made. Raises `MountError`."""
    target.mkdir(parents=True, exist_ok=True)
    try:
        syscalls.mount(state.device, str(target), state.filesystem, _STATE_FLAGS | syscalls.MS_RDONLY, "")
    except OSError as error:
        raise MountError(
            f"cannot mount {state.device} as {state.filesystem}: {error.strerror}", reason="state-mount"
        ) from error


def make_writable(target: Path) -> None:
    """Let the mount at `target` be written to. Raises `OSError`."""
    syscalls.mount("none", str(target), "", _STATE_FLAGS | syscalls.MS_REMOUNT, "")


@contextlib.contextmanager
def writable(target: Path) -> Iterator[None]:
    """Let the mount at `target` be written to for a while. Raises `OSError`."""
    make_writable(target)
    try:
        yield
    finally:
        syscalls.mount("none", str(target), "", _STATE_FLAGS | syscalls.MS_REMOUNT | syscalls.MS_RDONLY, "")


def power_off() -> None:
    """Write what is not yet on the disks, and switch the machine off. Raises `OSError`."""
    os.sync()
    syscalls.power_off()
