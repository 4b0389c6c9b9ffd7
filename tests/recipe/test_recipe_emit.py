"""Plain data as TOML that tomli reads back."""

from __future__ import annotations

import pytest
import tomli
from hypothesis import given, settings
from hypothesis import strategies as st

from cfsbuild.recipe import emit

strings = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.text(
    "\"\\\n\x7f\t'a", max_size=12
)
scalars = (
    strings
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
)
data = st.recursive(
    scalars, lambda items: st.lists(items, max_size=3) | st.dictionaries(strings, items, max_size=3)
)


@settings(max_examples=80, deadline=None)
@given(st.dictionaries(strings, data, max_size=5), strings)
def test_what_is_written_is_what_tomli_reads(table: dict, name: str) -> None:
    text = "\n".join(emit.table(("nodes", name), table, {}))
    assert tomli.loads(text) == {"nodes": {name: table}}


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(strings, data, max_size=5))
def test_comments_change_nothing(table: dict) -> None:
    notes = {"": "the table", **dict.fromkeys(table, "a key")}
    assert tomli.loads("\n".join(emit.table(("t",), table, notes))) == {"t": table}


def test_text_of_several_lines_is_written_as_lines() -> None:
    assert emit.value('a "b"\n\\c\n') == '"""\na "b"\n\\\\c\n"""'


def test_what_toml_cannot_say_is_refused() -> None:
    with pytest.raises(TypeError):
        emit.value({"a": None})
