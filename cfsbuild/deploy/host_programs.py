"""Programs of this machine."""

from __future__ import annotations

import os
import shutil
import subprocess

SYSTEM_PROGRAMS = ("/usr/sbin", "/sbin")
"""Where programs are that the PATH of ordinary users may lack."""

_END_SECONDS = 5.0


def find_program(name: str) -> str | None:
    """Return the path of a program, also where only root looks; None if it is not installed."""
    return shutil.which(name) or shutil.which(name, path=os.pathsep.join(SYSTEM_PROGRAMS))


def end_program(process: subprocess.Popen[bytes]) -> None:
    """End a program, gently first: it may have something to write."""
    process.terminate()
    try:
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
