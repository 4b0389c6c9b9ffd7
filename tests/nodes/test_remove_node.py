"""Removing paths from what a node needs."""

from __future__ import annotations

import stat

import pytest
from node_helpers import problems, run, tree_of

from cfsbuild.errors import BuildError
from cfsbuild.tree.inode import Inode
from cfsbuild.tree.layer import make_layer

FILE = Inode(mode=stat.S_IFREG | 0o644)


def base(*names, links=None):
    return make_layer(dict.fromkeys(names, FILE), links=links)


def test_a_directory_goes_with_all_it_holds_and_is_listed_once():
    layer = base(b"/usr/share/doc/a/x", b"/usr/share/doc/b", b"/usr/bin/x", b"/usr/share/docs")
    removal = run(
        "remove", None, tree_of(layer), needs=["base"], paths=["/usr/share/doc", "/usr/share/doc/**"]
    )
    assert removal.removals == (b"/usr/share/doc",)
    assert list(tree_of(layer, removal).entries) == [
        b"/", b"/usr", b"/usr/bin", b"/usr/bin/x", b"/usr/share", b"/usr/share/docs",
    ]  # fmt: skip


def test_a_name_alone_is_found_at_any_depth_and_links_count_as_names():
    layer = base(b"/a/x.pyc", b"/b.pyc", b"/c.py", links={b"/z/y.pyc": b"/c.py"})
    removal = run("remove", None, tree_of(layer), needs=["base"], paths=["*.pyc"])
    assert removal.removals == (b"/a/x.pyc", b"/b.pyc", b"/z/y.pyc")
    after = tree_of(layer, removal)
    assert (b"/c.py" in after.entries, after.links) == (True, {})


def test_everything_can_be_removed():
    removal = run("remove", None, tree_of(base(b"/a/x", b"/b")), needs=["base"], paths=["/**"])
    assert removal.removals == (b"/a", b"/b")


def test_each_glob_must_match_unless_missing_is_ok():
    tree = tree_of(base(b"/a"))
    with pytest.raises(BuildError, match=r"nothing to remove matches '/no/\*'") as caught:
        run("remove", None, tree, needs=["base"], paths=["/a", "/no/*"])
    assert caught.value.details == "the node needs base"
    removal = run("remove", None, tree, needs=["base"], paths=["/a", "/no/*"], missing_ok=True)
    assert removal.removals == (b"/a",)


def test_mistakes_are_found_early():
    assert problems("remove", needs=["b"], paths=["/"]) == ["node: the root cannot be removed"]
    assert problems("remove", needs=["b"], paths=["/a//b"]) == ["node: glob '/a//b' contains an empty name"]
    assert problems("remove", paths=["/a"]) == [
        "node: removes something, but needs no node to remove it from"
    ]
