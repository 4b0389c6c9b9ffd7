import pytest

from cfsbuild.build.pipeline import Options
from cfsbuild.build.watch import watch
from cfsbuild.errors import RecipeError

pytestmark = pytest.mark.usefixtures("settled")


class Clock:
    """Stands for time: each sleep runs the next step of a script; then the test is over if nothing happens."""

    def __init__(self, *steps):
        self._steps = iter(steps)
        self.idle = 0

    def __call__(self, _seconds):
        step = next(self._steps, None)
        if step is not None:
            step()
            return
        self.idle += 1
        if self.idle > 5:
            raise KeyboardInterrupt


def rounds(project, *steps):
    clock = Clock(*steps)
    notes = project.events = []
    found = []
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012 (the generator is what is tested)
        for outcome in watch(
            project.request, Options(jobs=1), environ={}, listener=notes.append, sleep=clock
        ):
            found.append(outcome)  # noqa: PERF402 (the loop ends by an exception)
    return found


def test_without_a_change_there_is_one_build(project):
    assert len(rounds(project)) == 1


def test_a_change_of_a_source_calls_for_one_build_when_it_has_settled(project):
    writes = [lambda number=number: project.write_data(b"%d" % number * 100) for number in range(3)]
    found = rounds(project, lambda: None, *writes)
    assert len(found) == 2
    assert found[0].results[0].digest != found[1].results[0].digest
    assert any("data.bin changed" in getattr(event, "text", "") for event in project.events)


def test_a_broken_recipe_is_reported_and_mending_it_calls_for_a_build(project):
    good = project.recipe.read_text()
    first, second, third = rounds(
        project, lambda: project.write("nonsense"), lambda: None, lambda: None, lambda: project.write(good)
    )
    assert isinstance(second.error, RecipeError)
    assert first.results[0].digest == third.results[0].digest


def test_a_source_that_vanishes_and_comes_back_calls_for_builds(project):
    data = project.data.read_bytes()
    found = rounds(
        project,
        project.data.unlink,
        lambda: None,
        lambda: None,
        lambda: project.write_data(data),
        lambda: None,
    )
    assert [outcome.error is None for outcome in found] == [True, False, True]


def test_a_recipe_that_is_broken_from_the_start_is_watched(project):
    good = project.recipe.read_text()
    project.write("nonsense")
    found = rounds(project, lambda: project.write(good))
    assert [outcome.error is None for outcome in found] == [False, True]


def test_a_new_file_in_a_watched_tree_calls_for_a_build(project):
    (project.root / "tree").mkdir()
    (project.root / "tree" / "a").write_text("a")
    project.write(
        project.recipe.read_text() + '[nodes.tree]\nkind = "tree"\nsource = "tree"\ntarget = "/t"\n'
    )
    found = rounds(project, lambda: (project.root / "tree" / "b").write_text("b"))
    assert [len(outcome.results) for outcome in found] == [1, 1]
