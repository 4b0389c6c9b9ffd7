"""Components for systemd-pcrlock: names that are none are refused. Whether they are right, the lab says."""

import pytest

from cfsbuild.errors import UsageError
from cfsbuild.trust import pcrlock

DIGEST = "fsverity-sha256-12:" + "ab" * 32


def test_each_image_of_a_name_is_a_variant():
    one, two = (pcrlock.file_name("edge", DIGEST[:-1] + end) for end in "01")
    assert one.partition("/")[0] == two.partition("/")[0] == "780-cfsbuild-edge.pcrlock.d"
    assert one != two


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "x" * 129, "a\n"])
def test_a_name_that_is_no_part_of_a_file_name_is_refused(name):
    with pytest.raises(UsageError) as caught:
        pcrlock.file_name(name, DIGEST)
    assert caught.value.reason == "name"
