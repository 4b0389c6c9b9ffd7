"""`cfsbuild init`: what it writes is right, and can be built at once."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import tomli

from cfsbuild.cli.main import main
from cfsbuild.nodes.registry import NODE_KINDS
from cfsbuild.recipe.schema import json_schema
from cfsbuild.targets.registry import TARGET_KINDS


@pytest.fixture(autouse=True)
def _own_store(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("CFSBUILD_STORE", str(tmp_path / "store"))


def test_the_new_recipe_builds_at_once(tmp_path: Path, capfd, monkeypatch) -> None:
    assert main(["init", str(tmp_path / "my project")]) == 0
    monkeypatch.chdir(tmp_path / "my project")
    capfd.readouterr()
    assert main(["build", "--progress", "none"]) == 0
    digest, path = capfd.readouterr().out.split()
    assert Path(path).is_file()
    assert path == "out/my-project-1.0.cfs"
    assert len(digest) == 64
    assert main(["cat", path, "/etc/motd"]) == 0
    assert capfd.readouterr().out == "Welcome to my-project, release 1.0.\n"


def test_every_profile_of_the_new_recipe_is_right(tmp_path: Path, capfd) -> None:
    main(["init", str(tmp_path / "p")])
    capfd.readouterr()
    recipe = str(tmp_path / "p" / "recipe.toml")
    assert main(["check", recipe, "-p", "debug", "-o", "hostname=x"]) == 0
    assert main(["show", recipe, "-p", "debug"]) == 0
    assert "This is a debug build." in capfd.readouterr().out


def test_the_new_recipe_satisfies_the_schema(tmp_path: Path) -> None:
    main(["init", str(tmp_path / "p")])
    document = tomli.loads((tmp_path / "p" / "recipe.toml").read_text())
    jsonschema.validate(document, json_schema(NODE_KINDS, TARGET_KINDS))


def test_files_have_the_modes_that_they_need_whatever_the_umask(tmp_path: Path) -> None:
    main(["init", str(tmp_path)])
    assert (tmp_path / "files/bin/hello").stat().st_mode & 0o100
    assert not (tmp_path / "recipe.toml").stat().st_mode & 0o111


def test_nothing_is_overwritten_and_nothing_written_then(tmp_path: Path, capfd) -> None:
    (tmp_path / "motd.j2").write_text("mine")
    assert main(["init", str(tmp_path)]) == 2
    assert "motd.j2 exists already" in capfd.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["motd.j2"]
    assert (tmp_path / "motd.j2").read_text() == "mine"


def test_a_dangling_link_counts_as_something_that_exists(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").symlink_to("nowhere")
    assert main(["init", str(tmp_path)]) == 2
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(
    ("directory", "name"), [("edge", "edge"), (".hidden", "hidden"), ("ä ö", "hello"), ("a" * 100, "a" * 64)]
)
def test_the_image_is_named_after_the_directory(tmp_path: Path, capfd, directory: str, name: str) -> None:
    assert main(["init", "--json", str(tmp_path / directory)]) == 0
    document = json.loads(capfd.readouterr().out)
    assert document["name"] == name
    assert all(Path(path).is_file() for path in document["files"])
    assert tomli.loads((tmp_path / directory / "recipe.toml").read_text())["image"]["name"] == name


def test_a_name_that_is_none_is_refused(tmp_path: Path, capfd) -> None:
    assert main(["init", "--name", "a/b", str(tmp_path / "x")]) == 2
    assert "cannot be the name of an image" in capfd.readouterr().err
    assert not (tmp_path / "x").exists()


def test_a_directory_that_cannot_be_made_is_an_error_without_a_traceback(tmp_path: Path, capfd) -> None:
    (tmp_path / "file").write_text("")
    assert main(["init", str(tmp_path / "file" / "x")]) == 7
    assert "Traceback" not in capfd.readouterr().err
