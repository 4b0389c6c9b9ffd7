"""The two-second rule, with the real clock."""

import os
import time

from cfsbuild.build.sources import Signature, sign


def test_a_source_written_just_now_is_not_trusted_but_the_plan_is_kept(project, monkeypatch):
    monkeypatch.setattr("cfsbuild.build.memo.TICK_NS", -(10**12))
    project.build()
    monkeypatch.setattr("cfsbuild.build.pipeline.load_plans", None)  # calling it would fail
    again = project.build()
    assert not again.unchanged
    assert again.ran == 0


def test_a_recipe_written_while_it_is_built_is_not_remembered(project):
    project.recipe.touch()
    future = time.time() + 60
    os.utime(project.recipe, (future, future))  # ctime is now: at or after the start of the build below
    project.build()
    assert not project.build().unchanged


def test_racy_means_younger_than_two_seconds(tmp_path):
    file = tmp_path / "f"
    file.write_text("x")
    assert sign(file).racy
    old = Signature(tree=False, newest_ns=0, taken_ns=2 * 10**9)
    assert not old.racy


def test_an_unreadable_tree_is_never_trusted(tmp_path):
    deep = tmp_path / "t"
    for _ in range(300):
        deep = deep / "d"
    deep.mkdir(parents=True)
    found = sign(tmp_path / "t")
    assert found.racy
    assert found.data == b""
