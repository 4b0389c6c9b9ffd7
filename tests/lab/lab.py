"""The lab: a chroot of Debian sid with the real composefs tools (`tests/lab/make-lab`)."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def lab_path() -> Path:
    """Return where the lab is, or would be."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("CFSBUILD_LAB") or cache / "cfsbuild" / "lab")


def require(*programs: str) -> None:
    """Skip the test unless the lab has `programs` and this process may enter it."""
    if os.geteuid() != 0:
        pytest.skip("the lab needs root (chroot)")
    for program in programs:
        if not any(
            (lab_path() / place / program).exists() for place in ("usr/bin", "usr/sbin", "usr/lib/systemd")
        ):
            pytest.skip(f"the lab has no {program}: run tests/lab/make-lab")


# The real mkcomposefs opens files through /proc/self/fd: the chroot gets a /proc in a mount namespace of its own.
ENTER = 'mount -t proc proc "$0/proc" && cd / && exec chroot "$0" "$@"'


def run(*arguments: str | bytes, stdin: bytes = b"", env: dict[str, str] | None = None, cwd: str = "/"):
    """Run a program of the lab; return its CompletedProcess with bytes in stdout and stderr."""
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", **(env or {})}
    enter = ["unshare", "--mount", "--propagation", "private", "sh", "-c", ENTER, str(lab_path())]
    command = [*enter, "/usr/bin/env", "-C", cwd, *arguments]
    return subprocess.run(
        command, input=stdin, capture_output=True, check=False, env=environment, timeout=600
    )


def script(text: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run a shell script inside the lab: many programs for the price of one chroot."""
    result = run("sh", "-eu", "-c", text, "sh", *arguments)
    if result.returncode:
        raise RuntimeError(f"lab script failed: {result.stderr[-2000:]!r}")
    return result


@contextmanager
def workspace() -> Iterator[tuple[Path, str]]:
    """Give a temporary directory inside the lab: its path outside and inside."""
    outside = Path(tempfile.mkdtemp(prefix="cfsbuild-", dir=lab_path() / "tmp"))
    try:
        yield outside, f"/tmp/{outside.name}"  # noqa: S108 (the lab's own, fresh)
    finally:
        shutil.rmtree(outside)
