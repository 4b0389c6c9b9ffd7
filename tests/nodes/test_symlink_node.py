"""Symbolic links."""

from __future__ import annotations

import stat

from node_helpers import problems, run


def test_a_link_says_exactly_what_it_was_given():
    ((path, inode),) = run("symlink", target="/etc/os-release", to="../usr/./lib//os-release").entries.items()
    assert path == b"/etc/os-release"
    assert (inode.mode, inode.target, inode.size) == (stat.S_IFLNK | 0o777, b"../usr/./lib//os-release", 24)


def test_the_size_counts_bytes_not_characters():
    ((_, inode),) = run("symlink", target="/l", to="caf\u00e9").entries.items()
    assert (inode.target, inode.size) == ("caf\u00e9".encode(), 5)


def test_impossible_links_are_found():
    assert problems("symlink", target="/l", to="x" * 5000) == [
        "node: a link's text is at most 4095 bytes long and has no NUL"
    ]
    assert problems("symlink", target="/l", to="a\0b") != []
    assert problems("symlink", target="/", to="a") == ["node: a symlink cannot be the root"]
