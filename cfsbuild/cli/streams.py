"""Standard streams that the caller closed."""

from __future__ import annotations

import contextlib
import os
import sys


def replace_closed() -> None:
    """Let no file that we open take the number of a closed standard stream: data would go there.

    Reading from a closed input and writing to a closed output stay errors (EBADF), for those who do it; what
    is said on a closed standard error is lost.
    """
    for number, flags in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is taken, and all lower ones are in use.
            os.set_inheritable(os.open(os.devnull, flags), True)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 (lives as long as the process)
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


def discard_unwritten() -> None:
    """Write what is still to be written; what cannot be is forgotten, so that nothing complains at exit."""
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.flush()
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        discard_output()


def discard_output() -> None:
    """Let standard output lead nowhere."""
    try:
        sink = os.open(os.devnull, os.O_WRONLY)
        os.dup2(sink, sys.stdout.fileno())
        os.close(sink)
    except (OSError, ValueError):
        # Standard output is no descriptor (a test's buffer): there is nothing left to flush at exit either.
        pass
