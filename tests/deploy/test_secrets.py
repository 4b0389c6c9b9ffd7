"""Secrets go to memory, and only if all of the mount succeeds."""

import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from cfsbuild.deploy.secrets import secrets_written
from cfsbuild.errors import UsageError

SECRETS = {"a": b"first", "b": b"second"}


@pytest.fixture
def memory():
    if not Path("/dev/shm").is_dir():  # noqa: S108 (memory)
        pytest.skip("there is no /dev/shm")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        yield Path(directory)


def refused(directory):
    with pytest.raises(UsageError) as caught, secrets_written(SECRETS, directory):
        pytest.fail("it was written to")
    assert caught.value.reason == "secrets-place"
    return caught.value.details


def test_they_stay_when_all_goes_well(memory):
    with secrets_written(SECRETS, memory):
        pass
    assert {path.name: path.read_bytes() for path in memory.iterdir()} == SECRETS
    assert {path.stat().st_mode & 0o777 for path in memory.iterdir()} == {0o400}


@pytest.mark.parametrize("kind", [OSError, KeyboardInterrupt])
def test_none_stays_when_the_rest_fails_or_is_interrupted(memory, kind):
    with pytest.raises(kind), secrets_written(SECRETS, memory):
        raise kind
    assert list(memory.iterdir()) == []


@pytest.mark.parametrize("link", [False, True])
def test_what_is_there_is_not_replaced_and_nothing_is_written_beside_it(memory, link):
    if link:
        (memory / "b").symlink_to("elsewhere")
    else:
        (memory / "b").write_text("old")
    assert refused(memory) == "there is b already"
    assert [path.name for path in memory.iterdir()] == ["b"]


def test_a_link_to_a_directory_is_no_place(memory):
    (memory / "real").mkdir(mode=0o700)
    (memory / "link").symlink_to("real")
    with pytest.raises(OSError, match="link"), secrets_written(SECRETS, memory / "link"):
        pytest.fail("it was followed")
    assert list((memory / "real").iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives directories away, and mounts")
def test_a_directory_of_somebody_else_is_no_place(memory):
    os.chown(memory, 12345, 12345)
    assert refused(memory) == "others can reach it"


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_mount_points_of_any_name_do_not_matter(tmp_path):
    places = [tmp_path / "odd\x0cname", tmp_path / "later"]
    try:
        for place in places:
            place.mkdir()
            subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=700", "none", place], check=True)
        with secrets_written(SECRETS, places[-1]):
            pass
        assert {path.name: path.read_bytes() for path in places[-1].iterdir()} == SECRETS
    finally:
        for place in places:
            subprocess.run(["umount", place], check=False, capture_output=True)
