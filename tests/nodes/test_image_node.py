"""Taking in the tree of another image."""

from __future__ import annotations

import stat

import pytest
from node_helpers import Objects, context, problems, run, spec, tree_of

from cfsbuild.errors import BuildError
from cfsbuild.nodes import image
from cfsbuild.tree.inode import Inode
from cfsbuild.tree.layer import make_layer, tree_digest
from cfsbuild.tree.merge import Contribution, merge

FILE = Inode(mode=stat.S_IFREG | 0o644)
PRIVATE = Inode(mode=stat.S_IFDIR | 0o700, uid=3)
OTHER = tree_of(
    make_layer(
        {
            b"/": PRIVATE,
            b"/etc/conf": FILE,
            b"/empty": Inode(mode=stat.S_IFDIR | 0o755),
            b"/home": PRIVATE,
            b"/usr/a": FILE,
        },
        links={b"/usr/z": b"/usr/a", b"/opt/l": b"/usr/a"},
    )
)


def take(**params):
    return run("image", image_tree=lambda _: OTHER, image="base", **params)


def test_a_whole_image_gives_its_tree_again():
    assert tree_of(take()) == OTHER


def test_below_a_prefix_its_root_becomes_a_directory_there():
    tree = tree_of(take(prefix="/srv/base"))
    assert tree.entries[b"/srv/base"] == PRIVATE
    assert tree.links == {b"/srv/base/usr/a": b"/srv/base/opt/l", b"/srv/base/usr/z": b"/srv/base/opt/l"}


def test_plain_parents_stay_implicit_so_that_they_stand_against_nobody():
    layer = take()
    assert b"/etc" not in layer.entries
    assert layer.entries[b"/empty"].is_directory
    strict = make_layer({b"/etc": PRIVATE})
    parts = [Contribution(node=n, kind="t", layer=x) for n, x in (("a", layer), ("b", strict))]
    assert merge(parts).tree.entries[b"/etc"] == PRIVATE


def test_include_takes_the_directories_above_with_their_attributes():
    assert set(take(include=["/home", "/usr/a"]).entries) == {b"/", b"/home", b"/usr/a"}


def test_exclude_takes_a_directory_out_with_all_it_holds_and_keeps_links_sound():
    layer = take(exclude=["/opt", "/home"])
    assert layer.links == {b"/usr/z": b"/usr/a"}
    assert b"/opt/l" not in layer.entries


def test_exclude_wins_over_include():
    assert set(take(include=["/usr/**"], exclude=["/usr/a"]).entries) == {b"/", b"/usr/z"}


def test_an_include_that_matches_nothing_is_an_error():
    with pytest.raises(BuildError, match="nothing in the other image matches"):
        take(include=["/nope"])


def test_the_key_follows_the_tree_of_the_other_image():
    node = spec("image", image="base")
    fingerprint = image.gather(context(node, Objects(), image_tree=lambda _: OTHER), node.params)
    assert fingerprint.digests == {"image": tree_digest(OTHER)}


def test_mistakes_are_found_early(tmp_path):
    file = str(tmp_path / "r.toml")
    assert problems("image") == ["node: needs one of recipe or image"]
    assert problems("image", file=file, recipe="o.toml") == [f"node: there is no recipe {tmp_path}/o.toml"]
    assert problems("image", image="x", include=["/["], exclude=["a/"]) == [
        "node: glob '/[' has a '[' that is never closed",
        "node: glob 'a/' ends in a slash",
    ]
