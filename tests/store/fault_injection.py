"""Faults at single system calls, by strace: which calls a program makes, and one of them killed or refused."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

CALLS = (
    "mkdir,mkdirat,openat,write,pwrite64,fchmod,fchmodat,link,linkat,rename,renameat,renameat2,symlink,symlinkat,"
    "unlink,unlinkat,rmdir,fsync,fdatasync,syncfs,flock,fcntl,ftruncate,utimensat"
)
READS = re.compile(r"O_RDONLY|F_GETF|F_SETFD|F_DUPFD|LOCK_UN")


def run(driver: Path, arguments: Sequence[str], *, strace: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run the Python program `driver`, which finds its modules beside it, under strace."""
    # strace counts the calls of each thread for itself: there shall be only one.
    environment = {
        **os.environ,
        "PYTHONHASHSEED": "0",
        "PYTHONPATH": str(driver.parent),
        "CFSBUILD_NATIVE": "0",
    }
    command = ["strace", "-f", "-qq", "-y", *strace, sys.executable, str(driver), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def points(driver: Path, arguments: Sequence[str], place: Path, log: Path) -> list[tuple[str, int]]:
    """Return (system call, how many of it came before and including) of each that may change `place`."""
    result = run(driver, arguments, strace=["-e", f"trace={CALLS}", "-o", str(log)])
    assert result.returncode == 0, result.stderr
    seen: Counter[str] = Counter()
    found = []
    lines = log.read_text().splitlines()
    assert len({line.split()[0] for line in lines}) == 1, "the program has threads"
    for line in lines:
        match = re.match(r"\d+ +(\w+)\(", line)
        if not match:
            continue
        name = match[1]
        seen[name] += 1
        if str(place) in line and not READS.search(line):
            found.append((name, seen[name]))
    return found


def inject(
    driver: Path, arguments: Sequence[str], fault: str, log: Path = Path(os.devnull)
) -> subprocess.CompletedProcess[str]:
    """Run the program with a fault, such as `write:error=EIO:when=3`; `log` gets the calls of that name."""
    name = fault.partition(":")[0]
    strace = ["-e", f"trace={name}", "-e", f"inject={fault}", "-o", str(log)]
    return run(driver, arguments, strace=strace)
