"""Declared directories."""

from __future__ import annotations

import stat

from node_helpers import problems, run

from cfsbuild.nodes.kind import Owners
from cfsbuild.tree.inode import Inode


def test_one_directory_is_0755_root_unless_it_says_otherwise():
    assert run("dir", target="/srv").entries == {b"/srv": Inode(mode=stat.S_IFDIR | 0o755)}


def test_several_directories_are_all_alike():
    layer = run(
        "dir",
        owners=Owners(uids={"root": 0, "u": 5}),
        targets=["/b", "/a/c"],
        mode="1777",
        owner="u",
        group=7,
        xattrs={"user.x": "y"},
    )
    inode = Inode(mode=stat.S_IFDIR | 0o1777, uid=5, gid=7, xattrs=((b"user.x", b"y"),))
    assert list(layer.entries.items()) == [(b"/a/c", inode), (b"/b", inode)]


def test_the_root_can_be_declared():
    assert list(run("dir", target="/", mode="0700").entries) == [b"/"]


def test_contradictions_are_found():
    assert problems("dir") == ["node: needs one of target or targets"]
    assert problems("dir", target="/a", targets=["/b"]) == [
        "node: needs one of target or targets, but has target and targets"
    ]
    assert problems("dir", targets=["/a", "/a/"]) == ["node: /a/ is listed twice"]
