"""The kernel that a virtual machine boots, and where its modules are."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from cfsbuild.errors import UsageError

BOOT = Path("/boot")
MODULES = Path("/lib/modules")
_PREFIX = "vmlinuz-"


class GuestKernel(msgspec.Struct, frozen=True):
    """A kernel image and the directory of its modules (the one with modules.dep)."""

    image: Path
    modules: Path


def cache_directory(environ: Mapping[str, str]) -> Path:
    """Return where a kernel for virtual machines is kept: `$CFSBUILD_VM`, else in the user's cache."""
    if environ.get("CFSBUILD_VM"):
        return Path(environ["CFSBUILD_VM"])
    cache = environ.get("XDG_CACHE_HOME") or Path(environ.get("HOME", "/"), ".cache")
    return Path(cache, "cfsbuild", "vm")


def find_kernel(image: Path | None, modules: Path | None, environ: Mapping[str, str]) -> GuestKernel:
    """Return the kernel to boot: the one that is asked for, the one that is kept, or one of this machine.

    Raises `UsageError` if there is none, or if nobody knows where its modules are.
    """
    if image is not None:
        return GuestKernel(_existing(image), modules or _modules_of(image))
    if modules is not None:
        raise UsageError(
            "modules are given without their kernel", resolution="name it with --kernel", reason="kernel"
        )
    kept = cache_directory(environ)
    for candidate in (kept / "vmlinuz", *_of_this_machine()):
        if os.access(candidate, os.R_OK):
            return GuestKernel(candidate, _modules_of(candidate))
    raise UsageError(
        "there is no kernel to boot",
        details=f"looked for {kept}/vmlinuz and {BOOT}/{_PREFIX}*",
        resolution="apt-get install linux-image-cloud-amd64, or name one with --kernel FILE --modules DIR",
        reason="no-kernel",
    )


def _existing(image: Path) -> Path:
    if not image.is_file():
        raise UsageError(f"there is no kernel {image}", resolution="check the path", reason="no-kernel")
    return image


def _of_this_machine() -> list[Path]:
    """Return the kernels in /boot, the one that runs first, then the newest."""
    running = BOOT / f"{_PREFIX}{os.uname().release}"
    found = [path for path in BOOT.glob(f"{_PREFIX}*") if path != running]
    return [running, *sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)]


def _modules_of(image: Path) -> Path:
    version = image.name.removeprefix(_PREFIX)
    for candidate in (image.parent / "modules", MODULES / version):
        if (candidate / "modules.dep").is_file():
            return candidate
    raise UsageError(
        f"the modules of {image} are not known",
        details=f"neither {image.parent / 'modules'} nor {MODULES / version} has a modules.dep",
        resolution="name their directory with --modules DIR",
        reason="no-modules",
    )
