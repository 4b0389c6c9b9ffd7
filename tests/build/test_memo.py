import os
import subprocess
import sys

import msgspec
import pytest

from cfsbuild.build import memo
from cfsbuild.build.sources import sign
from cfsbuild.store.store import Store

pytestmark = pytest.mark.usefixtures("settled")


@pytest.fixture
def built(project):
    project.build()
    assert project.build().unchanged
    return project


def test_a_build_with_nothing_to_do_gives_the_same_result_at_once(project):
    first = project.build()
    again = project.build()
    assert again.unchanged
    assert again.images == first.images
    assert [type(event).__name__ for event in project.events] == ["BuildFinished"]


def change_recipe(project):
    project.edit("edge", "gateway")


def change_source(project):
    project.write_data(b"other" * 20)


def touch_source(project):
    os.utime(project.data, (1, 1))


def delete_source_and_put_it_back(project):
    data = project.data.read_bytes()
    project.data.unlink()
    project.write_data(data)


def delete_image_file(project):
    (project.root / "out" / "demo-1.cfs").unlink()


def alter_dump(project):
    (project.root / "out" / "demo-1.dump").write_text("no dump")


def remove_reference(project):
    with Store.open(project.root / "store") as store:
        store.remove_ref("demo-1")


def remove_image(project):
    for link in (project.root / "store" / "images").iterdir():
        if link.is_symlink():
            link.unlink()


def set_epoch(project):
    project.environ = {"SOURCE_DATE_EPOCH": "1767225600"}


def damage_memo(project):
    path = memo.memo_path(project.request)
    path.write_bytes(path.read_bytes()[:-7] + b"garbage")


def truncate_memo(project):
    path = memo.memo_path(project.request)
    path.write_bytes(path.read_bytes()[:40])


@pytest.mark.parametrize(
    "change",
    [
        change_recipe,
        change_source,
        touch_source,
        delete_source_and_put_it_back,
        delete_image_file,
        alter_dump,
        remove_reference,
        remove_image,
        set_epoch,
        damage_memo,
        truncate_memo,
    ],
)
def test_whatever_changes_is_noticed(built, change):
    change(built)
    assert not built.build().unchanged


def test_another_installation_of_the_program_does_not_trust_the_memo(built, monkeypatch):
    monkeypatch.setattr(memo, "program_identity", lambda: "another")
    assert not built.build().unchanged


def test_every_source_file_of_the_program_counts(monkeypatch, tmp_path):
    package = tmp_path / "cfsbuild"
    (package / "inner").mkdir(parents=True)
    for name in ("__init__.py", "inner/a.py", "inner/note.txt"):
        (package / name).write_text("")
        os.utime(package / name, (5, 5))
    monkeypatch.setattr(memo.cfsbuild, "__file__", str(package / "__init__.py"))
    before = memo.program_identity()
    (package / "inner" / "note.txt").write_text("not code")
    assert memo.program_identity() == before
    os.utime(package / "inner" / "a.py", (9, 9))
    assert memo.program_identity() != before


def test_a_change_inside_a_tree_is_noticed_and_one_beside_it_is_not(project):
    (project.root / "tree" / "deep").mkdir(parents=True)
    file = project.root / "tree" / "deep" / "file"
    file.write_text("one")
    project.write(
        project.recipe.read_text() + '[nodes.tree]\nkind = "tree"\nsource = "tree"\ntarget = "/t"\n'
    )
    project.build()
    (project.root / "beside").write_text("nothing to do with it")
    assert project.build().unchanged
    file.write_text("two")
    result = project.build()
    assert project.outcomes(result)["tree"] == "ran"
    (project.root / "tree" / "new").write_text("")
    assert project.outcomes(project.build())["tree"] == "ran"


def test_a_change_of_an_included_file_is_noticed(project):
    (project.root / "vars.toml").write_text('[vars]\nname = "one"\n')
    project.write('include = ["vars.toml"]\n' + project.recipe.read_text().replace("edge", "{{ name }}"))
    project.build()
    assert project.build().unchanged
    (project.root / "vars.toml").write_text('[vars]\nname = "two"\n')
    assert project.outcomes(project.build())["hostname"] == "ran"


def test_a_change_of_a_nested_recipe_is_noticed(project):
    base = project.root / "base.toml"
    base.write_text('[image]\nname = "base"\n[nodes.d]\nkind = "dir"\ntarget = "/base"\n')
    project.write(project.recipe.read_text() + '[nodes.base]\nkind = "image"\nrecipe = "base.toml"\n')
    project.build()
    assert project.build().unchanged
    base.write_text(base.read_text().replace("/base", "/bass"))
    assert project.outcomes(project.build())["base"] == "ran"


def test_a_stored_image_that_is_built_again_is_noticed(project):
    project.build()
    project.root.joinpath("outer.toml").write_text(
        '[image]\nname = "outer"\n[nodes.inner]\nkind = "image"\nimage = "demo-1"\n'
    )
    demo, project.recipe = project.recipe, project.root / "outer.toml"
    before = project.build()
    assert project.build().unchanged
    outer, project.recipe = project.recipe, demo
    project.edit("edge", "gateway")
    project.build()
    project.recipe = outer
    after = project.build()
    assert not after.unchanged
    assert after.digest != before.digest


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_memo_that_another_user_wrote_is_not_trusted(built):
    os.chown(memo.memo_path(built.request), 12345, -1)
    assert not built.build().unchanged


def test_when_only_sources_change_the_plan_is_not_made_again(built, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("the recipe was loaded")

    monkeypatch.setattr("cfsbuild.build.pipeline.load_plans", refuse)
    built.write_data(b"other" * 30)
    assert built.outcomes(built.build())["data"] == "ran"


def test_profiles_and_variables_have_memos_of_their_own(project):
    one = msgspec.structs.replace(project.request, overrides={"a": "1"})
    assert memo.memo_path(one) != memo.memo_path(project.request)


def test_the_signature_of_a_file_changes_with_content_mode_and_time(tmp_path):
    file = tmp_path / "f"
    seen = [sign(file).data]
    file.write_text("a")
    seen.append(sign(file).data)
    file.write_text("bb")
    seen.append(sign(file).data)
    file.chmod(0o600)
    seen.append(sign(file).data)
    os.utime(file, (3, 3))
    seen.append(sign(file).data)
    assert len(set(seen)) == 5


def test_the_no_change_path_imports_nothing_heavy(built):
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from cfsbuild.build import sources, memo, pipeline\n"
        f"request = pipeline.make_request(Path({str(built.recipe)!r}), store=Path({str(built.root / 'store')!r}), "
        f"output=Path({str(built.root / 'out')!r}))\n"
        "(result,) = pipeline.build(request, pipeline.Options(), environ={})\n"
        "assert result.unchanged\n"
        "heavy = {'networkx', 'jinja2', 'tqdm', 'tomli', 'zstandard', 'pathspec', 'concurrent.futures', 'tempfile',\n"
        "         'cfsbuild.recipe.load', 'cfsbuild.store.store', 'cfsbuild.tree.merge'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
