"""TOML files within limits."""

from __future__ import annotations

import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kinds import HEAD, NODE_KINDS, TARGET_KINDS, load, told

from cfsbuild.errors import RecipeError
from cfsbuild.recipe.load import load_recipes


@pytest.mark.parametrize(
    ("text", "brief"),
    [
        ("[vars]\na = nan\n", "recipe.toml:4: `vars.a` is not a finite number"),
        ("[vars]\na = [1.0, -inf]\n", "recipe.toml:4: `vars.a.1` is not a finite number"),
        ("[vars]\na = 1979-05-27\n", "recipe.toml:4: `vars.a` is a date or time"),
        ("[vars]\na = 07:32:00\n", "recipe.toml:4: `vars.a` is a date or time"),
        ('[vars]\na = "x\\u0000"\n', "recipe.toml:4: `vars.a` contains a NUL character"),
        ('[vars]\n"a\\u0000" = 1\n', "recipe.toml:3: `vars` contains a NUL character"),
        ("[vars]\na = " + "9" * 5000, "recipe.toml:0: not valid TOML: a number is out of range"),
    ],
)
def test_values_that_mean_nothing_in_a_recipe_are_refused(write, text: str, brief: str) -> None:
    assert brief in told(write(HEAD + text))


@pytest.mark.parametrize("number", ["9223372036854775808", "-9223372036854775809", "9" * 100])
def test_numbers_have_64_bits(write, number: str) -> None:
    assert told(write(HEAD + f"epoch = {number}\n")) == ["recipe.toml:3: `image.epoch` is out of range"]


def test_the_longest_numbers_pass_through_templates(write) -> None:
    text = HEAD + "[vars]\na = 9223372036854775807\nb = -9223372036854775808\nc = '{{ a + b }}'\n"
    assert load(write(text))[0].variables["c"] == "-1"


def test_nul_bytes_in_the_file_are_refused(write) -> None:
    assert told(write(HEAD + "a = '\0'\n"))[0].startswith("recipe.toml:3: not valid TOML: ")


def test_a_byte_order_mark_is_dropped(write) -> None:
    assert load(write("\ufeff" + HEAD))[0].name == "demo"


def test_windows_line_ends_change_no_line_number(write, tmp_path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_bytes((HEAD + "[vars]\n'a b' = 1\n").replace("\n", "\r\n").encode())
    assert told(path) == ["recipe.toml:4: `a b` cannot be the name of a variable"]


def test_text_that_is_not_utf8_is_told_with_its_line(tmp_path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_bytes(b"[image]\nname = '\xff'\n")
    assert told(path)[0].endswith("recipe.toml is not UTF-8 text")
    assert told(path)[0].startswith("recipe.toml:2: ")


@pytest.mark.parametrize("extra", [0, 1])
def test_the_limit_of_size_is_exact(write, extra: int) -> None:
    text = HEAD + "#" * (2**20 - len(HEAD) + extra)
    if extra:
        assert told(write(text))[0].endswith("recipe.toml is larger than 1024 KiB")
    else:
        assert load(write(text))[0].name == "demo"


def test_an_endless_file_is_read_no_further_than_the_limit() -> None:
    assert told("/dev/zero")[0].endswith("/dev/zero is larger than 1024 KiB")


@pytest.mark.parametrize(
    "bomb",
    [
        "a = " + "[" * 5000 + "]" * 5000,
        "a = " + "{a=" * 5000 + "1" + "}" * 5000,
        "\n".join(".".join(f"k{i}" for _ in range(500)) + f".x{i} = 1" for i in range(2000))[: 2**20 - 100],
        "\n".join(f"[{'.'.join(['a'] * 32)}.b{i}]" for i in range(9000)),
        "\n".join(f"a{i}.{'.'.join(['a'] * 30)} = 1" for i in range(14000)),
        "[nodes]\n" + "\n".join(f"a{i} = {{kind='file', x{i}=1}}" for i in range(6000)),
        "[nodes]\n" + "\n".join(f"a{i} = {{kind='fil', needs=['x{i}']}}" for i in range(6000)),
        "[nodes]\na = {kind='file', " + ", ".join(f"x{i}=1" for i in range(20000)) + "}",
        "x" * 1_000_000 + " = 1",
        'x = "' + "\\u0041" * 160_000 + '"',
    ],
    ids=[
        "arrays",
        "tables",
        "long keys",
        "headers",
        "many keys",
        "many problems",
        "many kinds",
        "many unknown keys",
        "a long name",
        "escapes",
    ],
)
def test_bombs_are_refused_or_read_in_reasonable_time(write, bomb: str) -> None:
    began = time.process_time()
    told(write(HEAD + bomb))
    assert time.process_time() - began < 5


WORDS = st.sampled_from(
    [
        *[
            "[image]",
            "name",
            "=",
            '"a"',
            "[nodes.n]",
            "kind",
            '"file"',
            "target",
            '"/a"',
            "needs",
            "[",
            "]",
            "{",
            "}",
            "{{",
            '"{{a}}"',
            "[vars]",
            "a",
            "1",
        ],
        *[
            "[matrix]",
            "include",
            ".",
            ",",
            "true",
            "[[nodes]]",
            "[profiles.p.vars]",
            "[targets]",
            "rules",
            "nodes",
            "image",
            "1.5",
        ],
        *['"""', "'''", "'{%'", "\n", "\n", "\n", "{{ a }}", "\\", "\x00"],
    ]
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(WORDS, max_size=25), st.sampled_from(["", HEAD]))
def test_whatever_is_written_gives_recipes_or_a_recipe_error(tmp_path, words: list[str], head: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(head + " ".join(words))
    try:
        recipes = load_recipes(
            path,
            node_kinds=NODE_KINDS,
            target_kinds=TARGET_KINDS,
            overrides={"a": "1"},
            profiles=["p"],
            environ={},
        )
    except RecipeError as error:
        failed, recipes = error, []
    else:
        failed = None
    assert all(recipe.name for recipe in recipes)
    assert failed is None or all(problem.brief for problem in failed.problems())


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=80))
def test_random_bytes_give_a_recipe_error(tmp_path, data: bytes) -> None:
    path = tmp_path / "recipe.toml"
    path.write_bytes(data)
    with pytest.raises(RecipeError):
        load(path)
