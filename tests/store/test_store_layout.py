from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfsbuild.errors import UsageError
from cfsbuild.fsverity.algorithm import Algorithm
from cfsbuild.store import layout


@pytest.mark.parametrize("name", ["app", "a/b/c", "Debian_12.7+x86-64", "x@y:z=1", "app~1", "a..b", "%2F"])
def test_an_ordinary_name_is_a_reference(name):
    assert layout.check_ref(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        "/a",
        "a/",
        "a//b",
        ".",
        "..",
        "a/../b",
        ".hidden",
        "a/.b",
        "-x",
        "a b",
        "a\0b",
        "a\nb",
        "ä",
        "a\\b",
        "a" * 256,
        "a/" * 600 + "a",
    ],
)
def test_an_unsafe_name_is_refused(name):
    with pytest.raises(UsageError):
        layout.check_ref(name)


@given(st.text())
def test_whatever_is_accepted_stays_below_the_references(name):
    try:
        layout.check_ref(name)
    except UsageError:
        return
    parts = name.split("/")
    assert all(part and part[0] not in ".-" and part.isascii() and part.isprintable() for part in parts)


@given(st.binary(min_size=32, max_size=32))
def test_a_digest_and_its_name_convert_into_each_other(digest):
    shard, rest = layout.object_name(digest).split("/")
    assert layout.digest_of(shard, rest, Algorithm.SHA256) == digest
    assert layout.digest_of(shard, rest, Algorithm.SHA512) is None


@pytest.mark.parametrize(
    "name", ["ab" * 31, "AB" * 32, "zz" * 32, "ab" * 33, "../" + "a" * 61, "ab" * 31 + "a\n"]
)
def test_a_name_that_is_no_digest_is_not_taken_for_one(name):
    assert layout.parse_digest(name, Algorithm.SHA256) is None
    with pytest.raises(UsageError):
        layout.check_document(name)


def test_links_lead_from_a_nested_reference_to_the_object():
    digest = bytes(range(32))
    assert layout.ref_target("a/b/c", digest) == "../../../" + digest.hex()
    assert layout.image_target(digest) == "../objects/00/" + digest.hex()[2:]
