"""Whether virtual machines run at full speed here: by trying, since /dev/kvm may promise too much."""

from __future__ import annotations

import os
import selectors
import shutil
import subprocess
import time
from pathlib import Path

from cfsbuild.store.replacing import replacing
from cfsbuild.tree.layer import document_digest

DEVICE = Path("/dev/kvm")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

_SECONDS = 10.0
_ALIVE = b"Linux version"
_DEAD = b"KVM internal error"


def why_no_kvm(qemu: str, kernel: Path, cache: Path) -> str:
    """Boot `kernel` until it says its name; return "" if it did, else why machines have to be emulated.

    The answer is kept in the directory `cache`, and holds until this machine starts anew.
    """
    if not os.access(DEVICE, os.R_OK | os.W_OK):
        return f"{DEVICE} is not there for us" if DEVICE.exists() else f"there is no {DEVICE}"
    kept = cache / f"kvm-{_identity(qemu, kernel)}"
    if not kept.exists():
        answer = _try(qemu, kernel)
        if answer is None:  # perhaps this machine was too busy
            return f"KVM fails on this machine: no kernel starts within {_SECONDS:.0f} s"
        cache.mkdir(parents=True, exist_ok=True)
        with replacing(kept) as file:
            file.write(answer.encode())
    return kept.read_text(encoding="utf-8")


def _identity(qemu: str, kernel: Path) -> str:
    """Return what tells this machine since it started, its QEMU and the kernel from others."""
    found = [BOOT_ID.read_text(encoding="ascii").strip()]
    for file in (Path(shutil.which(qemu) or qemu), kernel):
        status = file.stat()
        found.append(f"{file} {status.st_size} {status.st_mtime_ns}")
    return document_digest("\n".join(found).encode())[:32]


def _try(qemu: str, kernel: Path) -> str | None:
    """Return the answer; None if time ran out before there was one."""
    command = [
        *(qemu, "-machine", "q35,accel=kvm", "-cpu", "host", "-m", "256", "-nodefaults", "-no-user-config"),
        *("-display", "none", "-no-reboot", "-serial", "stdio", "-kernel", str(kernel)),
        *("-append", "console=ttyS0 earlyprintk=ttyS0 panic=-1"),
    ]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        return _watch(process)
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _watch(process: subprocess.Popen[bytes]) -> str | None:
    deadline = time.monotonic() + _SECONDS
    seen = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout or 0, selectors.EVENT_READ)
        while (left := deadline - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                data = os.read(key.fd, 1 << 16)
                seen += data
                if _ALIVE in seen:
                    return ""
                if _DEAD in seen or not data:
                    return "KVM fails on this machine: a kernel does not start"
    return None
