"""The first steps of a machine, as far as they can be taken without one."""

import os

import pytest

from cfsbuild.deploy import early, provision
from cfsbuild.deploy.early import BootError
from cfsbuild.errors import StoreError, VerificationError


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


def test_what_is_no_object_is_not_made_one(tmp_path):
    (tmp_path / "ab").mkdir()
    (tmp_path / "ab/readme").write_text("x")
    with pytest.raises(VerificationError, match="readme is not an object"):
        provision.enable_objects(tmp_path)


def test_where_the_kernel_has_no_verity_nothing_is_enabled(tmp_path):
    (tmp_path / "ab").mkdir()
    (tmp_path / "ab" / ("cd" * 31)).write_text("x")
    with pytest.raises((StoreError, VerificationError)):
        provision.enable_objects(tmp_path)


def test_a_fifo_that_somebody_called_an_object_is_not_waited_for(tmp_path):
    (tmp_path / "ab").mkdir()
    os.mkfifo(tmp_path / "ab" / ("cd" * 31))
    with pytest.raises((StoreError, VerificationError)):
        provision.enable_objects(tmp_path)


def test_that_an_image_was_given_verity_is_noted_for_this_image_alone(tmp_path):
    assert not provision.is_done(tmp_path, "ab" * 32)
    provision.set_done(tmp_path, "ab" * 32)
    assert provision.is_done(tmp_path, "ab" * 32)
    assert not provision.is_done(tmp_path, "cd" * 32)
