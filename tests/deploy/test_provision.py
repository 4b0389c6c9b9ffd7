"""What a machine does once for each image: fs-verity for its objects."""

import os

import pytest

from cfsbuild.deploy import provision
from cfsbuild.errors import StoreError, VerificationError


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
