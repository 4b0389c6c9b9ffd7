import itertools

import msgspec
import pytest

from cfsbuild.build import reproduce
from cfsbuild.build.pipeline import Options
from cfsbuild.build.reproduce import check_reproducible
from cfsbuild.errors import NotReproducibleError
from cfsbuild.nodes.registry import NODE_KINDS
from cfsbuild.targets.registry import TARGET_KINDS
from cfsbuild.tree.layer import make_layer


def check(project):
    return check_reproducible(project.request, Options(jobs=2), environ={})


def test_a_reproducible_recipe_gives_its_image_and_leaves_no_scratch(project, tmp_path, monkeypatch):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    (result,) = check(project)
    assert result.digest == project.build().digest
    assert list(scratch.iterdir()) == []


def test_a_recipe_that_takes_in_a_stored_image_with_its_contents_is_checked_too(project):
    project.edit(
        'content = "edge\\n"',
        'content = "edge\\n"\n[nodes.pw]\nkind = "file"\ntarget = "/etc/passwd"\n'
        'content = "root:x:0:0:root of the image, who has a long name:/root:/bin/sh\\n"\nreplaces = []',
    )
    project.edit('needs = ["etc"]', 'needs = ["etc", "pw"]')
    base = project.build()
    project.recipe = project.root / "outer.toml"
    for name in ("demo-1", base.digest):
        project.recipe.write_text(
            f'[image]\nname = "outer"\n[nodes.base]\nkind = "image"\nimage = "{name}"\n'
            '[nodes.users]\nkind = "accounts"\nneeds = ["base"]\nusers = [{ name = "web", uid = 7, home = "/" }]\n'
        )
        (result,) = check(project)
        assert result.digest == project.build().digest


def test_a_node_that_gives_something_else_each_time_is_named_with_the_path(project, monkeypatch):
    count = itertools.count(1)
    real = NODE_KINDS["file"]

    def unsteady(context, params, fingerprint):
        layer = real.produce(context, params, fingerprint)
        if params.target != "/etc/hostname":
            return layer
        uid = next(count)
        return make_layer(
            {path: msgspec.structs.replace(inode, uid=uid) for path, inode in layer.entries.items()}
        )

    broken = {name: NODE_KINDS[name] for name in ("dir", "accounts")}
    broken["file"] = msgspec.structs.replace(real, produce=unsteady)
    monkeypatch.setattr(reproduce, "NODE_KINDS", broken)
    with pytest.raises(NotReproducibleError) as caught:
        check(project)
    assert caught.value.exit_code == 4
    assert "hostname (file)" in caught.value.details
    assert "/etc/hostname" in caught.value.details
    assert "targets.image (image): differs since what it reads differs" in caught.value.details


def test_a_remembered_result_that_a_fresh_build_would_not_give_is_found(project, monkeypatch):
    real = TARGET_KINDS["image"]
    project.build()
    # As if the image kind had changed without its version: fresh builds now give another image.
    changed = msgspec.structs.replace(
        real,
        emit=lambda context, params: real.emit(
            msgspec.structs.replace(context, recipe=msgspec.structs.replace(context.recipe, format=0)), params
        ),
    )
    monkeypatch.setattr(reproduce, "TARGET_KINDS", {"image": changed})
    with pytest.raises(NotReproducibleError, match="differs from the one with remembered results"):
        check(project)
