"""A virtual machine with a kernel that has fs-verity: Python, cfsbuild, a few programs and one writable disk."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import pytest

CACHE = Path(
    os.environ.get("CFSBUILD_VM")
    or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cfsbuild" / "vm"
)
BUSYBOX = Path("/bin/busybox")
PACKAGE = Path(__file__).resolve().parents[2] / "cfsbuild"
MODULES = ("virtio_pci", "virtio_blk", "ext4", "erofs", "overlay", "loop")
PROGRAMS = ("qemu-system-x86_64", "cpio", "mkfs.ext4", "mkfs.erofs", "fsverity")
LEFT_OUT = shutil.ignore_patterns("test", "tests", "idlelib", "tkinter", "ensurepip", "*.a", "site-packages")
# qemu64 lacks what Debian's Python expects, `max` and cx16 trip over emulator bugs.
CPU = "Haswell,-cx16"

INIT = """\
#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /host /rw /root /vdisk
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t devtmpfs dev /dev
for module in $(/bin/busybox cat /modules.order); do /bin/busybox insmod $module; done
/bin/busybox mount -t erofs -o ro /dev/vdb /host || echo no-system
/bin/busybox mount -t tmpfs rw /rw
/bin/busybox mkdir /rw/upper /rw/work
/bin/busybox mount -t overlay -o lowerdir=/host,upperdir=/rw/upper,workdir=/rw/work root /root
/bin/busybox mkdir -p /root/proc /root/sys /root/dev /root/tmp /root/vdisk /root/vm
for directory in proc sys dev; do /bin/busybox mount --bind /$directory /root/$directory; done
/bin/busybox chroot /root /bin/busybox --install -s /bin
/bin/busybox mount -t ext4 /dev/vda /root/vdisk || echo no-disk
/bin/busybox cp /script /root/vm/script
echo VM-BEGIN
PATH=/bin:/usr/bin /bin/busybox chroot /root /bin/sh /vm/script </dev/null
echo VM-EXIT: $?
/bin/busybox umount /root/vdisk
/bin/busybox sync
/bin/busybox poweroff -f
"""


class Outcome(NamedTuple):
    """What the script printed (both streams) and its exit status."""

    output: str
    status: int


def missing() -> str:
    """Say why no machine can be booted here; empty when one can."""
    absent = [program for program in PROGRAMS if shutil.which(program) is None]
    if absent or not BUSYBOX.exists():
        return f"not installed: {', '.join(absent) or BUSYBOX}"
    if not (CACHE / "vmlinuz").exists():
        return "no kernel with fs-verity: run tests/vm/make-kernel"
    return ""


def require() -> None:
    """Skip the test unless a machine can be booted here."""
    if why := missing():
        pytest.skip(why)


def make_disk(path: Path, megabytes: int = 256) -> None:
    """Make an ext4 disk on which fs-verity can be enabled."""
    with path.open("wb") as file:
        file.truncate(megabytes << 20)
    subprocess.run(["mkfs.ext4", "-q", "-b", "4096", "-O", "verity", path], check=True, capture_output=True)


def boot(
    script: str, *, disk: Path, work: Path, seconds: int = 600, devices: Sequence[object] = ()
) -> Outcome:
    """Boot, run `script` with /bin/sh (the disk is /vdisk, changes elsewhere vanish), power off.

    `devices` are further options for QEMU. `PYTHON` in the script is this interpreter, with cfsbuild and what it needs, at the same paths as here.
    """
    initrd, system = _make_initrd(script, work), _make_system(work)
    command = [
        *("qemu-system-x86_64", "-machine", "q35,accel=tcg", "-cpu", CPU, "-smp", "2", "-m", "2048"),
        *("-nographic", "-no-reboot", "-net", "none", "-monitor", "none"),
        *("-kernel", CACHE / "vmlinuz", "-initrd", initrd),
        *("-append", "console=ttyS0 panic=-1 quiet loglevel=4"),
        *("-drive", f"file={disk},if=virtio,format=raw,cache=writeback"),
        *("-drive", f"file={system},if=virtio,format=raw,readonly=on"),
        *devices,
    ]
    done = subprocess.run(
        command, check=False, capture_output=True, timeout=seconds, stdin=subprocess.DEVNULL
    )
    console = done.stdout.decode(errors="replace").replace("\r\n", "\n")
    found = re.search(r"VM-BEGIN\n(.*)VM-EXIT: (\d+)\n", console, re.DOTALL)
    if not found:
        raise AssertionError(f"the machine did not finish its script:\n{console}\n{done.stderr.decode()}")
    return Outcome(found[1], int(found[2]))


def _make_initrd(script: str, work: Path) -> Path:
    root = work / "initrd"
    (root / "bin").mkdir(parents=True)
    shutil.copy(BUSYBOX, root / "bin" / "busybox")
    (root / "init").write_text(INIT)
    (root / "init").chmod(0o755)
    (root / "script").write_text(f"export PYTHON={sys.executable} PYTHONPATH={PACKAGE.parent}\n{script}")
    order = []
    for number, module in enumerate(_modules_in_order()):
        name = f"{number:02}-{module.name}"
        _copy_module(module, root / name.removesuffix(".xz").removesuffix(".zst"))
        order.append("/" + name.removesuffix(".xz").removesuffix(".zst"))
    (root / "modules.order").write_text("\n".join(order) + "\n")
    names = [str(path.relative_to(root)) for path in sorted(root.rglob("*"))]
    initrd = work / "initrd.cpio"
    with initrd.open("wb") as output:
        listing = "\n".join([".", *names]).encode()
        subprocess.run(
            ["cpio", "-o", "-H", "newc", "--quiet"], cwd=root, input=listing, stdout=output, check=True
        )
    return initrd


def _modules_in_order() -> list[Path]:
    """Return the files of MODULES and all that they need, dependencies first."""
    modules = CACHE / "modules"
    needs = {}
    for line in (modules / "modules.dep").read_text().splitlines():
        path, _, rest = line.partition(":")
        needs[path] = rest.split()
    by_name = {Path(path).name.split(".")[0].replace("-", "_"): path for path in needs}
    result: list[str] = []

    def add(path: str) -> None:
        for needed in needs[path]:
            add(needed)
        if path not in result:
            result.append(path)

    for name in MODULES:
        if name in by_name:  # otherwise it is built in
            add(by_name[name])
    return [modules / path for path in result]


def _copy_module(module: Path, destination: Path) -> None:
    if module.suffix == ".xz":
        destination.write_bytes(subprocess.run(["xz", "-dc", module], check=True, capture_output=True).stdout)
    elif module.suffix == ".zst":
        destination.write_bytes(
            subprocess.run(["zstd", "-dc", module], check=True, capture_output=True).stdout
        )
    else:
        shutil.copy(module, destination)


def _make_system(work: Path) -> Path:
    """Return an EROFS image of the programs that scripts may use: busybox, fsverity, Python and cfsbuild."""
    root = work / "system"
    programs = [BUSYBOX, Path(shutil.which("fsverity") or ""), Path(sys.executable).resolve()]
    for program in programs:
        _copy_file(program, root)
    standard_library = Path(sysconfig.get_path("stdlib"))
    shutil.copytree(
        standard_library, root / standard_library.relative_to("/"), ignore=LEFT_OUT, symlinks=True
    )
    for path in _python_files("cfsbuild", set()):
        _copy_file(path, root)
    package = root / PACKAGE.relative_to("/")
    shutil.copytree(PACKAGE, package, ignore=LEFT_OUT, dirs_exist_ok=True)
    # As in a wheel: they lie beside the package only in a checkout.
    shutil.copytree(PACKAGE.parent / "templates", package / "templates", dirs_exist_ok=True)
    executable = root / Path(sys.executable).relative_to("/")
    if not executable.exists():
        executable.parent.mkdir(parents=True, exist_ok=True)
        executable.symlink_to(Path(sys.executable).resolve())
    configuration = Path(sys.prefix) / "pyvenv.cfg"
    if configuration.exists():
        _copy_file(configuration, root)
    for library in _libraries([*programs, *root.rglob("*.so"), *root.rglob("*.so.*")]):
        _copy_file(library, root)
    image = work / "system.erofs"
    subprocess.run(["mkfs.erofs", "--quiet", image, root], check=True, capture_output=True)
    return image


def _copy_file(path: Path, root: Path) -> None:
    destination = root / path.relative_to("/")
    destination.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(path, destination)


def _python_files(distribution: str, seen: set[str]) -> list[Path]:
    """Return the installed files of `distribution` and of all that it requires."""
    seen.add(distribution)
    found = metadata.distribution(distribution)
    files = [Path(str(file.locate())).resolve() for file in found.files or []]
    result = [file for file in files if file.is_file() and file.is_relative_to(sys.prefix)]
    for requirement in found.requires or []:
        name = re.split(r"[^A-Za-z0-9_.-]", requirement)[0]
        if "extra ==" not in requirement and name not in seen:
            try:
                result += _python_files(name, seen)
            except metadata.PackageNotFoundError:  # for another platform or Python
                continue
    return result


def _libraries(files: list[Path]) -> list[Path]:
    listing = subprocess.run(["ldd", *files], check=False, capture_output=True, text=True).stdout
    return [Path(found) for found in sorted(set(re.findall(r"(/\S+) \(0x", listing)))]
