from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from store_driver import names

from cfsbuild.errors import StoreError, UsageError
from cfsbuild.fsverity.algorithm import Algorithm
from cfsbuild.store.fsck import check_store
from cfsbuild.store.info import store_info
from cfsbuild.store.place import default_path
from cfsbuild.store.store import Store

NOBODY = 65534


def rewrite_meta(path: Path, **changes: object) -> None:
    meta = json.loads((path / "meta.json").read_text())
    meta.update(changes)
    (path / "meta.json").unlink()
    (path / "meta.json").write_text(json.dumps(meta))


@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_a_new_store_has_the_layout_of_composefs_rs(tmp_path, algorithm):
    path = tmp_path / "deep" / "store"
    with Store.init(path, algorithm) as store:
        assert store.algorithm is algorithm
        assert not store.read_only
    meta = json.loads((path / "meta.json").read_text())
    assert meta == {
        "version": 1,
        "algorithm": f"fsverity-{algorithm.value}-12",
        "features": {"compatible": [], "read-only-compatible": ["v1_erofs"], "incompatible": []},
        "erofs_formats": {"default": 1},
    }
    assert (path / "objects").is_dir()
    assert (path / "images/refs").is_dir()
    assert path.stat().st_mode & 0o777 == 0o700
    assert names(path / "cfsbuild/staging") == []


def test_making_a_store_twice_opens_the_first(tmp_path):
    with Store.init(tmp_path / "s") as store, store.transaction() as transaction:
        digest = transaction.add_bytes(b"x" * 100)
        transaction.commit()
    with Store.init(tmp_path / "s") as again:
        assert again.has(digest)
    with pytest.raises(UsageError, match=r"sha256.*sha512"):
        Store.init(tmp_path / "s", Algorithm.SHA512)


def test_a_directory_that_holds_something_else_is_not_touched(tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(StoreError, match="not empty and not a store"):
        Store.init(tmp_path)
    assert names(tmp_path) == ["letter.txt"]


def test_whether_a_store_could_be_made_is_told_without_making_it(tmp_path):
    Store.check_place(tmp_path / "a" / "b")
    Store.check_place(tmp_path)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    for path, words in ((tmp_path, "is not empty and not a store"), (tmp_path / "file", "Not a directory")):
        with pytest.raises(StoreError, match=words):
            Store.check_place(path)


@pytest.mark.parametrize("name", ["missing", "empty", "file"])
def test_what_is_not_a_store_is_not_opened(tmp_path, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="is not a store") as caught:
        Store.open(tmp_path / name)
    assert caught.value.exit_code == 7
    assert "store init" in caught.value.resolution


def test_objects_without_meta_json_are_somebody_elses(tmp_path):
    (tmp_path / "objects").mkdir()
    with pytest.raises(StoreError, match="not a store") as caught:
        Store.open(tmp_path)
    assert "another program" in caught.value.details
    with pytest.raises(StoreError):
        Store.init(tmp_path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"version": 2}, "format version 2"),
        ({"features": {"incompatible": ["zstd_objects"]}}, "features"),
        ({"algorithm": "fsverity-sha256-16"}, "fsverity-sha256-16"),
        ({"version": "1"}, "damaged"),
    ],
)
def test_a_foreign_store_is_refused(tmp_path, changes, words):
    Store.init(tmp_path / "s").close()
    rewrite_meta(tmp_path / "s", **changes)
    with pytest.raises(StoreError, match=words):
        Store.open(tmp_path / "s")


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"[1]", b"null", b'{"version":1}'])
def test_a_damaged_meta_json_is_reported(tmp_path, data):
    Store.init(tmp_path / "s").close()
    (tmp_path / "s/meta.json").unlink()
    (tmp_path / "s/meta.json").write_bytes(data)
    with pytest.raises(StoreError, match=r"meta\.json .* is damaged"):
        Store.open(tmp_path / "s")


def test_unknown_read_only_features_and_fields_permit_reading(tmp_path):
    Store.init(tmp_path / "s").close()
    rewrite_meta(tmp_path / "s", features={"read-only-compatible": ["v1_erofs", "v9"]}, future=[1])
    with Store.open(tmp_path / "s") as store:
        assert store.read_only
        with pytest.raises(StoreError, match="v9") as caught, store.transaction():
            pass
        assert caught.value.exit_code == 7


def test_another_algorithm_than_the_recipes_is_a_usage_error(tmp_path):
    Store.init(tmp_path / "s").close()
    with pytest.raises(UsageError, match="sha512 is asked for"):
        Store.open(tmp_path / "s", algorithm=Algorithm.SHA512)


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777])
def test_a_store_that_others_can_write_is_refused_unless_shared(tmp_path, mode):
    Store.init(tmp_path / "s").close()
    (tmp_path / "s").chmod(mode)
    with pytest.raises(StoreError, match="other users can write"):
        Store.open(tmp_path / "s")
    Store.open(tmp_path / "s", shared=True).close()


@contextlib.contextmanager
def user(uid: int):
    os.setegid(uid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


@pytest.fixture
def public():
    if os.geteuid() != 0:
        pytest.skip("only root can be another user for a while")
    path = Path(tempfile.mkdtemp())
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def test_another_users_store_is_only_read(public):
    with Store.init(public / "s") as store, store.transaction() as transaction:
        digest = transaction.add_bytes(b"content" * 50)
        transaction.commit()
    (public / "s").chmod(0o555)
    with user(NOBODY), Store.open(public / "s") as store:
        assert store.read_object(digest) == b"content" * 50
        assert store_info(store).objects == 1
        assert check_store(store).damage == 0
        with pytest.raises(StoreError, match="may not write") as caught, store.transaction():
            pass
        assert caught.value.reason == "read-only"


def test_root_does_not_write_to_the_store_of_a_user_whom_nobody_trusts(public):
    (public / "home").mkdir()
    os.chown(public / "home", NOBODY, NOBODY)
    with user(NOBODY):
        Store.init(public / "home/s").close()
    with Store.open(public / "home/s") as store:
        assert "not trusted" in store.read_only_reason
    with Store.open(public / "home/s", trusted_uids=[NOBODY]) as store:
        assert not store.read_only


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_a_store_on_a_read_only_mount_is_only_read(tmp_path):
    with Store.init(tmp_path / "s") as store, store.transaction() as transaction:
        digest = transaction.add_bytes(b"content" * 50)
        transaction.commit()
    view = tmp_path / "view"
    view.mkdir()
    subprocess.run(["mount", "--bind", tmp_path / "s", view], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", view], check=True)
        with Store.open(view) as store:
            assert store.read_object(digest) == b"content" * 50
            assert check_store(store).findings == ()
            with pytest.raises(StoreError, match="mounted read-only"), store.transaction():
                pass
    finally:
        subprocess.run(["umount", view], check=True)


def test_a_store_of_composefs_rs_gets_our_rooms_when_it_is_first_written(tmp_path):
    for name in ("objects", "images/refs"):
        (tmp_path / "s" / name).mkdir(parents=True)
    (tmp_path / "s/meta.json").write_text('{"version":1,"algorithm":"fsverity-sha512-12"}')
    with Store.open(tmp_path / "s") as store:
        assert check_store(store).findings == ()
        assert store_info(store).leases == 0
        with store.transaction() as transaction:
            digest = transaction.add_bytes(b"x" * 99)
            transaction.commit()
        assert len(digest) == 64
        assert store.read_object(digest) == b"x" * 99


@pytest.mark.parametrize(
    ("environ", "configured", "expected"),
    [
        ({"CFSBUILD_STORE": "/a", "HOME": "/h"}, Path("/c"), "/a"),
        ({"HOME": "/h"}, Path("/c"), "/c"),
        ({"XDG_DATA_HOME": "/x", "HOME": "/h"}, None, "/x/cfsbuild/store"),
        ({"XDG_DATA_HOME": "relative", "HOME": "/h"}, None, "/h/.local/share/cfsbuild/store"),
    ],
)
def test_the_default_place_follows_environment_configuration_and_xdg(environ, configured, expected):
    assert default_path(environ, configured) == Path(expected)


def test_without_a_home_there_is_no_default_place():
    with pytest.raises(UsageError, match="no place"):
        default_path({})
