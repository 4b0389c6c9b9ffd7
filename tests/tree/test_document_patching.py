"""Replacing pieces of a document in place."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfsbuild.tree.patching import replace_each, splice


@given(
    st.lists(st.tuples(st.binary(min_size=1, max_size=5), st.binary(max_size=5), st.booleans()), max_size=8)
)
def test_pieces_are_replaced_wherever_they_stand_and_however_long_they_are(parts):
    data, wanted, pieces = bytearray(), b"", []
    for old, new, replaced in parts:
        if replaced:
            pieces.append((len(data), len(data) + len(old), new))
        data += old
        wanted += new if replaced else old
    assert splice(data, reversed(pieces))
    assert data == wanted


def test_nothing_is_replaced_where_two_pieces_overlap():
    data = bytearray(b"abcdef")
    assert not splice(data, [(0, 3, b"x"), (2, 4, b"y")])
    assert data == b"abcdef"


def test_each_is_looked_for_and_replaced():
    data = bytearray(b"\none\ntwo\nthree\n")
    assert replace_each(data, [(b"\ntwo\n", b"\n2\n"), (b"\none\n", b"\neleven\n")], shared=1)
    assert data == b"\neleven\n2\nthree\n"


@pytest.mark.parametrize("old", [b"four", b"t"])
def test_nothing_is_replaced_when_one_is_not_there_or_there_twice(old):
    data = bytearray(b"one two three")
    assert not replace_each(data, [(b"one", b"1"), (old, b"x")])
    assert data == b"one two three"
