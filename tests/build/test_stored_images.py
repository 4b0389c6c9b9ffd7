"""Images that nodes take in from the store are looked for before anything is built."""

import pytest

from cfsbuild.cli.main import main
from cfsbuild.errors import RecipeError
from cfsbuild.store.store import Store

OUTER = '[image]\nname = "outer"\n[nodes.{0}]\nkind = "image"\nimage = "{1}"\n[nodes.b]\nkind = "image"\nimage = "{2}"\n'


def outer(project, *values):
    project.recipe = project.root / "outer.toml"
    project.recipe.write_text(OUTER.format(*values))


def test_every_missing_image_is_told_at_its_line_with_the_nearest_one_and_nothing_is_built(project):
    project.build()
    outer(project, "a", "demo-2", "0" * 64)
    with pytest.raises(RecipeError) as caught:
        project.build()
    first, second = caught.value.problems()
    assert first.brief == f"a: there is no image 'demo-2' in the store {project.root / 'store'}"
    assert (first.origin.file, first.origin.line) == (str(project.recipe), 5)
    assert first.resolution == "did you mean `demo-1`?"
    assert second.origin.line == 8
    assert project.events == []


def test_without_a_store_the_same_is_told_and_no_store_is_made(project):
    outer(project, "a", "demo-1", "demo-1")
    with pytest.raises(RecipeError, match="a: there is no image 'demo-1' in the store") as caught:
        project.build()
    assert caught.value.resolution == "there are no images here"
    assert not project.root.joinpath("store").exists()


def test_a_name_that_no_image_can_have_is_told_at_its_line(project):
    project.build()
    outer(project, "a", "../demo-1", "demo-1")
    with pytest.raises(RecipeError, match=r"a: .*\.\./demo-1") as caught:
        project.build()
    assert caught.value.origin.line == 5


def test_a_name_without_an_image_behind_it_is_missing(project):
    digest = project.build().digest
    project.root.joinpath("store", "images", digest).unlink()
    outer(project, "a", "demo-1", "demo-1")
    with pytest.raises(RecipeError, match="there is no image 'demo-1'"):
        project.build()


def test_an_image_that_an_earlier_combination_gives_need_not_be_there_yet(project):
    project.build()
    project.write(
        '[image]\nname = "m"\n[matrix]\nn = ["1", "2"]\n[nodes.i]\nkind = "image"\nprefix = "/{{ n }}"\n'
        "image = \"{{ 'demo-1' if n == '1' else 'm-1' }}\"\n"
    )
    arguments = ["--store", str(project.root / "store"), "build", "--output", str(project.root / "out")]
    assert main([*arguments, str(project.recipe)]) == 0
    with Store.open(project.root / "store") as store:
        assert {"m-1", "m-2"} < store.refs().keys()


@pytest.mark.parametrize("verb", [["check"], ["build", "-n"]])
def test_check_and_a_dry_run_tell_what_the_build_would(project, capsys, verb):
    project.build()
    outer(project, "a", "demo-2", "demo-1")
    assert main(["--store", str(project.root / "store"), *verb, str(project.recipe)]) == 2
    err = capsys.readouterr().err
    assert "outer.toml:5: error: a: there is no image 'demo-2' in the store" in err
    assert "hint: did you mean `demo-1`?" in err
    outer(project, "a", "demo-1", "demo-1")
    assert main(["--store", str(project.root / "store"), *verb, str(project.recipe)]) == 0
