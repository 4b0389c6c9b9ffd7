import os
import time

import pytest
from build_project import names

from cfsbuild.build.commit import Commit
from cfsbuild.build.outputs import altered
from cfsbuild.build.outputs import write_outputs as write_when_committed
from cfsbuild.build.state import BuildState, load_state, save_state
from cfsbuild.errors import StoreError, UsageError
from cfsbuild.targets.kind import OutFile


def no_image(digest):
    raise AssertionError("no image is asked for")


class Transaction:
    """Stands for a store's: what is committed to is not the matter here."""

    def __init__(self, commit):
        self.commit = commit


def write_outputs(directory, files, open_image):
    return write_when_committed(directory, files, open_image, Commit(Transaction(lambda: None)))


@pytest.mark.parametrize("size", [3, 2 << 20])
def test_nothing_appears_before_the_images_are_in_the_store(tmp_path, size):
    (tmp_path / "a").write_text("old")
    seen = []

    def commit():
        time.sleep(0.1)
        seen.append((tmp_path / "a").read_text())

    files = [OutFile(name="a", data=b"n" * size), OutFile(name="b", data=b"new")]
    write_when_committed(tmp_path, files, no_image, Commit(Transaction(commit)))
    assert seen == ["old"]
    assert (tmp_path / "a").read_text() == "n" * size


def disk_full():
    raise StoreError("the disk is full")


@pytest.mark.parametrize("size", [3, 2 << 20])
def test_a_commit_that_fails_leaves_the_files_as_they_were_and_says_so_once(tmp_path, size):
    (tmp_path / "a").write_text("old")
    commit = Commit(Transaction(disk_full))
    with pytest.raises(StoreError, match="the disk is full"):
        write_when_committed(tmp_path, [OutFile(name="a", data=b"n" * size)], no_image, commit)
    commit.wait()
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a").read_text() == "old"


def test_a_file_replaces_the_one_that_is_there_at_once(tmp_path):
    (tmp_path / "a").write_text("old")
    with (tmp_path / "a").open() as old:
        write_outputs(tmp_path, [OutFile(name="a", data=b"new")], no_image)
        assert old.read() == "old"
    assert (tmp_path / "a").read_text() == "new"
    assert names(tmp_path) == ["a"]


def test_an_image_is_copied_never_linked(tmp_path):
    image = tmp_path / "image"
    image.write_bytes(b"i" * 70_000)
    write_outputs(
        tmp_path / "out", [OutFile(name="x.cfs", image="00")], lambda _: os.open(image, os.O_RDONLY)
    )
    assert (tmp_path / "out" / "x.cfs").read_bytes() == image.read_bytes()
    assert image.stat().st_nlink == 1


def test_files_do_not_depend_on_the_umask(tmp_path):
    old = os.umask(0o077)
    try:
        write_outputs(tmp_path, [OutFile(name="a", data=b"new")], no_image)
    finally:
        os.umask(old)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o644


def test_a_failed_write_leaves_nothing_behind(tmp_path):
    def refuse(digest):
        raise OSError(5, "Input/output error")

    with pytest.raises(StoreError, match="cannot write to the output directory"):
        write_outputs(tmp_path, [OutFile(name="x.cfs", image="00")], refuse)
    assert names(tmp_path) == []


def test_an_output_directory_that_is_a_file_is_an_error_with_a_hint(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(StoreError) as caught:
        write_outputs(tmp_path / "out", [OutFile(name="a", data=b"")], no_image)
    assert "--output" in caught.value.resolution


@pytest.mark.parametrize("name", ["../a", "/a", "..", ""])
def test_names_that_lead_out_of_the_directory_are_refused(tmp_path, name):
    with pytest.raises(UsageError):
        write_outputs(tmp_path, [OutFile(name=name, data=b"")], no_image)


def test_altered_names_files_that_are_gone_replaced_or_touched(tmp_path):
    files = [OutFile(name=name, data=name.encode()) for name in "abcd"]
    records = write_outputs(tmp_path, files, no_image)
    assert altered(tmp_path, records) == []
    (tmp_path / "a").unlink()
    (tmp_path / "b").write_text("B")
    os.utime(tmp_path / "c", (1, 1))
    assert altered(tmp_path, records) == ["a", "b", "c"]


def test_a_state_that_is_damaged_or_of_another_version_is_as_good_as_none(tmp_path):
    path = tmp_path / "state" / "s.json"
    assert load_state(path) == BuildState()
    save_state(path, BuildState(image="x"))
    assert load_state(path).image == "x"
    path.write_bytes(path.read_bytes().replace(b'"version":1', b'"version":9'))
    assert load_state(path) == BuildState()
    path.write_bytes(b"{")
    assert load_state(path) == BuildState()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_state_that_another_user_wrote_is_as_good_as_none(tmp_path):
    path = tmp_path / "s.json"
    save_state(path, BuildState(image="x"))
    os.chown(path, 12345, -1)
    assert load_state(path) == BuildState()


def test_old_merges_are_forgotten(tmp_path):
    path = tmp_path / "s.json"
    save_state(path, BuildState(trees={str(number): "t" for number in range(1000)}))
    assert len(load_state(path).trees) == 256
    assert "999" in load_state(path).trees
