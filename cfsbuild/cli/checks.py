"""What `doctor` looks at. Each check is a function; none changes anything on the machine."""

from __future__ import annotations

import importlib
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from cfsbuild.cli.settings import Settings
from cfsbuild.deploy.host_programs import find_program
from cfsbuild.errors import CfsError
from cfsbuild.trust.tpm.transport import DEFAULT_NAME

_SECTION_PYTHON = "Python"
_SECTION_STORE = "Store"
_SECTION_KERNEL = "Kernel (to mount images)"
_SECTION_TPM = "TPM (to enrol this machine, and to unseal)"
_SECTION_PROGRAMS = "Programs (each for what stands beside it)"

NATIVE_MODULES = (
    ("cfsbuild.tree._scan", "directory scan"),
    ("cfsbuild.erofs._emit", "image writer"),
    ("cfsbuild.store._ingest", "ingest"),
)

PROGRAMS = (
    ("fsverity", "compare digests with the kernel's tool", "fsverity"),
    ("fsck.erofs", "check images with another program", "erofs-utils"),
    ("mkcomposefs", "compare images with the C tool's", "composefs"),
    ("mmdebstrap", "make Debian roots for recipes", "mmdebstrap"),
    ("bwrap", "run nodes in a sandbox", "bubblewrap"),
    ("qemu-system-x86_64", "boot images with vm", "qemu-system-x86"),
    ("mkfs.ext4", "make disks for vm", "e2fsprogs"),
    ("swtpm", "give vm a TPM", "swtpm"),
)

_OVERLAY_DATA_ONLY = (6, 5)
_OVERLAY_VERITY = (6, 6)
_EROFS_FILE_BACKED = (6, 12)


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at. `needed`: nothing can be built without it."""

    section: str
    name: str
    state: Literal["ok", "limited", "missing"]
    found: str
    advice: str = ""
    needed: bool = False


def all_checks(settings: Settings) -> list[Check]:
    """Look at everything."""
    return [*_python(), *_store(settings), *_kernel(), *_tpm(), *_programs()]


def _python() -> Iterator[Check]:
    version = platform.python_version()
    new_enough = sys.version_info >= (3, 11)
    yield Check(
        section=_SECTION_PYTHON,
        name="version",
        state="ok" if new_enough else "missing",
        found=f"{platform.python_implementation()} {version}",
        advice="" if new_enough else "install Python 3.11 or later",
        needed=True,
    )
    from cfsbuild.fsverity import digest  # noqa: PLC0415 (the check itself)

    kernel = digest.implementation()
    yield Check(
        section=_SECTION_PYTHON,
        name="fs-verity digests",
        state="limited" if kernel == "hashlib" else "ok",
        found=kernel,
        advice=_native_advice() if kernel == "hashlib" else "",
    )
    for module, purpose in NATIVE_MODULES:
        built = _can_import(module) and os.environ.get("CFSBUILD_NATIVE") != "0"
        yield Check(
            section=_SECTION_PYTHON,
            name=purpose,
            state="ok" if built else "limited",
            found="native" if built else "pure Python: slower, same results",
            advice="" if built else _native_advice(),
        )


def _can_import(module: str) -> bool:
    try:
        importlib.import_module(module)
    except ImportError:
        return False
    return True


def _native_advice() -> str:
    if os.environ.get("CFSBUILD_NATIVE") == "0":
        return "CFSBUILD_NATIVE=0 turns native code off"
    return "install a C compiler and the Python headers (gcc, python3-dev), then cfsbuild again"


def _store(settings: Settings) -> Iterator[Check]:
    from cfsbuild.cli.stores import open_store  # noqa: PLC0415 (only this check needs it)

    path = settings.store_path
    try:
        with open_store(settings) as store:
            found = f"{path} ({store.algorithm.value})"
            reason = "" if store.requires_verity else store.no_verity_reason
    except CfsError as error:
        there = path.exists()
        yield Check(
            section=_SECTION_STORE,
            name="store",
            state="missing" if there else "limited",
            found=error.brief,
            advice=error.resolution if there else f"the first build makes it, or: cfsbuild store init {path}",
            needed=there,
        )
    else:
        yield Check(section=_SECTION_STORE, name="store", state="ok", found=found)
        yield Check(
            section=_SECTION_STORE,
            name="fs-verity on objects",
            state="limited" if reason else "ok",
            found=reason or "every object has it",
        )
    yield _verity_check(_existing(path))


def _existing(path: Path) -> Path:
    """Return `path`, or the nearest directory above it that exists."""
    return next(place for place in (path.absolute(), *path.absolute().parents) if place.is_dir())


def _verity_check(directory: Path) -> Check:
    """Try fs-verity on an unnamed temporary file in `directory`; nothing of it remains."""
    from cfsbuild.fsverity import kernel  # noqa: PLC0415 (only this check needs it)
    from cfsbuild.fsverity.algorithm import Algorithm  # noqa: PLC0415

    name = "fs-verity on this file system"
    try:
        with tempfile.TemporaryFile(dir=directory) as file:
            file.write(b"x")
            file.flush()
            fd = os.open(f"/proc/self/fd/{file.fileno()}", os.O_RDONLY | os.O_CLOEXEC)
        # The writable descriptor is closed now, as the kernel demands.
        try:
            kernel.enable(fd, Algorithm.SHA256)
        finally:
            os.close(fd)
    except CfsError as error:
        return Check(
            section=_SECTION_STORE, name=name, state="limited", found=error.brief, advice=error.resolution
        )
    except OSError as error:
        found = f"cannot be tried in {directory}: {error.strerror}"
        return Check(section=_SECTION_STORE, name=name, state="limited", found=found)
    return Check(section=_SECTION_STORE, name=name, state="ok", found="works")


def _kernel() -> Iterator[Check]:
    release = platform.release()
    version = kernel_version(release)
    yield Check(section=_SECTION_KERNEL, name="release", state="ok", found=release)
    file_systems = _file_systems()
    for name, module, option in (("erofs", "erofs", "EROFS_FS"), ("overlay", "overlay", "OVERLAY_FS")):
        loaded = module in file_systems
        loadable = not loaded and _has_module(module, release)
        yield Check(
            section=_SECTION_KERNEL,
            name=name,
            state="ok" if loaded or loadable else "missing",
            found="there" if loaded else ("loadable module" if loadable else "not there"),
            advice="" if loaded or loadable else f"needs a kernel with CONFIG_{option}",
        )
    yield _since("overlay data-only layers", version, _OVERLAY_DATA_ONLY, "mounting may fail")
    yield _since("overlay verity", version, _OVERLAY_VERITY, "contents are not checked by the kernel")
    yield _since("erofs from files", version, _EROFS_FILE_BACKED, "a loop device is used")
    root = os.geteuid() == 0
    yield Check(
        section=_SECTION_KERNEL,
        name="permission",
        state="ok" if root else "limited",
        found="root" if root else f"user {os.geteuid()}",
        advice="" if root else "mount, umount and shell need root; everything else does not",
    )


def kernel_version(release: str) -> tuple[int, int]:
    """Return major and minor number of a kernel release such as `6.12.3-amd64`."""
    parts = release.split("-", maxsplit=1)[0].split(".")
    digits = ["".join(char for char in part if char.isdigit()) or "0" for part in (*parts, "0")[:2]]
    return int(digits[0]), int(digits[1])


def _since(name: str, version: tuple[int, int], needed: tuple[int, int], otherwise: str) -> Check:
    able = version >= needed
    return Check(
        section=_SECTION_KERNEL,
        name=name,
        state="ok" if able else "limited",
        found=f"since Linux {needed[0]}.{needed[1]}",
        advice="" if able else f"this kernel is older: {otherwise}",
    )


def _file_systems() -> set[str]:
    try:
        text = Path("/proc/filesystems").read_text()
    except OSError:
        # No /proc: then nothing can be said, which the check shows as not there.
        return set()
    return {line.split()[-1] for line in text.splitlines() if line.strip()}


def _has_module(name: str, release: str) -> bool:
    directory = Path("/lib/modules") / release / "kernel" / "fs"
    return any(directory.glob(f"*/{name}.ko*"))


def _tpm() -> Iterator[Check]:
    usable = os.access(DEFAULT_NAME, os.R_OK | os.W_OK)
    there = Path(DEFAULT_NAME).exists()
    advice = (
        "run as root, or as a member of the group that owns it" if there else "see the firmware's settings"
    )
    yield Check(
        section=_SECTION_TPM,
        name=DEFAULT_NAME,
        state="ok" if usable else "limited",
        found="can be used" if usable else "belongs to others" if there else "not there",
        advice="" if usable else advice,
    )


def _programs() -> Iterator[Check]:
    for program, purpose, package in PROGRAMS:
        place = find_program(program)
        yield Check(
            section=_SECTION_PROGRAMS,
            name=program,
            state="ok" if place else "limited",
            found=f"{purpose}: {place}" if place else purpose,
            advice="" if place else f"apt install {package}",
        )
