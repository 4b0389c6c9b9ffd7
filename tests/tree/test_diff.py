"""What differs between two trees."""

from __future__ import annotations

import stat

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from cfsbuild.tree.diff import Change, diff, first_difference
from cfsbuild.tree.inode import Inode
from cfsbuild.tree.layer import Tree, make_layer
from cfsbuild.tree.merge import Contribution, merge

FILE = Inode(mode=stat.S_IFREG | 0o644, size=1, content=b"a", mtime_ns=5)


def tree(entries, links=None):
    return merge([Contribution(node="n", kind="k", layer=make_layer(entries, links=links))]).tree


def changed(before, **fields):
    return diff(tree({b"/f": before}), tree({b"/f": msgspec.structs.replace(before, **fields)}))


def test_equal_trees_do_not_differ():
    assert diff(tree({b"/f": FILE}), tree({b"/f": FILE})) == []


def test_paths_on_one_side_only_are_reported_with_their_type():
    link = Inode(mode=stat.S_IFLNK | 0o777, size=1, target=b"x")
    assert diff(tree({b"/a/b": FILE}), tree({b"/c": link})) == [
        Change("/a", "present", "directory", None),
        Change("/a/b", "present", "file", None),
        Change("/c", "present", None, "symlink"),
    ]


def test_every_attribute_is_named_with_both_values():
    assert changed(FILE, mode=stat.S_IFREG | 0o4755) == [Change("/f", "mode", "0644", "4755")]
    assert changed(FILE, uid=5, gid=6) == [Change("/f", "uid", 0, 5), Change("/f", "gid", 0, 6)]
    assert changed(FILE, mtime_ns=-1) == [Change("/f", "mtime", 5, -1)]
    assert changed(FILE, content=b"b") == [Change("/f", "content", "inline:61", "inline:62")]
    assert changed(FILE, size=70, content=b"", digest=b"\xab" * 32) == [
        Change("/f", "content", "inline:61", "ab" * 32),
        Change("/f", "size", 1, 70),
    ]
    link = Inode(mode=stat.S_IFLNK | 0o777, size=1, target=b"x")
    assert changed(link, target=b"y") == [Change("/f", "target", "x", "y")]
    device = Inode(mode=stat.S_IFCHR | 0o600, rdev=0x103)
    assert changed(device, rdev=0x801) == [Change("/f", "rdev", "1:3", "8:1")]
    assert changed(FILE, xattrs=((b"user.a", b"text"), (b"user.b", b"\0"))) == [
        Change("/f", "xattr:user.a", None, "text"),
        Change("/f", "xattr:user.b", None, "0x00"),
    ]


def test_another_type_is_told_without_the_attributes_that_only_one_type_has():
    link = Inode(mode=stat.S_IFLNK | 0o644, size=1, target=b"x", mtime_ns=5)
    assert diff(tree({b"/f": FILE}), tree({b"/f": link})) == [Change("/f", "type", "file", "symlink")]


def test_hard_links_are_compared_as_groups():
    linked = tree({b"/a": FILE}, links={b"/b": b"/a"})
    assert diff(linked, tree({b"/a": FILE, b"/b": FILE})) == [
        Change("/a", "links", ["/b"], []),
        Change("/b", "links", ["/a"], []),
    ]
    assert diff(linked, linked) == []


def test_the_difference_that_matters_most_comes_first():
    other = Inode(
        mode=stat.S_IFREG | 0o600, uid=1, size=1, content=b"b", mtime_ns=6, xattrs=((b"user.x", b"y"),)
    )
    changes = diff(tree({b"/f": FILE}), tree({b"/f": other}))
    assert [change.attribute for change in changes] == ["content", "uid", "mode", "xattr:user.x", "mtime"]
    assert first_difference(changes[1:]).attribute == "uid"
    assert (
        first_difference(diff(tree({b"/f": FILE, b"/z": FILE}), tree({b"/f": other}))).attribute == "present"
    )
    assert first_difference([]) is None


def test_names_of_any_bytes_are_json():
    changes = diff(tree({b"/\xff\n": FILE}), tree({}))
    assert msgspec.json.decode(msgspec.json.encode(changes[0]))["path"] == r"/\xff\x0a"


inodes = st.builds(
    Inode,
    mode=st.sampled_from([stat.S_IFREG | 0o644, stat.S_IFREG | 0o600]),
    uid=st.integers(0, 1),
    mtime_ns=st.integers(0, 1),
)
trees = st.dictionaries(st.sampled_from([b"/a", b"/b", b"/c/d", b"/c/e"]), inodes).map(tree)


@given(trees, trees)
def test_the_difference_is_empty_only_for_equal_trees_and_mirrors(a: Tree, b: Tree):
    forth, back = diff(a, b), diff(b, a)
    assert (forth == []) == (a == b)
    assert [(c.path, c.attribute, c.before, c.after) for c in forth] == [
        (c.path, c.attribute, c.after, c.before) for c in back
    ]
