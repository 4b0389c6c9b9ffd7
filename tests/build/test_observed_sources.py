"""Files that a node finds out it needs are sources like those that a recipe names."""

import os

import pytest

from cfsbuild.build.pipeline import Options, build, make_request

pytestmark = pytest.mark.usefixtures("settled")


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "script"
    path.write_text("#!/bin/sh\necho one\n")
    recipe = tmp_path / "r.toml"
    recipe.write_text(f'[image]\nname = "r"\n[nodes.p]\nkind = "programs"\nprograms = ["{path}"]\n')
    return path


def make(script):
    request = make_request(
        script.parent / "r.toml", store=script.parent / "store", output=script.parent / "out"
    )
    (result,) = build(request, Options(), environ={})
    return result


def test_without_changes_there_is_nothing_to_do(script):
    make(script)
    assert make(script).unchanged


def test_a_file_that_changes_is_taken_again(script):
    first = make(script)
    script.write_text("#!/bin/sh\necho two\n")
    second = make(script)
    assert (second.unchanged, second.digest == first.digest) == (False, False)


def test_a_file_that_was_only_touched_gives_the_same_image(script):
    first = make(script)
    os.utime(script, (1, 1))
    second = make(script)
    assert not second.unchanged
    assert second.digest == first.digest


def test_a_file_that_appears_where_it_would_be_found_first_is_seen(script, monkeypatch):
    place = script.parent / "bin"
    place.mkdir()
    monkeypatch.setattr("cfsbuild.nodes.libraries.LOADER_CONFIGURATION", script.parent / "ld.so.conf")
    make(script)
    assert make(script).unchanged
    (script.parent / "ld.so.conf").write_text(f"{place}\n/lib\n/usr/lib\n")
    assert not make(script).unchanged
