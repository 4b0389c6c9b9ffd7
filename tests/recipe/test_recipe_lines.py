"""The scanner against tomli: the same keys, each on the line where it is written."""

from __future__ import annotations

import time
from typing import Any

import pytest
import tomli
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cfsbuild.recipe.lines import DEPTH, find_lines

TRICKY = '''
# comment = "no key"
top = 1
"quoted key" = 2
'literal.key' = 3
a.b."c d".e = 4
"esc\\u0041ped\\n" = 5
text = """
[not.a.table]
not_a_key = 1
"""
raw = \'\'\'
[[nor.this]]
\'\'\'
quotes = """a ""b"" c"""""
apostrophes = \'\'\'x\'\'\'\'\'
array = [
  1, # one ]
  "]", [2, 3], { x = 1, y.z = [4] },
]
when = 1979-05-27 07:32:00
[table]
key = 1
[table.sub.deep]
key = 2
[[list]]
name = "first"
[[list]]
name = "second"
[list.inner]
x = 1
[[list.more]]
y = 1
[[list.more]]
y = 2
'''


def keys(value: Any, path: tuple[str | int, ...] = ()) -> set[tuple[str | int, ...]]:
    """Return all key paths of parsed TOML."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = set()
    for key, item in items:
        found |= {(*path, key)} | keys(item, (*path, key))
    return found


def test_every_form_of_key_is_found_on_its_line() -> None:
    found = find_lines(TRICKY).found

    assert set(found) == keys(tomli.loads(TRICKY))
    lines = {path: TRICKY.split("\n")[line - 1] for path, line in found.items()}
    assert lines["a", "b", "c d", "e"] == 'a.b."c d".e = 4'
    assert lines["escAped\n",].startswith('"esc')
    assert lines["array", 1] == '  "]", [2, 3], { x = 1, y.z = [4] },'
    assert lines["array", 3, "y", "z", 0] == lines["array", 1]
    assert lines["list", 1] == "[[list]]"
    assert lines["list", 1, "inner"] == "[list.inner]"
    assert lines["list", 1, "more", 1, "y"] == "y = 2"
    assert lines["table", "sub"] == "[table.sub.deep]"


names = st.sampled_from(["a", "b", "c-1", "_d", "9"])
blanks = st.sampled_from(["", " ", "\t"])
plain_text = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=6)


def basic(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def long_basic(text: str) -> str:
    return '"""' + text.replace("\\", "\\\\").replace('"', '\\"') + '"""'


key_parts = st.one_of(
    names,
    plain_text.map(basic),
    plain_text.filter(lambda text: "'" not in text).map(lambda text: f"'{text}'"),
    st.sampled_from(['"\\u00e9"', '"\\U0001F600"', '"\\t"', '"]"', "'#'", '"="']),
)
dotted = st.builds(
    lambda parts, blank: f"{blank}.{blank}".join(parts), st.lists(key_parts, min_size=1, max_size=3), blanks
)
long_texts = st.text(st.sampled_from("ab[]{}=#'\n\"\\.,"), max_size=12)
scalars = st.one_of(
    st.sampled_from(
        ["1", "-2", "3.5", "true", "0x1F", "1979-05-27", "1979-05-27T07:32:00Z", "1979-05-27 07:32:00"]
    ),
    plain_text.map(basic),
    long_texts.map(long_basic),
    long_texts.filter(lambda text: "'" not in text).map(lambda text: f"'''{text}'''"),
    st.sampled_from(['""', "''", '""""""', '"""a"""""', "'''a''''", '"""\\\n  x"""']),
)
gaps = st.sampled_from(["", " ", "\n", ' # ] } , = "\n', "\n\n  "])


def arrays(items: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.builds(
        lambda inside, gap, comma: (
            "[" + gap + f"{gap},{gap}".join(inside) + (gap + "," if comma and inside else "") + gap + "]"
        ),
        st.lists(items, max_size=3),
        gaps,
        st.booleans(),
    )


def inline_tables(items: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pairs = st.builds(lambda key, value: f"{key} = {value}", dotted, items)
    return st.builds(
        lambda inside, gap: "{" + gap + f",{gap}".join(inside) + gap + "}", st.lists(pairs, max_size=3), gaps
    )


values = st.recursive(scalars, lambda items: arrays(items) | inline_tables(items), max_leaves=6)
statements = st.one_of(
    st.builds(lambda key, blank, value: f"{key}{blank}={blank}{value}", dotted, blanks, values),
    st.builds(lambda key, blank: f"[{blank}{key}{blank}]", dotted, blanks),
    st.builds(lambda key: f"[[{key}]]", dotted),
    st.sampled_from(["", "# comment [x] = 1", "  "]),
)
documents = st.builds("\n".join, st.lists(statements, max_size=8))


@settings(max_examples=100, deadline=None)
@given(documents)
def test_the_scanner_finds_exactly_the_keys_that_tomli_finds(text: str) -> None:
    try:
        expected = keys(tomli.loads(text))
    except tomli.TOMLDecodeError:
        assume(False)
    found = find_lines(text).found

    assert set(found) == expected
    lines = text.split("\n")
    for path, line in found.items():
        if isinstance(path[-1], str) and path[-1] in {"a", "b", "c-1", "_d", "9"}:
            assert path[-1] in lines[line - 1]


@settings(max_examples=100, deadline=None)
@given(st.text(st.sampled_from("[]{}.=\"', \n#ab1\\\r\t"), max_size=60))
def test_the_scanner_never_raises_and_never_misplaces_a_line(text: str) -> None:
    for line in find_lines(text).found.values():
        assert 1 <= line <= text.count("\n") + 1


@settings(max_examples=40, deadline=None)
@given(documents, st.integers(0, 200))
def test_a_valid_beginning_is_read_as_tomli_reads_it(text: str, cut: int) -> None:
    # What the guard relies on: up to an error the scanner is never behind the parser.
    beginning = "\n".join(text.split("\n")[: cut % 9])
    try:
        expected = keys(tomli.loads(beginning))
    except tomli.TOMLDecodeError:
        assume(False)
    assert expected <= set(find_lines(beginning + "\n= broken").found)


def test_too_many_parts_in_a_key_are_refused_with_their_line() -> None:
    lines = find_lines("x = 1\n" + ".".join(["a"] * 33) + " = 1\n")

    assert (lines.refused, lines.refused_line) == ("a key has more than 32 parts", 2)
    assert not find_lines(".".join(["a"] * 32) + " = 1\n").refused


@pytest.mark.parametrize("opening", ["[", "{a="])
def test_too_deep_nesting_is_refused(opening: str) -> None:
    closing = {"[": "]", "{a=": "}"}[opening]
    deep = "x = " + opening * DEPTH + "1" + closing * DEPTH
    fine = "x = " + opening * (DEPTH - 1) + "1" + closing * (DEPTH - 1)

    assert find_lines(deep).refused == f"values are nested more than {DEPTH} deep"
    assert not find_lines(fine).refused


@pytest.mark.parametrize(
    "text",
    [
        "[" * 250_000,
        "a = " + "[" * 250_000,
        "a = [" + "1," * 125_000,
        "a." * 125_000,
        'a = "' + "\\" * 250_000,
        'a = """' + '"" ' * 75_000,
        "#" * 250_000,
        "\n" * 250_000,
        "a=1\n" * 60_000,
        "[[a]]\n" * 40_000,
    ],
    ids=[
        "headers",
        "arrays",
        "items",
        "dots",
        "backslashes",
        "quotes",
        "comment",
        "newlines",
        "pairs",
        "tables",
    ],
)
def test_scanning_takes_linear_time(text: str) -> None:
    began = time.process_time()
    find_lines(text)
    assert time.process_time() - began < 3
