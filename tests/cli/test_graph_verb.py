import json
import shutil
import subprocess
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_build_verb import RECIPE, place, run

from cfsbuild.cli.graph_layout import Spacing, lay_out
from cfsbuild.cli.graph_svg import COLORS, Node, draw

__all__ = ["place"]


def parse(text):
    return ET.fromstring(text)  # noqa: S314 (our own drawing)


SVG = "{http://www.w3.org/2000/svg}"


def test_the_text_is_a_tree_of_needs(place, capfd):
    _, out, _ = run(capfd, "graph")
    assert out.splitlines() == [
        "demo-1:",
        "targets.image (image) may run: depends on what etc, hostname, users will give",
        "├── hostname (file) would run: first build",
        "└── users (accounts) may run: depends on what etc will give",
        "    └── etc (dir) would run: first build",
    ]


def test_what_was_shown_is_not_shown_again(place, capfd):
    (place / "recipe.toml").write_text(
        RECIPE + '[nodes.more]\nkind = "dir"\ntarget = "/more"\nneeds = ["users"]\n'
    )
    text = (place / "recipe.toml").read_text()
    (place / "recipe.toml").write_text(
        text + '[nodes.less]\nkind = "dir"\ntarget = "/less"\nneeds = ["users"]\n'
    )
    _, out, _ = run(capfd, "graph")
    assert out.count("users (accounts) see above") == 1


def test_the_svg_shows_every_job_in_the_colour_of_its_state(place, capfd):
    run(capfd, "-q", "build")
    (place / "recipe.toml").write_text(RECIPE.replace('"edge"', '"core"'))
    _, out, _ = run(capfd, "graph", "--format", "svg")
    root = parse(out)
    names = [node.text for node in root.iter(f"{SVG}text") if node.get("class") == "name"]
    assert sorted(names) == ["etc", "hostname", "targets.image", "users"]
    fills = {
        group.find(f"{SVG}text").text: group.find(f"{SVG}path").get("fill")
        for group in root.iter(f"{SVG}g")
        if group.get("class") in {"node", "target"}
    }
    assert fills == {
        "etc": COLORS["up-to-date"], "users": COLORS["up-to-date"], "hostname": COLORS["run"],
        "targets.image": COLORS["pending"],
    }  # fmt: skip


def test_last_colours_by_the_last_build(place, capfd):
    run(capfd, "-q", "build")
    (place / "recipe.toml").write_text(RECIPE.replace('target = "/etc"', 'target = "/etc/"'))
    run(capfd, "-q", "build")
    _, out, _ = run(capfd, "graph", "--last", "--json")
    assert {job["name"]: job["state"] for job in json.loads(out)["images"][0]["jobs"]} == {
        "etc": "ran", "hostname": "cached", "users": "cut-off", "targets.image": "cut-off",
    }  # fmt: skip


def test_dot_is_what_graphviz_reads(place, capfd):
    _, out, _ = run(capfd, "graph", "--format", "dot")
    assert '  "etc" -> "users";' in out
    if shutil.which("dot") is None:
        pytest.skip("dot (Graphviz) is not installed")
    subprocess.run(["dot", "-Tcanon"], input=out, text=True, check=True, capture_output=True)


def test_one_svg_cannot_show_a_matrix(place, capfd):
    (place / "recipe.toml").write_text(RECIPE + '[matrix]\nhost = ["a", "b"]\n')
    status, _, err = run(capfd, "graph", "--format", "svg")
    assert status == 2
    assert "demo-1-a, demo-1-b" in err
    assert run(capfd, "graph", "--format", "svg", "--image", "demo-1-b")[1].startswith("<svg")


def test_names_are_escaped_in_svg():
    text = draw("<t>", [Node(name='a"&<b>', kind="dir", role="node", state="run", needs=(), note="<&>")])
    assert 'a"&<b>' in [node.text for node in parse(text).iter(f"{SVG}text")]


@given(st.lists(st.tuples(st.integers(0, 14), st.integers(0, 14)), max_size=40))
def test_no_two_boxes_overlap_and_every_edge_leads_to_the_right(pairs):
    needs = {str(n): [str(a) for a in sorted({a for a, b in pairs if b == n and a < n})] for n in range(15)}
    sizes = {name: (60.0 + 10 * int(name), 30.0) for name in needs}
    drawn = lay_out(needs, sizes, Spacing())
    boxes = list(drawn.boxes.values())
    for index, one in enumerate(boxes):
        assert one.x >= 0
        assert one.y >= 0
        assert one.x + one.width <= drawn.width
        assert one.y + one.height <= drawn.height
        for two in boxes[:index]:
            apart_x = one.x + one.width <= two.x or two.x + two.width <= one.x
            apart_y = one.y + one.height <= two.y + 0.01 or two.y + two.height <= one.y + 0.01
            assert apart_x or apart_y
    for (need, name), points in drawn.edges.items():
        assert drawn.boxes[need].x < drawn.boxes[name].x
        assert [x for x, _ in points] == sorted(x for x, _ in points)


def test_an_empty_plan_can_be_drawn():
    assert parse(draw("nothing", [])).tag == f"{SVG}svg"
