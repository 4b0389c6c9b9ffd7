"""Files are replaced whole or not at all, and killed writers leave nothing for long."""

import subprocess
import sys

import pytest

from cfsbuild.store.replacing import replacing


def names(directory):
    return [path.name for path in directory.iterdir()]


KILLED = """
import os, signal, sys
from pathlib import Path
from cfsbuild.store.replacing import replacing
with replacing(Path(sys.argv[1])) as file:
    file.write(b"half")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_file_is_there_when_the_block_ends(tmp_path):
    path = tmp_path / "f"
    path.write_text("old")
    with replacing(path) as file:
        file.write(b"new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o644
    assert names(tmp_path) == ["f"]


def fail(path):
    with replacing(path) as file:
        file.write(b"new")
        raise KeyError


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "f"
    path.write_text("old")
    with pytest.raises(KeyError):
        fail(path)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["f"]


def test_what_a_killed_writer_left_goes_and_what_a_living_one_writes_stays(tmp_path):
    path = tmp_path / "f"
    subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert len(names(tmp_path)) == 1
    with replacing(path) as first:
        assert len(names(tmp_path)) == 1
        with replacing(path) as second:
            second.write(b"second")
        first.write(b"first")
    assert path.read_text() == "first"
    assert names(tmp_path) == ["f"]
