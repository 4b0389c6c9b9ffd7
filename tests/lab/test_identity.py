"""Our images are, byte for byte, those of the real mkcomposefs."""

import lab
import pytest
from generator import many_shared_xattrs, random_dump, wide_dump

from cfsbuild.erofs.writer import write_image
from cfsbuild.tree.dump import format_entry

pytestmark = pytest.mark.lab

DUMPS = 2000
BATCH = 250
MAKE = """
for dump in "$1"/*.dump; do
    for version in 0 1; do
        mkcomposefs --from-file --min-version=$version --max-version=$version "$dump" "$dump.$version" 2>"$dump.err" ||
            echo "$dump: $(cat "$dump.err")"
    done
    mkcomposefs --from-file "$dump" "$dump.default"
done
"""


@pytest.fixture(autouse=True)
def _lab():
    lab.require("mkcomposefs")


def assert_identical(dumps):
    with lab.workspace() as (outside, inside):
        for number, dump in enumerate(dumps):
            text = b"".join(format_entry(entry) + b"\n" for entry in dump)
            (outside / f"{number}.dump").write_bytes(text)
        refused = lab.script(MAKE, inside).stdout
        assert refused == b""
        for number, dump in enumerate(dumps):
            for version in (0, 1):
                theirs = (outside / f"{number}.dump.{version}").read_bytes()
                assert write_image(dump, format=version) == theirs, f"dump {number}, version {version}"
            theirs = (outside / f"{number}.dump.default").read_bytes()
            assert write_image(dump, format=0, max_format=1) == theirs, f"dump {number}, default"


@pytest.mark.parametrize("first", range(0, DUMPS, BATCH))
def test_random_dumps_give_the_same_images(first):
    assert_identical([random_dump(seed) for seed in range(first, first + BATCH)])


def test_wide_directories_give_the_same_images():
    assert_identical([wide_dump(names, names) for names in (20, 31, 45, 46, 300, 1000, 5000)])


def test_xattrs_beyond_the_sharing_limit_give_the_same_images():
    assert_identical([many_shared_xattrs(count, count) for count in (127, 128, 129, 300, 900)])
