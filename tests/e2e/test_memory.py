"""How much memory large trees need: at most one kilobyte an entry, over 60 MB that a small tree needs too."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ENTRIES = 60_000
BASE = 60 << 20
"""Bytes."""
PER_ENTRY = 1024
"""Bytes."""

RECIPE = """
[image]
name = "large"
[nodes.tree]
kind = "tree"
source = "source"
preserve = ["mode", "owner", "mtime", "xattrs"]
"""

# A process of its own: the peak of a child counts the memory of the process that it was forked from.
REPORTER = """
import os, sys
pid = os.posix_spawn(sys.executable, [sys.executable, "-m", "cfsbuild.cli.main", *sys.argv[1:]], os.environ)
_, status, usage = os.wait4(pid, 0)
print(usage.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status))
"""


class Place(NamedTuple):
    """A directory with a large tree, and a recipe for it."""

    directory: Path

    def peak(self, *arguments: str) -> int:
        """Run a verb; return its largest memory in bytes."""
        command = [sys.executable, "-c", REPORTER, *arguments]
        done = subprocess.run(command, cwd=self.directory, capture_output=True, check=False, text=True)
        assert done.returncode == 0, done.stderr
        return int(done.stdout.split()[-1]) * 1024


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Place:
    directory = tmp_path_factory.mktemp("large")
    (directory / "large.toml").write_text(RECIPE)
    source = directory / "source"
    for number in range(ENTRIES - 100):
        name = source / f"directory-{number % 100}" / f"file-{number}"
        name.parent.mkdir(parents=True, exist_ok=True)
        name.write_bytes(b"%d" % number * 40)
    return Place(directory)


VERBS = {
    "first build": ("--store", "store", "build", "-q", "large.toml"),
    "nothing changed": ("--store", "store", "build", "-q", "large.toml"),
    "one changed": ("--store", "store", "build", "-q", "large.toml"),
    "digest of a directory": ("mkcomposefs", "--print-digest-only", "source"),
    "dump": ("dump", "out/large.cfs"),
    "image of a dump": ("mkcomposefs", "--from-file", "out/large.dump", "again.cfs"),
    "verification": ("--store", "store", "verify", "large"),
    "gc": ("--store", "store", "store", "gc", "-n"),
    "check of a store": ("--store", "store", "store", "fsck"),
}


@pytest.mark.slow
@pytest.mark.parametrize("verb", VERBS)
def test_the_peak_of_memory_is_bounded_by_the_number_of_entries(place, verb):
    if verb == "one changed":
        (place.directory / "source" / "directory-1" / "file-1").write_bytes(b"something else" * 20)
    peak = place.peak(*VERBS[verb])
    assert peak < BASE + ENTRIES * PER_ENTRY, f"{(peak - BASE) / ENTRIES:.0f} bytes an entry"
