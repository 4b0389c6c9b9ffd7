"""A recipe as IMAGE: the image that was last built from it."""

import shutil
from pathlib import Path

import pytest

RECIPE = """
[image]
name = "gate"
version = "1"
epoch = 1767225600

[nodes.hostname]
kind = "file"
target = "/etc/hostname"
content = "edge\\n"

[nodes.run]
kind = "dir"
target = "/run"
"""


@pytest.fixture
def recipe(lab):
    path = lab.directory / "gate.toml"
    path.write_text(RECIPE)
    return path


def test_a_recipe_that_was_not_built_says_how(lab, run, recipe):
    outcome = run("ls", "gate.toml")
    assert outcome.status == 2
    assert "hint: build it first: cfsbuild build gate.toml" in outcome.err


def test_a_built_recipe_is_its_image_by_every_name(lab, run, recipe):
    built = run("-q", "gate.toml")
    assert built.status == 0, built.err
    digest = built.text.split()[0]
    for name in ("gate.toml", "gate-1", digest, "out/gate-1.cfs"):
        assert run("cat", name, "/etc/hostname").out == b"edge\n"
    assert run("diff", "gate.toml", "out/gate-1.cfs") == (0, b"", "")
    assert run("verify", "--digest", digest, "gate.toml").status == 0


def test_the_origin_of_each_path_is_its_node(lab, run, recipe):
    assert run("-q", "build", "gate.toml").status == 0
    for image in ("gate.toml", "out/gate-1.cfs"):
        entries = {
            e["path"]: e["origin"] for e in run("ls", "--json", "-R", "--origin", image).json["entries"]
        }
        assert entries["/etc/hostname"] == "hostname"
        assert entries["/run"] == "run"
        assert entries["/etc"] == ""
    lines = run("ls", "--origin", "gate.toml").lines
    assert [line.split()[-2:] for line in lines] == [["-", "etc"], ["run", "run"]]


def test_the_origin_is_the_node_that_gave_a_path_then_those_that_changed_attributes(lab, run, recipe):
    rules = '[nodes.{0}]\nkind = "attributes"\nneeds = {1}\nrules = [{{ match = "/etc/hostname", {2} }}]\n'
    first = rules.format("owned", '["hostname"]', "owner = 7")
    recipe.write_text(RECIPE + first + rules.format("closed", '["owned", "hostname"]', 'mode = "0600"'))
    assert run("-q", "build", "gate.toml").status == 0
    assert run("ls", "--origin", "gate.toml", "/etc").text.split()[-2:] == [
        "hostname,owned,closed",
        "hostname",
    ]
    (entry,) = run("ls", "--json", "--origin", "gate.toml", "/etc").json["entries"]
    assert (entry["origin"], entry["changed_by"]) == ("hostname", ["owned", "closed"])


def test_a_manifest_of_another_image_is_not_believed(lab, run, recipe):
    assert run("-q", "build", "gate.toml").status == 0
    lab.image("other.cfs")
    shutil.copy("out/gate-1.manifest.json", "other.manifest.json")
    outcome = run("ls", "--origin", "other.cfs")
    assert outcome.status == 2
    assert "describes another image" in outcome.err
    assert "nothing says where" in run("ls", "--origin", lab.image("third.cfs")).err


def test_explain_after_a_change_names_the_path(lab, run, recipe):
    assert run("-q", "build", "gate.toml").status == 0
    Path("out/gate-1.cfs").rename("before.cfs")
    recipe.write_text(RECIPE.replace("edge", "gate"))
    assert run("-q", "build", "gate.toml").status == 0
    assert "~ /etc/hostname" in run("diff", "before.cfs", "gate.toml").lines
    assert '      content  "edge\\n" -> "gate\\n"' in run("explain", "before.cfs", "gate.toml").lines


def test_a_recipe_of_several_images_asks_which(lab, run, recipe):
    recipe.write_text(RECIPE + '\n[matrix]\narch = ["amd64", "arm64"]\n')
    outcome = run("ls", "gate.toml")
    assert outcome.status == 2
    assert "gate.toml describes 2 images" in outcome.err
    assert "gate-1-amd64, gate-1-arm64" in outcome.err


def test_a_broken_recipe_is_reported_with_its_line(lab, run, recipe):
    recipe.write_text(RECIPE.replace('kind = "dir"', 'kind = "dri"'))
    outcome = run("ls", "gate.toml")
    assert outcome.status == 2
    assert "gate.toml:13: error:" in outcome.err
