"""Canonical documents: what decodes encodes to the same bytes, and everything else is refused."""

import contextlib
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfsbuild.errors import VerificationError
from cfsbuild.trust import canonical


class Example(msgspec.Struct, forbid_unknown_fields=True):
    text: str
    number: int
    things: dict[str, list[bool]] = {}


def decode(data):
    return canonical.decode(data, Example, what="the example", limit=1000)


@given(
    st.builds(
        Example,
        text=st.text(max_size=30),
        number=st.integers(-(2**63), 2**64 - 1),
        things=st.dictionaries(st.text(max_size=5), st.lists(st.booleans(), max_size=3), max_size=3),
    )
)
def test_a_document_has_one_encoding_that_decodes_to_it(example):
    data = canonical.encode(example)
    again = decode(data)
    assert again == example
    assert canonical.encode(again) == data
    assert data.isascii()


@pytest.mark.parametrize(
    "text",
    [
        '{"number":1,"text":"a","things":{} }',
        '{"text":"a","number":1,"things":{}}',
        '{"number":1,"number":1,"text":"a","things":{}}',
        '{"number":1,"text":"a"}',
        '{"number":1.0,"text":"a","things":{}}',
        '{"number":1e0,"text":"a","things":{}}',
        '{"number":"1","text":"a","things":{}}',
        '{"number":true,"text":"a","things":{}}',
        '{"number":-0,"text":"a","things":{}}',
        '{"more":1,"number":1,"text":"a","things":{}}',
        '{"number":1,"text":"\\u0061","things":{}}',
        '{"number":1,"text":"é","things":{}}',
        '{"number":1,"text":"\\u00E9","things":{}}',
        '{"number":1,"text":"a","things":{}}\n',
        '\ufeff{"number":1,"text":"a","things":{}}',
        '{"number":1,"text":"a","things":null}',
        "",
        "[]",
        "{" * 900,
        '{"number":1,"text":"' + "a" * 2000 + '","things":{}}',
    ],
)
def test_any_other_encoding_is_refused(text):
    with pytest.raises(VerificationError, match="the example is malformed") as caught:
        decode(text.encode())
    assert caught.value.reason == "malformed"


def test_the_encoding_is_that_of_sorted_json():
    example = Example("é\n", 5, {"b": [True], "a": []})
    assert canonical.encode(example) == b'{"number":5,"text":"\\u00e9\\n","things":{"a":[],"b":[true]}}'
    assert json.loads(canonical.encode(example)) == msgspec.to_builtins(example)


@given(st.data())
def test_damage_anywhere_is_another_document_or_an_expected_error(data):
    whole = canonical.encode(Example("some text", 12, {"a": [True, False]}))
    start = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(start, len(whole)))
    changed = (
        whole[:start] + data.draw(st.sampled_from([b"", b"1", b"x", b'"', b"\\", b"\xff"])) + whole[end:]
    )
    with contextlib.suppress(VerificationError):
        assert canonical.encode(decode(changed)) == changed
