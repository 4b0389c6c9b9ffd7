"""What a process that holds a private key or a secret must not do."""

from __future__ import annotations

import ctypes
import os

_PR_SET_DUMPABLE = 4


def forbid_core_dumps() -> None:
    """Let nobody have this process's memory: no core dump, no debugger of the same user. Raises `OSError`."""
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
