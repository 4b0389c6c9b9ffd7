import json

import pytest

from cfsbuild.build.forecast import NoStore, forecast
from cfsbuild.build.reasons import Reason, differences, sentence
from cfsbuild.errors import BuildError, UsageError
from cfsbuild.fsverity.algorithm import Algorithm


def states(project, **options):
    return {
        found.job: (found.state, sentence(found.reasons))
        for found in forecast(project.plan(), project.request, **options)
    }


def files(project):
    return sorted((path, path.lstat().st_mtime_ns) for path in (project.root / "store").rglob("*"))


def test_before_the_first_build_everything_would_run_and_nothing_is_made(project):
    found = states(project)
    assert found["hostname"] == ("run", "first build")
    assert found["users"] == ("pending", "depends on what etc will give")
    assert not (project.root / "store").exists()


def test_after_a_build_everything_is_up_to_date_and_nothing_is_written(project):
    project.build()
    before = files(project)
    assert {state for state, _ in states(project).values()} == {"up-to-date"}
    assert files(project) == before


def test_a_changed_parameter_is_named_with_both_values(project):
    project.build()
    project.edit("edge", "gateway")
    assert states(project)["hostname"] == ("run", 'content: "edge\\n" → "gateway\\n"')


def test_a_changed_source_is_named(project):
    project.build()
    project.write_data(b"other" * 30)
    assert states(project)["data"] == ("run", "source changed")


def test_a_removed_output_file_is_named(project):
    project.build()
    (project.root / "out" / "demo-1.dump").unlink()
    assert states(project)["targets.image"] == ("run", "demo-1.dump is missing or was altered")


def test_a_node_that_was_added_or_removed_is_named_as_reason_for_the_image(project):
    project.build()
    text = project.recipe.read_text()
    project.write(text + '[nodes.more]\nkind = "dir"\ntarget = "/more"\n')
    project.build()
    project.write(text)
    assert "more gave another output" in states(project)["targets.image"][1]


def test_what_is_forced_is_said_to_be_forced(project):
    project.build()
    assert states(project, force=None)["hostname"] == ("run", "forced")


def test_a_lost_result_is_said_to_be_lost(project):
    project.build()
    for result in (project.root / "store" / "cfsbuild" / "nodes").iterdir():
        result.unlink()
    assert states(project)["hostname"][1] == "its result, or objects of it, are no longer in the store"


def test_the_reasons_of_the_last_build_are_remembered_until_the_next_change(project):
    project.build()
    project.edit("edge", "gateway")
    project.build()
    project.build()
    (found,) = forecast(project.plan(), project.request, nodes=("hostname",))
    assert found.last_outcome == "cached"
    assert [reason.subject for reason in found.last_reasons] == ["content"]


def test_a_source_that_cannot_be_read_fails_only_its_node(project):
    planned = project.plan()
    project.data.unlink()
    found = {one.job: one for one in forecast(planned, project.request)}
    assert found["data"].state == "failed"
    assert "data.bin" in found["data"].error
    assert found["hostname"].state == "run"


def test_a_nested_recipe_can_be_foretold(project):
    (project.root / "base.toml").write_text(
        '[image]\nname = "base"\n[nodes.d]\nkind = "dir"\ntarget = "/b"\n'
    )
    project.write(project.recipe.read_text() + '[nodes.base]\nkind = "image"\nrecipe = "base.toml"\n')
    assert states(project)["base/"][0] == "pending"
    project.build()
    assert states(project)["base"][0] == states(project)["base/"][0] == "up-to-date"


def test_a_state_that_takes_the_tree_of_a_nested_recipe_for_another_is_noticed(project):
    (project.root / "base.toml").write_text(
        '[image]\nname = "base"\n[nodes.d]\nkind = "dir"\ntarget = "/b"\n'
    )
    project.write('[image]\nname = "x"\n[nodes.base]\nkind = "image"\nrecipe = "base.toml"\n')
    project.build()
    (state,) = (project.root / "store" / "cfsbuild" / "state").glob("*/build-*.json")
    document = json.loads(state.read_bytes())
    document["trees"] = dict.fromkeys(document["trees"], "00" * 32)
    state.write_text(json.dumps(document))
    with pytest.raises(BuildError, match="saw another tree than its key says"):
        project.build(force=None)


def test_asking_for_an_unknown_node_is_an_error_of_usage(project):
    with pytest.raises(UsageError, match="no node 'nobody'"):
        forecast(project.plan(), project.request, nodes=("nobody",))


def test_differences_are_reported_in_the_order_of_their_names():
    before = {"kind-version": "1", "param.a": "1", "param.b": "2", "source.s": "x"}
    after = {"kind-version": "2", "param.b": "3", "param.c": "4"}
    assert [reason.text() for reason in differences(before, after)] == [
        "kind version was 1, is 2", "a: 1 → (absent)", "b: 2 → 3", "c: (absent) → 4", "source s is gone",
    ]  # fmt: skip


def test_long_values_are_shortened_in_text_but_not_in_data():
    reason = Reason(reason="parameter-changed", subject="content", before="a" * 500, after="b")
    assert len(reason.text()) < 100
    assert reason.before == "a" * 500


def test_a_store_that_is_not_there_has_nothing(tmp_path):
    store = NoStore(tmp_path, Algorithm.SHA256)
    assert store.result("0" * 64) is store.layer("0" * 64) is store.resolve("x") is None
    assert not store.has_image(b"\0" * 32)
