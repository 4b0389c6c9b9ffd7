import stat

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfsbuild.errors import InputError
from cfsbuild.targets.kind import TreeSource
from cfsbuild.targets.manifest import (
    Manifest,
    decode_manifest,
    encode_manifest,
    escape,
    make_manifest,
    origins,
    unescape,
)
from cfsbuild.tree.inode import IMPLICIT_DIRECTORY, Inode
from cfsbuild.tree.layer import Tree

FILE = Inode(mode=stat.S_IFREG | 0o644)


def source(nodes, links=()):
    entries = {path: IMPLICIT_DIRECTORY if path.endswith(b"/") else FILE for path in nodes}
    return TreeSource(
        tree=Tree(entries=entries, links=dict(links)), node_of=lambda path: nodes.get(path, "linker")
    )


def test_paths_stand_under_the_node_that_gave_them_and_implicit_directories_under_none():
    made = make_manifest(
        "x-1", "ab", source({b"/": "", b"/etc": "", b"/etc/b": "two", b"/etc/c": "one", b"/z": "two"})
    )
    assert made.nodes == {"": ["/", "/etc"], "one": ["/etc/c"], "two": ["/etc/b", "/z"]}
    assert (made.image, made.digest, made.version) == ("x-1", "ab", 1)


def test_nodes_that_changed_attributes_come_after_the_node_that_gave_the_path_in_merge_order():
    given = source({b"/": "", b"/a": "n", b"/b\xff": "n"})
    given = msgspec.structs.replace(given, changed={"z": [b"/b\xff", b"/a"], "y": [b"/a"]})
    made = decode_manifest(encode_manifest(make_manifest("x", "", given)))
    assert made.attributes == {"z": ["/a", "/b\\xff"], "y": ["/a"]}
    assert origins(made) == {b"/": [""], b"/a": ["n", "z", "y"], b"/b\xff": ["n", "z"]}


def test_a_manifest_in_which_a_node_changed_what_nobody_gave_is_refused():
    with pytest.raises(InputError, match="'z' changed /a, which no node gave"):
        origins(Manifest(image="x", digest="", nodes={"": ["/"]}, attributes={"z": ["/a"]}))


def test_every_name_of_a_hard_link_is_listed_in_depth_first_order():
    made = make_manifest("x", "", source({b"/": "", b"/b": "n"}, {b"/a/c": b"/b", b"/c": b"/b"}))
    assert made.nodes["linker"] == ["/a/c", "/c"]


def test_origins_gives_back_bytes():
    made = make_manifest("x", "", source({b"/": "", b"/we\nird\xff\\x41": "n"}))
    assert origins(decode_manifest(encode_manifest(made)))[b"/we\nird\xff\\x41"] == ["n"]


@given(st.binary())
def test_every_name_survives_being_escaped(name):
    assert unescape(escape(name)) == name


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\\")))
def test_ordinary_names_stand_as_they_are(name):
    assert escape(name.encode()) == name


@pytest.mark.parametrize("text", ["\\", "\\q", "\\x", "\\x4", "\\xZZ", "\\x 1", "\\xAB"])
def test_a_malformed_escape_is_refused(text):
    with pytest.raises(InputError):
        unescape(text)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b'{"version":2,"image":"x","digest":"","nodes":{}}',
        b'{"image":"x","digest":"","nodes":{},"a":1}',
    ],
)
def test_what_is_no_manifest_of_this_version_is_refused(data):
    with pytest.raises(InputError):
        decode_manifest(data)


@given(
    st.sets(st.binary(min_size=1, max_size=6).filter(lambda name: not {0, 0x2F} & set(name)), max_size=150)
)
def test_many_names_are_escaped_as_each_alone(names):
    tree = Tree(
        entries={b"/": IMPLICIT_DIRECTORY, **{b"/" + name: Inode(0o100644) for name in sorted(names)}}
    )
    manifest = make_manifest("i", "0" * 64, TreeSource(tree=tree, node_of=lambda _: "n"))
    assert manifest.nodes["n"] == ["/", *(escape(b"/" + name) for name in sorted(names))]
