"""Two recipes on one directory, on a file system whose times have whole seconds."""

import os
import shutil
import subprocess
import time

import pytest

from cfsbuild.build.pipeline import Options, build, make_request

RECIPE = '[image]\nname = "{name}"\n[nodes.tree]\nkind = "tree"\nsource = "{source}"\ntarget = "{target}"\n'


@pytest.fixture
def coarse(tmp_path):
    """Give a directory of an ext4 with inodes of 128 bytes, which have no room for nanoseconds."""
    if os.geteuid() != 0 or shutil.which("mkfs.ext4") is None:
        pytest.skip("a file system of the test's own needs root and mkfs.ext4")
    image, place = tmp_path / "ext4", tmp_path / "coarse"
    image.touch()
    os.truncate(image, 64 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-I", "128", image], check=True, capture_output=True)
    place.mkdir()
    subprocess.run(["mount", "-o", "loop", image, place], check=True)
    yield place
    subprocess.run(["umount", place], check=True)


def built(tmp_path, name, store, source):
    target = "/" if name == "first" else "/usr"
    recipe = tmp_path / f"{name}.toml"
    recipe.write_text(RECIPE.format(name=name, source=source, target=target))
    request = make_request(recipe, store=tmp_path / store, output=tmp_path / f"{store}-out")
    (result,) = build(request, Options(), environ={})
    return result.images[0].digest


@pytest.mark.slow
def test_what_another_recipe_read_of_a_file_that_changed_within_a_second_is_not_taken_for_what_was_built(
    coarse, tmp_path
):
    file = coarse / "file"
    for _ in range(10):
        time.sleep(1.005 - time.time() % 1)
        file.write_bytes(b"A" * 200)
        before = file.stat()
        built(tmp_path, "first", "store", coarse)
        file.write_bytes(b"B" * 200)
        second = built(tmp_path, "second", "store", coarse)
        after = file.stat()
        if before.st_ctime_ns == after.st_ctime_ns:
            break
    else:
        pytest.fail("this machine does not build twice within a second")
    time.sleep(2.5)
    assert built(tmp_path, "first", "store", coarse) == built(tmp_path, "first", "fresh", coarse)
    assert second == built(tmp_path, "second", "fresh", coarse)
