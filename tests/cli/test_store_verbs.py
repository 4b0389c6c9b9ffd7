from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from cfsbuild.erofs.writer import write_image
from cfsbuild.store.store import Store
from cfsbuild.tree.flavour import to_dump
from cfsbuild.tree.inode import Inode
from cfsbuild.tree.layer import Tree


def cfsbuild(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HOME": "/nonexistent", "NO_COLOR": "1"}
    environment.pop("CFSBUILD_STORE", None)
    command = [sys.executable, "-m", "cfsbuild.cli.main", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)


@pytest.fixture
def place(tmp_path):
    """Return a store that holds one image of one object, and one object that nothing needs."""
    with Store.init(tmp_path / "store") as store, store.transaction() as transaction:
        digest = transaction.add_bytes(b"program" * 100)
        transaction.add_bytes(b"loose" * 100)
        tree = Tree(
            entries={
                b"/": Inode(mode=stat.S_IFDIR | 0o755),
                b"/f": Inode(mode=stat.S_IFREG | 0o755, size=700, digest=digest),
            }
        )
        image = transaction.put_image(bytes(write_image(to_dump(tree, epoch=0), format=1)), objects=[digest])
        transaction.set_ref("demo/app", image)
        transaction.commit()
    return tmp_path / "store"


def object_paths(place: Path) -> list[Path]:
    return sorted((place / "objects").glob("*/*"), key=lambda path: path.stat().st_size)


def damage(place: Path) -> Path:
    path = next(path for path in object_paths(place) if path.read_bytes().startswith(b"program"))
    path.chmod(0o644)
    path.write_bytes(b"PROGRAM" * 100)
    path.chmod(0o444)
    return path


def test_init_makes_a_store_and_says_where(tmp_path):
    result = cfsbuild("store", "init", tmp_path / "s")
    assert (result.returncode, result.stdout) == (0, f"{tmp_path / 's'}\n")
    again = cfsbuild("store", "init", tmp_path / "s", "--json")
    assert json.loads(again.stdout)["algorithm"] == "sha256"
    other = cfsbuild("store", "init", tmp_path / "s", "--digest", "sha512")
    assert other.returncode == 2
    assert "sha512 is asked for" in other.stderr


def test_init_takes_the_store_that_the_option_names(tmp_path):
    assert cfsbuild("--store", tmp_path / "s", "store", "init", "--digest", "sha512").returncode == 0
    assert (
        json.loads(cfsbuild("store", "info", "--store", tmp_path / "s", "--json").stdout)["algorithm"]
        == "sha512"
    )


def test_init_says_when_fs_verity_is_not_enforced(tmp_path):
    result = cfsbuild("store", "init", tmp_path / "s")
    with Store.open(tmp_path / "s") as store:
        assert ("fs-verity is not enforced" in result.stderr) != store.requires_verity


def test_info_is_a_table_or_json(place):
    text = cfsbuild("store", "info", "--store", place).stdout
    assert "in 1 image" in text
    assert "  in no image    1 object, 500\n" in text
    facts = json.loads(cfsbuild("store", "info", "--store", place, "--json").stdout)
    assert (facts["objects"], facts["images"], facts["references"]) == (3, 1, 1)
    assert facts["verity"] or facts["verity_reason"]


def test_info_lists_images_by_name_and_those_without_one(place):
    tree = Tree(entries={b"/": Inode(mode=stat.S_IFDIR | 0o700)})
    with Store.open(place) as store, store.transaction() as transaction:
        ((name, digest),) = store.refs().items()
        unnamed = transaction.put_image(write_image(to_dump(tree, epoch=7), format=1)).hex()
        transaction.commit()
    lines = cfsbuild("store", "info", "--images", "--store", place).stdout.splitlines()
    assert lines == [f"{digest.hex()}  {name}", f"{unnamed}  -"]
    document = json.loads(cfsbuild("store", "info", "--images", "--json", "--store", place).stdout)
    assert document == {
        "version": 1,
        "images": [{"name": name, "digest": digest.hex()}, {"name": "", "digest": unnamed}],
    }


def test_fsck_of_a_good_store_is_clean(place):
    result = cfsbuild("store", "fsck", "--store", place)
    assert result.returncode == 0
    assert result.stdout.endswith(": clean\n")


def test_fsck_exits_5_and_names_what_is_damaged(place):
    path = damage(place)
    result = cfsbuild("store", "fsck", "--store", place)
    assert result.returncode == 5
    assert f"damage: object-digest: {path.relative_to(place)}" in result.stdout
    assert "1 thing is damaged" in result.stderr
    assert "Traceback" not in result.stderr
    report = json.loads(cfsbuild("store", "fsck", "--store", place, "--json").stdout)
    assert [finding["kind"] for finding in report["findings"]] == ["object-digest"]


def test_fsck_repairs_from_another_store(place, tmp_path):
    shutil.copytree(place, tmp_path / "twin", symlinks=True)
    damage(place)
    result = cfsbuild("store", "fsck", "--store", place, "--repair", "--from", tmp_path / "twin")
    assert result.returncode == 0, result.stderr
    assert "repaired: object-digest: " in result.stdout
    assert cfsbuild("store", "fsck", "--store", place).stdout.endswith(": clean\n")


def test_fsck_from_needs_repair(place, tmp_path):
    assert cfsbuild("store", "fsck", "--store", place, "--from", tmp_path).returncode == 2


def test_gc_dry_run_says_why_and_changes_nothing(place):
    result = cfsbuild("store", "gc", "-n", "--store", place)
    assert result.returncode == 0
    assert "keep 2 objects: reference demo/app\n" in result.stdout
    assert "would remove 1 object (500); 2 objects stay" in result.stdout
    assert len(object_paths(place)) == 3
    each = cfsbuild("store", "gc", "-n", "-v", "--store", place).stdout
    assert each.count("keep object") == 2
    assert each.count("remove object") == 1


def test_gc_removes_and_then_frees(place):
    result = cfsbuild("store", "gc", "--store", place, "--json")
    assert [item["kind"] for item in json.loads(result.stdout)["removed"]] == ["object"]
    assert "freed 500 of 1 object" in cfsbuild("store", "gc", "--store", place, "--grace", "0s").stdout
    assert len(object_paths(place)) == 2


@pytest.mark.parametrize("text", ["3x", "", "-1", "1.5h", "d", "9999999999"])
def test_a_wrong_duration_is_a_usage_error(place, text):
    result = cfsbuild("store", "gc", "--store", place, f"--grace={text}")
    assert result.returncode == 2
    assert "no duration" in result.stderr


@pytest.mark.parametrize("verb", ["info", "fsck", "gc", "enable-verity"])
def test_without_a_store_every_verb_says_how_to_make_one(tmp_path, verb):
    result = cfsbuild("store", verb, "--store", tmp_path / "none")
    assert result.returncode == 7
    assert "is not a store" in result.stderr
    assert "store init" in result.stderr
    assert "Traceback" not in result.stderr


def test_enable_verity_does_it_or_says_why_not(place):
    result = cfsbuild("store", "enable-verity", "--store", place)
    facts = json.loads(cfsbuild("store", "info", "--store", place, "--json").stdout)
    assert facts["verity"] == (result.returncode == 0)
    if result.returncode:
        assert result.returncode == 7
        assert "fs-verity" in result.stderr


def named(place: Path, *names: str) -> str:
    """Give the image of the store further names; return its digest."""
    with Store.open(place) as store, store.transaction() as transaction:
        (digest,) = store.images()
        for name in names:
            transaction.set_ref(name, digest)
        transaction.commit()
    return digest.hex()


def test_rm_removes_names_and_gc_then_frees_the_image(place):
    digest = named(place, "web-1")
    one = cfsbuild("store", "rm", "web-1", "--store", place)
    assert (one.returncode, one.stdout, one.stderr) == (0, f"{digest}  web-1\n", "")
    last = cfsbuild("store", "rm", "demo/app", "--store", place)
    assert (last.returncode, last.stdout) == (0, f"{digest}  demo/app\n")
    assert "1 image has no name now" in last.stderr
    assert "store gc" in last.stderr
    assert len(object_paths(place)) == 3
    cfsbuild("store", "gc", "--grace", "0", "--keep-age", "0", "--store", place)
    assert object_paths(place) == []


def test_rm_removes_all_names_or_none(place):
    named(place, "web-1", "web-2")
    result = cfsbuild("store", "rm", "web-1", "web-3", "demo/ap", "--store", place)
    assert (result.returncode, result.stdout) == (2, "")
    assert "there is no name web-3, demo/ap in the store" in result.stderr
    assert "nothing was removed" in result.stderr
    assert "demo/ap: did you mean `demo/app`?" in result.stderr
    alone = cfsbuild("store", "rm", "demo", "--store", place)
    assert "did you mean `demo/app`?" in alone.stderr
    with Store.open(place) as store:
        assert list(store.refs()) == ["demo/app", "web-1", "web-2"]


def test_rm_says_as_json_what_is_left_without_a_name(place):
    digest = named(place, "web-1", "web-2")
    arguments = ("--json", "--store", place)
    some = json.loads(cfsbuild("store", "rm", "web-2", "web-1", "web-2", *arguments).stdout)
    assert some == {
        "version": 1,
        "dry_run": False,
        "removed": [{"name": "web-2", "digest": digest}, {"name": "web-1", "digest": digest}],
        "unnamed": [],
    }
    assert json.loads(cfsbuild("store", "rm", "demo/app", *arguments).stdout)["unnamed"] == [digest]


def test_rm_with_n_removes_nothing(place):
    digest = named(place)
    result = cfsbuild("-n", "store", "rm", "demo/app", "--store", place)
    assert (result.returncode, result.stdout) == (0, f"{digest}  demo/app\n")
    with Store.open(place) as store:
        assert list(store.refs()) == ["demo/app"]


def test_rm_needs_a_store_that_can_be_written(tmp_path, place):
    assert cfsbuild("store", "rm", "x", "--store", tmp_path / "none").returncode == 7
    assert cfsbuild("store", "rm", "../x", "--store", place).returncode == 2
    assert cfsbuild("store", "rm", "--store", place).returncode == 2
