"""Programs of this machine."""

from __future__ import annotations

import os
import shutil

SYSTEM_PROGRAMS = ("/usr/sbin", "/sbin")
"""Where programs are that the PATH of ordinary users may lack."""


def find_program(name: str) -> str | None:
    """Return the path of a program, also where only root looks; None if it is not installed."""
    return shutil.which(name) or shutil.which(name, path=os.pathsep.join(SYSTEM_PROGRAMS))
