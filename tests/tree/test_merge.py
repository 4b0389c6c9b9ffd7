"""Merging layers: who wins, who conflicts, what users are told."""

from __future__ import annotations

import stat

import pytest
from tree_promises import check_tree

from cfsbuild.errors import InputError, Origin
from cfsbuild.tree.conflicts import ConflictError
from cfsbuild.tree.inode import IMPLICIT_DIRECTORY, Inode
from cfsbuild.tree.layer import Tree, make_layer
from cfsbuild.tree.merge import Contribution, merge


def file(content=b"x", **fields):
    return Inode(mode=stat.S_IFREG | fields.pop("mode", 0o644), size=len(content), content=content, **fields)


def directory(mode=0o755, **fields):
    return Inode(mode=stat.S_IFDIR | mode, **fields)


def symlink(target):
    return Inode(mode=stat.S_IFLNK | 0o777, size=len(target), target=target)


def node(name, entries=None, *, needs=(), replaces=(), links=None, removals=(), opaques=(), **fields):
    layer = make_layer(entries or {}, links=links, removals=removals, opaques=opaques)
    return Contribution(
        node=name,
        kind=fields.pop("kind", "file"),
        layer=layer,
        needs=frozenset(needs),
        replaces=tuple(replaces),
        origin=Origin("r.toml", fields.pop("line", 1)),
        **fields,
    )


def merged(*nodes):
    result = merge(nodes)
    check_tree(result.tree)
    return result


def conflict_of(*nodes):
    with pytest.raises(ConflictError) as caught:
        merge(nodes)
    return caught.value


def test_no_layers_give_a_tree_of_just_the_root():
    assert merged().tree == Tree(entries={b"/": IMPLICIT_DIRECTORY})


def test_parents_that_nobody_declares_are_implicit_and_belong_to_no_node():
    result = merged(node("a", {b"/x/y/z": file()}))
    assert list(result.tree.entries) == [b"/", b"/x", b"/x/y", b"/x/y/z"]
    assert result.tree.entries[b"/x/y"] == IMPLICIT_DIRECTORY
    assert result.provenance.node_of(b"/x/y") == ""
    assert result.provenance.node_of(b"/x/y/z") == "a"


def test_implicit_parents_override_no_declared_directory():
    private = directory(0o700, uid=5)
    for nodes in (
        [node("a", {b"/x": private}), node("b", {b"/x/f": file()})],
        [node("b", {b"/x/f": file()}), node("a", {b"/x": private})],
    ):
        assert merged(*nodes).tree.entries[b"/x"] == private


def test_equal_entries_never_conflict_and_the_first_node_is_named():
    result = merged(node("a", {b"/f": file()}), node("b", {b"/f": file(), b"/g": file()}))
    assert result.provenance.node_of(b"/f") == "a"
    assert result.provenance.node_of(b"/g") == "b"
    assert result.provenance.owners == {b"/f": 0, b"/g": 1}


def test_a_conflict_names_the_path_both_nodes_both_lines_what_differs_and_the_way_out():
    error = conflict_of(node("a", {b"/f": file()}, line=3), node("b", {b"/f": file(mode=0o600)}, line=9))
    (problem,) = error.problems()
    assert problem.brief == "a and b both provide /f, and differ"
    assert problem.details == "first: a (file, r.toml:3)\nthen:  b (file, r.toml:9)\nmode: 0644 / 0600"
    assert 'add "a" to its needs and add "/f" to its replaces' in problem.resolution
    assert str(problem.origin) == "r.toml:9"


@pytest.mark.parametrize(
    ("content", "shown"), [(b"y\n", '"y\\n"'), ("\u00e9".encode(), '"\u00e9"'), (b"\xff", "inline:ff")]
)
def test_a_conflict_shows_small_contents_as_text(content, shown):
    (problem,) = conflict_of(node("a", {b"/f": file()}), node("b", {b"/f": file(content)})).problems()
    assert f'content: "x" / {shown}' in problem.details


def test_needs_alone_do_not_allow_a_replacement_and_the_message_asks_only_for_replaces():
    error = conflict_of(node("a", {b"/f": file()}), node("b", {b"/f": file(b"y")}, needs=["a"]))
    assert "wins" not in error.resolution
    assert 'meant to win, add "/f" to its replaces' in error.resolution


def test_replaces_alone_does_not_allow_a_replacement():
    error = conflict_of(node("a", {b"/f": file()}), node("b", {b"/f": file(b"y")}, replaces=["/f"]))
    assert error.conflicts[0].ordered is False


def test_needs_and_replaces_together_allow_it():
    result = merged(node("a", {b"/f": file()}), node("b", {b"/f": file(b"y")}, needs=["a"], replaces=["/*"]))
    assert result.tree.entries[b"/f"].content == b"y"
    assert result.provenance.node_of(b"/f") == "b"


def test_a_node_that_reads_its_input_may_replace_it_without_saying_so():
    result = merged(node("a", {b"/f": file()}), node("b", {b"/f": file(b"y")}, needs=["a"], reads=True))
    assert result.tree.entries[b"/f"].content == b"y"


def test_a_node_that_reads_its_input_may_not_replace_what_it_does_not_reach():
    conflict_of(node("a", {b"/f": file()}), node("b", {b"/f": file(b"y")}, reads=True))


def test_every_conflict_is_found_at_once():
    error = conflict_of(
        node("a", {b"/f": file(), b"/g": file()}),
        node("b", {b"/f": file(b"y")}),
        node("c", {b"/g": symlink(b"f")}),
    )
    assert [problem.brief for problem in error.problems()] == [
        "a and b both provide /f, and differ",
        "a and c both provide /g, and differ",
    ]


def test_very_many_conflicts_of_one_pair_are_counted_and_a_glob_is_offered():
    first = {b"/opt/app/f%03d" % i: file() for i in range(200)}
    second = {path: file(b"y") for path in first}
    problems = conflict_of(node("a", first), node("b", second)).problems()
    assert len(problems) == 11
    assert problems[-1].brief == "a and b disagree about 190 more paths"
    assert '"/opt/app/**"' in problems[-1].resolution


@pytest.mark.parametrize(("static", "code"), [((True, True), 2), ((True, False), 1), ((False, False), 1)])
def test_the_exit_code_says_whether_the_recipe_alone_shows_the_conflict(static, code):
    error = conflict_of(
        node("a", {b"/f": file()}, static=static[0]), node("b", {b"/f": file(b"y")}, static=static[1])
    )
    assert error.exit_code == code
    assert error.reason == "conflict"


def test_a_conflict_does_not_hide_behind_a_third_node_that_replaces_one_side():
    a, b = node("a", {b"/f": file(b"1")}), node("b", {b"/f": file(b"2")})
    c = node("c", {b"/f": file(b"2")}, needs=["a"], replaces=["/f"])
    for order in ((a, b, c), (a, c, b), (b, a, c)):
        error = conflict_of(*order)
        assert {(x.earlier.node, x.later.node) for x in error.conflicts} in ({("a", "b")}, {("b", "a")})


def test_one_replacement_needs_the_right_over_every_node_that_gave_the_old_value():
    a, b = node("a", {b"/f": file(b"1")}), node("b", {b"/f": file(b"1")})
    c = node("c", {b"/f": file(b"2")}, needs=["a"], replaces=["/f"])
    assert {x.later.node for x in conflict_of(a, b, c).conflicts} == {"c"}
    assert {x.later.node for x in conflict_of(a, c, b).conflicts} == {"b"}
    both = node("c", {b"/f": file(b"2")}, needs=["a", "b"], replaces=["/f"])
    assert merged(a, b, both).provenance.node_of(b"/f") == "c"


def test_a_node_that_changes_only_attributes_leaves_the_path_to_the_node_that_gave_it():
    reads = {"needs": ["a", "b"], "reads": True}
    result = merged(
        node("a", {b"/d": directory(), b"/f": file(), b"/g": file()}),
        node("b", {b"/h": file(), b"/i": file()}),
        node("r", {b"/d": directory(uid=9), b"/f": file(mode=0o600), b"/h": file(uid=3)}, **reads),
        node(
            "s",
            {b"/f": file(mode=0o640), b"/g": file(b"y"), b"/i": symlink(b"f")},
            **reads | {"needs": ["a", "b", "r"]},
        ),
    )
    given = {path: result.provenance.node_of(path) for path in (b"/d", b"/f", b"/g", b"/h", b"/i")}
    assert given == {b"/d": "a", b"/f": "a", b"/g": "s", b"/h": "b", b"/i": "s"}
    assert result.provenance.changed() == {"r": [b"/d", b"/f", b"/h"], "s": [b"/f"]}


def test_who_replaces_a_path_takes_it_over_from_those_that_changed_it():
    result = merged(
        node("a", {b"/f": file()}),
        node("r", {b"/f": file(mode=0o600)}, needs=["a"], reads=True),
        node("b", {b"/f": file(mode=0o640)}, needs=["a", "r"], replaces=["/f"]),
    )
    assert result.provenance.node_of(b"/f") == "b"
    assert result.provenance.changed() == {}


# Directories


def test_directories_that_differ_conflict():
    conflict_of(node("a", {b"/d": directory(0o700)}), node("b", {b"/d": directory(0o755)}))


@pytest.mark.parametrize("order", [0, 1])
def test_directories_that_differ_in_time_only_do_not_conflict_and_the_younger_time_stays(order):
    nodes = [node("a", {b"/d": directory(mtime_ns=5)}), node("b", {b"/d": directory(mtime_ns=3)})]
    result = merged(*(reversed(nodes) if order else nodes))
    assert result.tree.entries[b"/d"].mtime_ns == 5


def test_a_later_directory_time_wins_over_those_it_reaches():
    nodes = [
        node("a", {b"/d": directory(mtime_ns=5)}),
        node("b", {b"/d": directory(mtime_ns=3)}, needs=["a"]),
    ]
    assert merged(*nodes).tree.entries[b"/d"].mtime_ns == 3


def test_the_root_can_be_declared():
    assert merged(node("a", {b"/": directory(0o700)})).tree.entries[b"/"].mode == stat.S_IFDIR | 0o700


# Below what is no directory


def test_nothing_passes_through_a_symlink_and_both_nodes_are_named():
    error = conflict_of(
        node("base", {b"/lib": symlink(b"usr/lib")}, line=2), node("app", {b"/lib/x/y": file()}, line=7)
    )
    (problem,) = error.problems()
    assert problem.brief == "app provides /lib/x/y, but base makes /lib a symlink"
    assert "/lib -> usr/lib in base (file, r.toml:2)" in problem.details
    assert "write /usr/lib/x/y, where the link leads" in problem.resolution
    assert str(problem.origin) == "r.toml:7"


@pytest.mark.parametrize("order", [0, 1])
def test_nothing_lies_below_a_file_in_either_order(order):
    nodes = [node("a", {b"/f": file()}), node("b", {b"/f/x": file(), b"/f/y": file()})]
    error = conflict_of(*(reversed(nodes) if order else nodes))
    assert [problem.brief for problem in error.problems()] == [
        "b provides /f/x, but a makes /f not a directory"
    ]


def test_a_node_that_contradicts_itself_is_told_so():
    error = conflict_of(node("a", {b"/f": file(), b"/f/x": file()}))
    assert error.brief == "a provides /f/x, but makes /f not a directory"


def test_a_file_in_place_of_a_directory_removes_what_is_below_if_replaces_matches():
    base = node("a", {b"/d": directory(), b"/d/x/y": file(), b"/e": file()})
    result = merged(base, node("b", {b"/d": file()}, needs=["a"], replaces=["/d"]))
    assert list(result.tree.entries) == [b"/", b"/d", b"/e"]


def test_a_file_in_place_of_an_implicit_directory_likewise():
    base = node("a", {b"/d/x/y": file()})
    result = merged(base, node("b", {b"/d": file()}, needs=["a"], replaces=["/d"]))
    assert list(result.tree.entries) == [b"/", b"/d"]
    conflict_of(base, node("b", {b"/d": file()}, needs=["a"], replaces=["/d/**"]))


def test_what_a_file_covered_does_not_come_back_when_the_file_is_replaced_in_turn():
    result = merged(
        node("a", {b"/d": directory(), b"/d/old": file()}),
        node("b", {b"/d": file()}, needs=["a"], replaces=["/d"]),
        node("c", {b"/d": directory(), b"/d/new": file()}, needs=["a", "b"], replaces=["/d"]),
    )
    assert list(result.tree.entries) == [b"/", b"/d", b"/d/new"]


# Removals


def test_a_removal_takes_the_path_and_all_below_from_layers_it_reaches_only():
    result = merged(
        node("a", {b"/d": directory(), b"/d/x/y": file(), b"/dd": file()}),
        node("other", {b"/d/z": file()}),
        node("r", removals=[b"/d"], needs=["a"]),
    )
    assert list(result.tree.entries) == [b"/", b"/d", b"/d/z", b"/dd"]
    assert result.tree.entries[b"/d"] == IMPLICIT_DIRECTORY


def test_a_removal_reaches_below_directories_that_are_implicit():
    result = merged(node("a", {b"/d/x/y": file()}), node("r", removals=[b"/d/x"], needs=["a"]))
    assert list(result.tree.entries) == [b"/"]


def test_an_opaque_directory_hides_only_its_content():
    result = merged(
        node("a", {b"/d": directory(0o700), b"/d/x": file()}),
        node("b", {b"/d/y": file()}, opaques=[b"/d"], needs=["a"]),
    )
    assert list(result.tree.entries) == [b"/", b"/d", b"/d/y"]
    assert result.tree.entries[b"/d"].mode == stat.S_IFDIR | 0o700


def test_an_opaque_root_hides_everything():
    result = merged(
        node("a", {b"/": directory(0o700), b"/d/x": file()}),
        node("b", {b"/y": file()}, opaques=[b"/"], needs=["a"]),
    )
    assert list(result.tree.entries) == [b"/", b"/y"]


def test_removals_come_before_the_entries_of_their_own_layer():
    result = merged(
        node("a", {b"/f": file(b"old")}), node("b", {b"/f": file(b"new")}, removals=[b"/f"], needs=["a"])
    )
    assert result.tree.entries[b"/f"].content == b"new"


def test_a_removed_path_can_be_given_again_later():
    result = merged(
        node("a", {b"/f": file(b"old")}),
        node("r", removals=[b"/f"], needs=["a"]),
        node("c", {b"/f": file(b"new")}, needs=["a", "r"]),
    )
    assert result.provenance.node_of(b"/f") == "c"


# Hard links


def test_hard_links_stay_and_the_first_name_is_the_real_one():
    tree = merged(node("a", {b"/z": file()}, links={b"/b": b"/z", b"/m/n": b"/z"})).tree
    assert tree.links == {b"/m/n": b"/b", b"/z": b"/b"}
    assert list(tree.entries) == [b"/", b"/b", b"/m"]


def test_replacing_the_first_name_detaches_it_and_the_others_stay_linked():
    tree = merged(
        node("a", {b"/a": file()}, links={b"/b": b"/a", b"/c": b"/a"}),
        node("b", {b"/a": file(b"y")}, needs=["a"], replaces=["/a"]),
    ).tree
    assert tree.links == {b"/c": b"/b"}
    assert tree.entries[b"/a"].content == b"y"
    assert tree.entries[b"/b"].content == b"x"


def test_removing_all_names_but_one_leaves_a_plain_file():
    tree = merged(
        node("a", {b"/a": file()}, links={b"/b": b"/a", b"/c": b"/a"}),
        node("r", removals=[b"/a", b"/c"], needs=["a"]),
    ).tree
    assert tree.links == {}
    assert list(tree.entries) == [b"/", b"/b"]


def test_the_same_group_from_two_nodes_is_one_group():
    one = node("a", {b"/a": file()}, links={b"/b": b"/a"})
    two = node("b", {b"/a": file()}, links={b"/b": b"/a", b"/c": b"/a"})
    for order in ((one, two), (two, one)):
        assert merged(*order).tree.links == {b"/b": b"/a", b"/c": b"/a"}


def test_a_name_that_was_replaced_and_given_back_stays_detached():
    tree = merged(
        node("a", {b"/a": file()}, links={b"/b": b"/a"}),
        node("b", {b"/b": file(b"y")}, needs=["a"], replaces=["/b"]),
        node("c", {b"/b": file()}, needs=["a", "b"], replaces=["/b"]),
    ).tree
    assert tree.links == {}


def test_a_link_name_that_another_node_gives_differently_conflicts():
    conflict_of(node("a", {b"/a": file()}, links={b"/b": b"/a"}), node("b", {b"/b": file(b"y")}))


def test_a_malformed_replaces_glob_is_an_input_error():
    with pytest.raises(InputError, match="never closed"):
        merge([node("a", {b"/f": file()}), node("b", {b"/f": file(b"y")}, needs=["a"], replaces=["/["])])


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (Tree(entries={}), "no directory above /"),
        (Tree(entries={b"/": directory(), b"/a/b": file()}), "no directory above /a/b"),
        (Tree(entries={b"/": directory(), b"/b": file(), b"/a": file()}), "order"),
        (Tree(entries={b"/": directory(), b"/a": file()}, links={b"/b": b"/c"}), "hard link /b"),
        (Tree(entries={b"/": directory(), b"/b": file()}, links={b"/a": b"/b"}), "before its first name"),
        (Tree(entries={b"/": directory(), b"/a//b": file()}), "not a normal path"),
        (Tree(entries={b"/": directory(), b"/a": file(), b"/a/b": file()}), "no directory above /a/b"),
    ],
)
def test_check_tree_sees_each_broken_promise(tree, message):
    with pytest.raises(InputError, match=message):
        check_tree(tree)
