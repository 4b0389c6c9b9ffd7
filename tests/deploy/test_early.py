"""The first steps of a machine, as far as they can be taken without one."""

import pytest

from cfsbuild.deploy import early
from cfsbuild.deploy.early import BootError


@pytest.mark.parametrize(
    ("words", "seconds"),
    [
        ({}, 30),
        ({"cfsbuild.wait": "5"}, 5),
        ({"cfsbuild.wait": "0"}, 0),
        ({"cfsbuild.wait": "99999999999"}, 600),
        ({"cfsbuild.wait": "-1"}, 30),
        ({"cfsbuild.wait": "²"}, 30),
        ({"cfsbuild.wait": ""}, 30),
    ],
)
def test_the_command_line_says_how_long_to_wait(words, seconds):
    assert early.patience(30, words) == seconds


def test_a_device_that_does_not_come_is_named_with_those_that_are_there():
    with pytest.raises(BootError, match="there is no block device /dev/none") as caught:
        early.wait_for_device("/dev/none", 0)
    assert caught.value.reason == "state-device"
    assert "there are: " in caught.value.details


def test_a_module_that_the_kernel_refuses_is_named(tmp_path):
    (tmp_path / "list").write_text(f"{tmp_path}/bad.ko\n")
    with pytest.raises(BootError, match=r"cannot load module .*bad.ko: No such file"):
        early.load_modules(tmp_path / "list")
    (tmp_path / "bad.ko").write_bytes(b"no module")
    with pytest.raises(BootError, match=r"cannot load module .*bad.ko"):
        early.load_modules(tmp_path / "list")


def test_without_a_list_nothing_is_loaded(tmp_path):
    assert early.load_modules(tmp_path / "list") == 0
