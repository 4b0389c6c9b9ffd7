"""Laws of merging, and the kernel's overlayfs as a second opinion on stacks of layers."""

from __future__ import annotations

import itertools
import os
import stat
import subprocess
import time
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from tree_promises import check_tree

from cfsbuild.tree.conflicts import ConflictError
from cfsbuild.tree.inode import Inode
from cfsbuild.tree.layer import Layer, make_layer
from cfsbuild.tree.merge import Contribution, merge

PATHS = [b"/a", b"/a/x", b"/a/x/1", b"/a/y", b"/b", b"/b/z", b"/c"]


def regular(number):
    return Inode(mode=stat.S_IFREG | 0o644, uid=number)


def folder(number):
    return Inode(mode=stat.S_IFDIR | 0o755, mtime_ns=number)


@st.composite
def layers(draw):
    """A layer that does not contradict itself, with links and removals."""
    entries = {}
    for path in draw(st.lists(st.sampled_from(PATHS), unique=True, max_size=5)):
        make = draw(st.sampled_from([regular, regular, folder]))
        entries[path] = make(draw(st.integers(0, 1)))
    for path in list(entries):
        if not entries[path].is_directory and any(other.startswith(path + b"/") for other in entries):
            entries[path] = folder(0)
    files = [path for path, inode in entries.items() if inode.is_regular]
    links = {}
    if files and draw(st.booleans()):
        links = {b"/" + name: files[0] for name in draw(st.sets(st.sampled_from([b"l", b"m"])))}
    removals = draw(st.lists(st.sampled_from(PATHS), max_size=1)) if draw(st.integers(0, 3)) == 0 else []
    opaques = (
        draw(st.lists(st.sampled_from([b"/a", b"/b"]), max_size=1)) if draw(st.integers(0, 3)) == 0 else []
    )
    return make_layer(entries, links=links, removals=tuple(removals), opaques=tuple(opaques))


@st.composite
def graphs(draw, size=4):
    """Contributions with random needs (closed under transitivity) and rights."""
    nodes = []
    for index in range(draw(st.integers(1, size))):
        direct = draw(st.sets(st.sampled_from(range(index)))) if index else set()
        needs = {f"n{i}" for i in direct}.union(*(nodes[i].needs for i in direct))
        rights = draw(st.sampled_from([(), ("/**",), ("/a", "/a/**"), ("reads",)]))
        nodes.append(
            Contribution(
                node=f"n{index}",
                kind="k",
                layer=draw(layers()),
                needs=frozenset(needs),
                replaces=() if rights == ("reads",) else rights,
                reads=rights == ("reads",),
            )
        )
    return nodes


def outcome(nodes):
    """Return the tree, or the set of disagreements."""
    try:
        result = merge(nodes)
    except ConflictError as error:
        return {(c.path, c.type, frozenset((c.earlier.node, c.later.node))) for c in error.conflicts}
    check_tree(result.tree)
    assert set(result.provenance.owners) <= result.tree.entries.keys() | result.tree.links.keys()
    return result.tree


def orders(nodes):
    """Yield all topological orders."""
    for order in itertools.permutations(nodes):
        if all(b.node not in a.needs for a, b in itertools.combinations(order, 2)):
            yield list(order)


@settings(max_examples=60, deadline=None)
@given(graphs())
def test_the_outcome_does_not_depend_on_the_order_of_nodes_that_do_not_reach_each_other(nodes):
    first = outcome(nodes)
    for order in orders(nodes):
        found = outcome(order)
        if isinstance(first, set):
            # Which of several nodes that hold a non-directory is named depends on the order; the paths do not.
            assert isinstance(found, set)
            assert {path for path, *_ in found} == {path for path, *_ in first}
        else:
            assert found == first


@settings(max_examples=30, deadline=None)
@given(graphs(), st.randoms())
def test_the_outcome_does_not_depend_on_the_order_in_which_layers_were_made(nodes, random):
    shuffled = []
    for node in nodes:
        entries, links = list(node.layer.entries.items()), list(node.layer.links.items())
        random.shuffle(entries)
        random.shuffle(links)
        layer = make_layer(
            dict(entries), links=dict(links), removals=node.layer.removals, opaques=node.layer.opaques
        )
        shuffled.append(msgspec.structs.replace(node, layer=layer))
    assert outcome(shuffled) == outcome(nodes)


@settings(max_examples=30, deadline=None)
@given(layers())
def test_a_layer_merged_with_itself_is_itself(layer):
    layer = msgspec.structs.replace(layer, removals=(), opaques=())
    once = outcome([Contribution(node="a", kind="k", layer=layer)])
    assert outcome([Contribution(node=name, kind="k", layer=layer) for name in "abc"]) == once


def stack(stacked):
    """Every layer reaches all before it and may replace anything, as in an overlay."""
    names = [f"n{i}" for i in range(len(stacked))]
    return [
        Contribution(node=name, kind="k", layer=layer, needs=frozenset(names[:i]), replaces=("/**", "/"))
        for i, (name, layer) in enumerate(zip(names, stacked, strict=True))
    ]


@settings(max_examples=50, deadline=None)
@given(st.lists(layers(), min_size=2, max_size=4))
def test_the_lower_part_of_a_stack_can_be_merged_first(stacked):
    whole = outcome(stack(stacked))
    assume(not isinstance(whole, set))
    lower = outcome(stack(stacked[:-1]))
    assume(not isinstance(lower, set))
    flat = Layer(entries=lower.entries, links=lower.links)
    again = outcome(stack([flat, stacked[-1]]))
    assert not isinstance(again, set)
    # What nothing but an implicit directory held is empty and stays, once it is declared.
    extra = again.entries.keys() - whole.entries.keys()
    assert all(again.entries[path] == Inode(mode=stat.S_IFDIR | 0o755) for path in extra)
    assert {p: i for p, i in again.entries.items() if p not in extra} == whole.entries
    assert again.links == whole.links


def write_overlay_layer(directory, layer):
    """Lay a layer out as overlayfs wants it: whiteouts are devices, opaque directories have an xattr."""
    for path, inode in layer.entries.items():
        place = directory / os.fsdecode(path[1:])
        place.parent.mkdir(parents=True, exist_ok=True)
        if inode.is_directory:
            place.mkdir(exist_ok=True)
        else:
            place.write_text(str(inode.uid))
    for path in layer.removals:
        place = directory / os.fsdecode(path[1:])
        place.parent.mkdir(parents=True, exist_ok=True)
        os.mknod(place, stat.S_IFCHR | 0o600, 0)


def walk(directory):
    found = {}
    for parent, folders, files in os.walk(directory):
        for name in [*folders, *files]:
            place = Path(parent, name)
            path = b"/" + os.fsencode(place.relative_to(directory))
            if place.is_dir():
                found[path] = "directory"
            elif place.exists():
                # In a directory of one layer only, overlayfs lists whiteouts, though they do not exist.
                found[path] = place.read_text()
    return found


def explicit(layer):
    """Declare every parent, as a directory on disk does; drop what an overlay cannot say."""
    entries = dict(layer.entries)
    removals = [
        p for p in layer.removals if not any(o.startswith(p + b"/") for o in entries) and p not in entries
    ]
    for path in [*entries, *removals]:
        while path := path[: path.rfind(b"/")]:
            entries.setdefault(path, folder(0))
    removals = [
        p for p in removals if all(entries[q].is_directory for q in entries if p.startswith(q + b"/"))
    ]
    return make_layer(entries, removals=tuple(removals))


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting an overlay needs root")
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stacked=st.lists(layers().map(explicit), min_size=2, max_size=4))
def test_a_stack_of_layers_is_what_overlayfs_shows(tmp_path, stacked):
    root = tmp_path / str(time.monotonic_ns())
    lowers = [root / str(index) for index in range(len(stacked))]
    for directory, layer in zip(lowers, stacked, strict=True):
        directory.mkdir(parents=True)
        write_overlay_layer(directory, layer)
    (root / "mnt").mkdir()
    options = "lowerdir=" + ":".join(map(str, reversed(lowers)))
    mounted = subprocess.run(
        ["mount", "-t", "overlay", "overlay", "-o", options, root / "mnt"],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount an overlay here: {mounted.stderr}")
    try:
        theirs = walk(root / "mnt")
    finally:
        subprocess.run(["umount", root / "mnt"], check=True)
    tree = outcome(stack(stacked))
    ours = {
        path: "directory" if inode.is_directory else str(inode.uid)
        for path, inode in tree.entries.items()
        if path != b"/"
    }
    assert ours == theirs


def big_layer(count, prefix=b"/usr"):
    entries = {}
    for index in range(count // 50):
        directory = prefix + b"/lib%d/pkg%d" % (index % 37, index)
        entries[directory] = Inode(mode=stat.S_IFDIR | 0o755)
        for number in range(50):
            entries[directory + b"/f%d" % number] = Inode(
                mode=stat.S_IFREG | 0o644, size=1000, digest=b"%032d" % (index * 50 + number)
            )
    return make_layer(entries)


def test_a_hundred_thousand_entries_take_a_fraction_of_a_second():
    """Bounded generously: a quadratic step would take minutes."""
    base, small = big_layer(100_000), big_layer(1000, b"/opt")
    removal = make_layer({}, removals=tuple(b"/usr/lib1/pkg%d" % i for i in range(1, 2000, 37)))
    nodes = stack([base, small, base, removal])
    start = time.process_time()
    tree = merge(nodes).tree
    assert time.process_time() - start < 5
    assert len(tree.entries) > 100_000
