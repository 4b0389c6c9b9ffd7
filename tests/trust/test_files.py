"""What is read from outside is a regular file of a length that is sensible, or an error at once."""

import os

import pytest

from cfsbuild.errors import InputError
from cfsbuild.trust.files import read_regular


def test_a_file_is_read_up_to_the_limit(tmp_path):
    (tmp_path / "file").write_bytes(b"12345")
    assert read_regular(tmp_path / "file", limit=5) == b"12345"
    with pytest.raises(InputError, match="too long"):
        read_regular(tmp_path / "file", limit=4)


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_no_file_is_malformed_and_no_descriptor_stays_open(tmp_path, make):
    make(tmp_path / "other")
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 (a number)
    with pytest.raises(InputError, match="not a regular file") as caught:
        read_regular(tmp_path / "other", limit=10)
    assert caught.value.reason == "malformed"
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208 (a number)
