"""`cfsbuild show` and `cfsbuild check`, as their users see them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tomli

from cfsbuild.cli.main import main

RECIPE = """
[image]
name = "edge"
version = "{{ release }}"
[vars]
release = "1.0"
hostname = "edge-{{ release }}"
[profiles.debug.vars]
hostname = "debug"
[nodes.hostname]
kind = "file"
target = "/etc/hostname"
content = "{{ hostname }}\\n"
[nodes.motd]
kind = "file"
target = "/etc/motd"
needs = ["hostname"]
content = '''
a
"b"
'''
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE)
    return path


def test_show_writes_toml_with_everything_filled_in(recipe: Path, capfd) -> None:
    assert main(["show", str(recipe)]) == 0
    shown = tomli.loads(capfd.readouterr().out)
    assert shown["image"] == {"name": "edge", "version": "1.0", "epoch": 0, "digest": "sha256", "format": 1}
    assert shown["nodes"]["hostname"] == {"kind": "file", "target": "/etc/hostname", "content": "edge-1.0\n"}
    assert shown["nodes"]["motd"]["content"] == 'a\n"b"\n'
    assert shown["targets"] == {"image": {}}


def test_show_all_adds_what_nobody_wrote(recipe: Path, capfd) -> None:
    assert main(["show", "--all", str(recipe)]) == 0
    shown = tomli.loads(capfd.readouterr().out)
    assert shown["nodes"]["hostname"]["mode"] == "0644"
    assert shown["targets"]["image"]["manifest"] is True


def test_show_origin_says_where_each_value_came_from(recipe: Path, capfd, monkeypatch) -> None:
    monkeypatch.chdir(recipe.parent)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "5")
    assert main(["show", "--origin", "-p", "debug", "-o", "release=2"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert "epoch = 5  # environment (SOURCE_DATE_EPOCH)" in lines
    assert 'release = "2"  # command line (-o release)' in lines
    assert 'hostname = "debug"  # recipe.toml:9 (profile debug)' in lines
    assert 'content = "debug\\n"  # recipe.toml:13' in lines
    assert 'digest = "sha256"  # default' in lines
    assert "[nodes.motd]  # recipe.toml:14" in lines


def test_show_json_has_the_same_and_origins_on_request(recipe: Path, capfd) -> None:
    assert main(["show", "--json", "--origin", str(recipe)]) == 0
    document = json.loads(capfd.readouterr().out)
    (shown,) = document["recipes"]
    assert document["version"] == 1
    assert shown["image_name"] == "edge-1.0"
    assert shown["recipe"]["nodes"]["hostname"]["content"] == "edge-1.0\n"
    assert shown["origins"]["nodes.hostname.content"] == {
        "file": str(recipe),
        "line": 13,
        "key": "nodes.hostname.content",
    }


def test_show_writes_one_recipe_for_each_combination(recipe: Path, capfd) -> None:
    recipe.write_text(RECIPE + '[matrix]\narch = ["a", "b"]\n')
    assert main(["show", str(recipe)]) == 0
    out = capfd.readouterr().out
    assert "# edge-1.0-a\n" in out
    assert "# edge-1.0-b\n" in out


def test_check_says_ok(recipe: Path, capfd) -> None:
    assert main(["check", str(recipe)]) == 0
    assert capfd.readouterr().out == "ok: edge-1.0 (2 nodes, 1 target)\n"


def test_check_json_names_nodes_and_targets(recipe: Path, capfd) -> None:
    assert main(["check", "--json", str(recipe)]) == 0
    images = [{"image_name": "edge-1.0", "nodes": ["hostname", "motd"], "targets": ["image"]}]
    assert json.loads(capfd.readouterr().out) == {"version": 1, "images": images}


def test_check_tells_every_problem_with_its_line_and_exits_2(recipe: Path, capfd, monkeypatch) -> None:
    monkeypatch.chdir(recipe.parent)
    recipe.write_text(RECIPE + 'mod = 1\n[nodes.x]\nkind = "fil"\n')
    assert main(["check"]) == 2
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "recipe.toml:22: error: unknown key `mod` in `nodes.motd`" in captured.err
    assert "hint: did you mean `mode`?" in captured.err
    assert "recipe.toml:24: error: unknown node kind `fil`" in captured.err
    assert "2 problems" in captured.err


def test_check_finds_what_only_the_kinds_know(recipe: Path, capfd) -> None:
    recipe.write_text(RECIPE + '[nodes.x]\nkind = "file"\ntarget = "/x"\nsource = "none"\nowner = "nobody"\n')
    assert main(["check", str(recipe)]) == 2
    err = capfd.readouterr().err
    assert "recipe.toml:25: error:" in err
    assert "recipe.toml:26: error:" in err


@pytest.mark.parametrize("verb", ["show", "check"])
def test_a_missing_recipe_exits_2(tmp_path: Path, capfd, verb: str) -> None:
    assert main([verb, str(tmp_path / "none.toml")]) == 2
    assert "No such file or directory" in capfd.readouterr().err


@pytest.mark.parametrize("option", ["novalue", "=x"])
def test_a_malformed_override_exits_2(recipe: Path, capfd, option: str) -> None:
    assert main(["show", str(recipe), "-o", option]) == 2
    assert "is not of the form KEY=VALUE" in capfd.readouterr().err
