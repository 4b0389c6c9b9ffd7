import json

import pytest
from test_build_verb import RECIPE, place, run

__all__ = ["place"]


def test_without_a_node_all_are_listed(place, capfd):
    run(capfd, "-q", "build")
    _, out, _ = run(capfd, "why", "recipe.toml")
    assert [line.split()[0] for line in out.splitlines()[1:]] == ["etc", "hostname", "users", "targets.image"]
    assert out.count("up to date") == 4


def test_a_node_is_explained_now_and_then(place, capfd):
    run(capfd, "-q", "build")
    (place / "recipe.toml").write_text(RECIPE.replace('"edge"', '"core"'))
    run(capfd, "-q", "build")
    (place / "recipe.toml").write_text(RECIPE.replace('"edge"', '"more"'))
    _, out, _ = run(capfd, "why", "recipe.toml", "hostname")
    assert out.splitlines() == [
        "hostname (file)",
        '  now:        would run: content: "core\\n" → "more\\n"',
        "  last build: ran",
        "  last ran because:",
        '    content: "edge\\n" → "core\\n"',
    ]


def test_before_any_build_it_says_so(place, capfd):
    _, out, _ = run(capfd, "why", "recipe.toml", "etc")
    assert out.splitlines() == [
        "etc (dir)",
        "  now:        would run: first build",
        "  last build: never built",
    ]


def test_json_carries_reasons_as_data(place, capfd):
    run(capfd, "-q", "build")
    (place / "recipe.toml").write_text(RECIPE.replace('"edge"', '"core"'))
    _, out, _ = run(capfd, "why", "recipe.toml", "hostname", "--json")
    document = json.loads(out)
    assert document["version"] == 1
    (job,) = document["images"][0]["jobs"]
    assert job["state"] == "run"
    assert job["reasons"] == [
        {"reason": "parameter-changed", "subject": "content", "before": '"edge\\n"', "after": '"core\\n"'}
    ]


@pytest.mark.parametrize("arguments", [("nobody",), ("--image", "other")])
def test_what_does_not_exist_is_an_error_of_usage(place, capfd, arguments):
    status, out, err = run(capfd, "why", "recipe.toml", *arguments)
    assert (status, out) == (2, "")
    assert "nobody" in err or "other" in err


def test_v_shows_the_key(place, capfd):
    _, out, _ = run(capfd, "why", "-v", "recipe.toml", "etc")
    assert "  key:        " in out


@pytest.mark.parametrize("arguments", [(), ("recipe.toml",), ("hostname",), ("hostname", "etc")])
def test_the_recipe_may_be_left_out(place, capfd, arguments):
    status, out, _ = run(capfd, "why", *arguments)
    assert status == 0
    nodes = [name for name in arguments if name != "recipe.toml"]
    assert ("demo-1:" in out) == (not nodes)
    assert all(name in out for name in nodes)


@pytest.mark.parametrize(
    ("argument", "what"), [("nobody", "no node 'nobody'"), ("no.toml", "no recipe no.toml")]
)
def test_a_wrong_first_argument_is_a_node_unless_it_looks_like_a_recipe(place, capfd, argument, what):
    status, _, err = run(capfd, "why", argument)
    assert status == 2
    assert what in err


def test_each_image_of_a_matrix_is_named(place, capfd):
    (place / "recipe.toml").write_text(RECIPE + '[matrix]\nhost = ["a", "b"]\n')
    _, out, _ = run(capfd, "why", "etc")
    assert [line for line in out.splitlines() if line.endswith(":")] == ["demo-1-a:", "demo-1-b:"]
    _, out, _ = run(capfd, "why", "--image", "demo-1-b", "etc")
    assert out.startswith("etc (dir)\n")
    _, _, err = run(capfd, "why", "--image", "demo-1-c")
    assert "one of: demo-1-a, demo-1-b" in err
