"""Conflicts that `check` finds without building, and those that it must leave to the build."""

from pathlib import Path

import pytest

from cfsbuild.build.pipeline import check_conflicts, load_plans, make_request
from cfsbuild.tree.conflicts import StaticConflictError

HEAD = '[image]\nname = "r"\n'
A = '[nodes.a]\nkind = "file"\ntarget = "/etc/motd"\ncontent = "one"\n'
B = '[nodes.b]\nkind = "file"\ntarget = "/etc/motd"\ncontent = "two"\n'
LINK = '[nodes.link]\nkind = "symlink"\ntarget = "/etc"\nto = "usr/etc"\n'
TREE = '[nodes.tree]\nkind = "tree"\nsource = "tree"\n'
RIGHTS = '[nodes.rights]\nkind = "attributes"\nneeds = ["a", "b"]\nrules = [{ match = "/**", owner = 5 }]\n'
DROP = '[nodes.drop]\nkind = "remove"\nneeds = ["a"]\npaths = ["/etc/motd"]\n'
USERS = '[nodes.users]\nkind = "accounts"\nusers = [{ name = "app", uid = 990 }]\n'


def check(directory: Path, text: str) -> None:
    (directory / "r.toml").write_text(HEAD + text)
    request = make_request(directory / "r.toml", store=directory / "store")
    check_conflicts(load_plans(request, environ={}), request, jobs=1)
    assert not (directory / "store").exists()


def briefs(directory: Path, text: str) -> list[str]:
    with pytest.raises(StaticConflictError) as caught:
        check(directory, text)
    assert caught.value.exit_code == 2
    assert caught.value.origin.line > 0
    return [problem.brief for problem in caught.value.problems()]


def test_two_nodes_that_provide_one_path_differently_are_reported(tmp_path):
    assert briefs(tmp_path, A + B) == ["a and b both provide /etc/motd, and differ"]


def test_the_contents_of_local_trees_count(tmp_path):
    (tmp_path / "tree/etc").mkdir(parents=True)
    (tmp_path / "tree/etc/motd").write_text("x" * 5000)
    assert briefs(tmp_path, A + TREE) == ["a and tree both provide /etc/motd, and differ"]
    (tmp_path / "tree/etc/motd").write_text("one")
    check(tmp_path, A + TREE)


def test_what_lies_below_a_symlink_is_reported(tmp_path):
    assert briefs(tmp_path, A + LINK) == ["a provides /etc/motd, but link makes /etc a symlink"]


def test_what_a_node_may_replace_is_no_conflict(tmp_path):
    check(tmp_path, A + B + 'needs = ["a"]\nreplaces = ["/etc/motd"]\n')


def test_a_node_that_reads_both_sides_does_not_hide_their_conflict(tmp_path):
    assert briefs(tmp_path, A + B + RIGHTS) == ["a and b both provide /etc/motd, and differ"]


def test_a_conflict_that_a_removal_may_settle_is_left_to_the_build(tmp_path):
    check(tmp_path, A + B + DROP)


@pytest.mark.parametrize("path", ["passwd", "group", "shadow", "gshadow"])
def test_what_accounts_write_against_a_file_that_they_do_not_need_is_reported_with_both_lines(tmp_path, path):
    file = f'[nodes.own]\nkind = "file"\ntarget = "/etc/{path}"\ncontent = "x"\n'
    with pytest.raises(StaticConflictError) as caught:
        check(tmp_path, file + USERS)
    (problem,) = caught.value.problems()
    assert problem.brief == f"own and users both provide /etc/{path}, and differ"
    assert f"own (file, {tmp_path / 'r.toml'}:3)" in problem.details
    assert f"users (accounts, {tmp_path / 'r.toml'}:7)" in problem.details


def test_accounts_merge_into_what_they_need(tmp_path):
    file = '[nodes.own]\nkind = "file"\ntarget = "/etc/group"\ncontent = "root:x:0:\\n"\n'
    check(tmp_path, file + USERS + 'needs = ["own"]\n')
    later = file.replace("root", "wheel") + 'needs = ["users"]\n'
    assert briefs(tmp_path, USERS + later) == ["users and own both provide /etc/group, and differ"]
    check(tmp_path, USERS + later + 'replaces = ["/etc/group"]\n')


def test_accounts_that_read_what_only_a_build_has_are_left_to_it(tmp_path):
    (tmp_path / "passwd").write_text("root:x:0:0:" + "x" * 100 + ":/root:/bin/sh\n")
    base = '[nodes.base]\nkind = "file"\ntarget = "/etc/passwd"\nsource = "passwd"\n'
    group = '[nodes.own]\nkind = "file"\ntarget = "/etc/group"\ncontent = "x"\n'
    check(tmp_path, base + group + USERS + 'needs = ["base"]\n')


def test_a_removal_that_is_known_settles_only_what_it_removes(tmp_path):
    other = A.replace("motd", "issue").replace("nodes.a", "nodes.c") + B.replace("motd", "issue").replace(
        "nodes.b", "nodes.d"
    )
    drop = DROP.replace('["a"]', '["a", "c"]')
    assert briefs(tmp_path, A + B + other + drop) == ["c and d both provide /etc/issue, and differ"]


def test_what_a_removal_makes_room_for_is_no_conflict_and_what_it_cannot_do_is_left_to_the_build(tmp_path):
    check(tmp_path, A + B.replace("content", 'needs = ["a", "drop"]\ncontent') + DROP)
    check(tmp_path, A + B + DROP.replace("/etc/motd", "/nothing"))


def test_conflicts_of_a_nested_recipe_are_reported(tmp_path):
    (tmp_path / "inner.toml").write_text(HEAD + A + B)
    found = briefs(tmp_path, '[nodes.base]\nkind = "image"\nrecipe = "inner.toml"\n')
    assert found == ["base/a and base/b both provide /etc/motd, and differ"]
