"""Changing attributes of what is there; chmod is the judge of modes."""

from __future__ import annotations

import stat
import subprocess

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from node_helpers import Objects, context, problems, run, spec, tree_of

from cfsbuild.errors import BuildError, InputError
from cfsbuild.nodes.kind import Owners
from cfsbuild.nodes.registry import NODE_KINDS
from cfsbuild.nodes.symbolic_mode import apply_mode
from cfsbuild.tree.inode import Inode
from cfsbuild.tree.layer import make_layer

FILE = Inode(mode=stat.S_IFREG | 0o640, xattrs=((b"user.a", b"1"), (b"user.b", b"2")))
DIR = Inode(mode=stat.S_IFDIR | 0o750)
LINK = Inode(mode=stat.S_IFLNK | 0o777, size=1, target=b"x")
BASE = make_layer({b"/d": DIR, b"/d/f": FILE, b"/d/l": LINK, b"/h": FILE}, links={b"/i": b"/h"})
OWNERS = Owners(uids={"root": 0, "app": 9}, gids={"root": 0, "app": 10})


def change(*rules, base=BASE, **params):
    layer = run("attributes", None, tree_of(base), owners=OWNERS, needs=["base"], rules=list(rules), **params)
    return layer, tree_of(base, layer)


def test_only_what_comes_out_different_is_in_the_layer():
    layer, tree = change({"match": "/d/f", "owner": "app", "group": "app", "mtime": 7})
    assert list(layer.entries) == [b"/d/f"]
    inode = tree.entries[b"/d/f"]
    assert (inode.uid, inode.gid, inode.mtime_ns, inode.mode, inode.xattrs) == (
        9,
        10,
        7 * 10**9,
        FILE.mode,
        FILE.xattrs,
    )
    assert change({"match": "/d/f", "mode": "0640"})[0].entries == {}


def test_rules_work_one_after_the_other():
    _, tree = change({"match": "/d/**", "owner": 1, "mode": "u=rwX"}, {"match": "/d/f", "owner": 2})
    assert tree.entries[b"/d/f"].uid == 2
    assert tree.entries[b"/d/l"].uid == 1


def test_a_mode_leaves_symlinks_alone():
    _, tree = change({"match": "/d/**", "mode": "0600"})
    assert stat.S_IMODE(tree.entries[b"/d/l"].mode) == 0o777
    assert stat.S_IMODE(tree.entries[b"/d/f"].mode) == 0o600


def test_types_narrow_a_rule():
    _, tree = change({"match": ["/d", "/d/**"], "types": ["dir", "symlink"], "owner": 5})
    assert [tree.entries[path].uid for path in (b"/d", b"/d/f", b"/d/l")] == [5, 0, 5]


def test_an_implicit_directory_becomes_explicit_when_a_rule_changes_it():
    layer, _ = change({"match": "/x", "mode": "0700"}, base=make_layer({b"/x/y": FILE}))
    assert layer.entries == {b"/x": Inode(mode=stat.S_IFDIR | 0o700)}


def test_xattrs_are_set_and_removed():
    _, tree = change(
        {"match": "/d/f", "xattrs": {"user.c": "3", "user.a": "9"}, "remove_xattrs": ["user.b", "user.no"]}
    )
    assert tree.entries[b"/d/f"].xattrs == ((b"user.a", b"9"), (b"user.c", b"3"))
    for pattern in ("user.*", "*"):
        _, tree = change({"match": "/d/f", "remove_xattrs": [pattern]})
        assert tree.entries[b"/d/f"].xattrs == ()


def test_all_names_of_a_file_change_together_and_stay_linked():
    _, tree = change({"match": ["/h", "/i"], "mode": "0600"})
    assert tree.links == {b"/i": b"/h"}
    assert stat.S_IMODE(tree.entries[b"/h"].mode) == 0o600


def test_a_rule_that_matches_one_of_two_names_is_an_error_that_names_both():
    with pytest.raises(BuildError, match="'/h' matches /h, but not its hard link /i"):
        change({"match": "/h", "mode": "0600"})


def test_a_rule_must_match_something_unless_missing_is_ok():
    with pytest.raises(BuildError, match="nothing matches '/no'"):
        change({"match": "/no", "owner": 1})
    with pytest.raises(BuildError, match="nothing matches"):
        change({"match": "/d/f", "types": ["dir"], "owner": 1})
    assert change({"match": "/no", "owner": 1, "missing_ok": True})[0].entries == {}


def test_capabilities_go_on_regular_files_only():
    _, tree = change({"match": "/d/f", "capabilities": "cap_net_raw+ep"})
    assert (
        dict(tree.entries[b"/d/f"].xattrs)[b"security.capability"].hex()
        == "0100000200200000000000000000000000000000"
    )
    with pytest.raises(BuildError, match="/d/l: only regular files have capabilities"):
        change({"match": "/d/l", "capabilities": "cap_net_raw+ep"})


def test_an_acl_resolves_names_and_moves_the_mode():
    _, tree = change({"match": "/d/f", "acl": "u:app:rwx,g::r"}, {"match": "/d", "default_acl": "g:app:rx"})
    inode = tree.entries[b"/d/f"]
    value = dict(inode.xattrs)[b"system.posix_acl_access"]
    assert (
        value.hex() == "02000000"
        "01000600ffffffff"
        "0200070009000000"
        "04000400ffffffff"
        "10000700ffffffff"
        "20000000ffffffff"
    )
    assert stat.S_IMODE(inode.mode) == 0o670
    assert b"system.posix_acl_default" in dict(tree.entries[b"/d"].xattrs)
    for rule in ({"match": "/d/l", "acl": "u::r"}, {"match": "/d/f", "default_acl": "u::r"}):
        with pytest.raises(BuildError, match=r"a symlink has no ACL|only directories"):
            change(rule)


def test_a_mode_after_an_acl_changes_the_mask():
    _, tree = change({"match": "/d/f", "acl": "u:5:rwx"}, {"match": "/d/f", "mode": "0600"})
    inode = tree.entries[b"/d/f"]
    assert stat.S_IMODE(inode.mode) == 0o600
    assert "10000000ffffffff" in dict(inode.xattrs)[b"system.posix_acl_access"].hex()


def test_labels_come_from_file_contexts_with_a_final_nul(tmp_path):
    (tmp_path / "fc").write_text("/.* u:r:any\n/d/f -- u:r:f\n/d/l <<none>>\n")
    _, tree = change(file_contexts="fc", file=str(tmp_path / "r.toml"))
    labels = {path: dict(inode.xattrs).get(b"security.selinux") for path, inode in tree.entries.items()}
    assert labels == {
        b"/": b"u:r:any\0",
        b"/d": b"u:r:any\0",
        b"/d/f": b"u:r:f\0",
        b"/d/l": None,
        b"/h": b"u:r:any\0",
    }


def test_a_policy_that_labels_nothing_is_told(tmp_path):
    (tmp_path / "fc").write_text("/elsewhere u:r:x\n/d/f <<none>>\n")
    notes = []
    node = spec("attributes", file=str(tmp_path / "r.toml"), needs=["b"], file_contexts="fc")
    given = msgspec.structs.replace(context(node, Objects(), tree_of(BASE)), listener=notes.append)
    kind = NODE_KINDS["attributes"]
    assert kind.produce(given, node.params, kind.gather(given, node.params)).entries == {}
    (note,) = notes
    assert note.text == "file_contexts has no label for anything that the node needs"
    assert note.origin == f"{tmp_path / 'r.toml'}:2"


def test_names_of_one_file_with_different_labels_are_an_error(tmp_path):
    (tmp_path / "fc").write_text("/h u:r:h\n/i u:r:i\n")
    with pytest.raises(BuildError, match="names of one file get different SELinux labels") as caught:
        change(file_contexts=["fc"], file=str(tmp_path / "r.toml"))
    assert caught.value.details == "/h: u:r:h\n/i: u:r:i"


def test_the_key_follows_the_policy_file(tmp_path):
    def digests():
        node = spec("attributes", file=str(tmp_path / "r.toml"), needs=["b"], file_contexts="fc")
        return NODE_KINDS["attributes"].gather(context(node, Objects()), node.params).digests

    (tmp_path / "fc").write_text("/a l\n")
    first = digests()
    (tmp_path / "fc").write_text("/b l\n")
    assert first.keys() == digests().keys() == {"file_contexts"}
    assert first != digests()


def test_owner_names_include_those_in_acls():
    rules = [
        {"match": "/a", "owner": "u", "acl": "u:app:r,g:log:r"},
        {"match": "/b", "group": 5, "default_acl": "u:z:r"},
    ]
    node = spec("attributes", needs=["b"], rules=rules)
    assert list(NODE_KINDS["attributes"].owner_names(node.params)) == [
        ("rules.0.owner", "user", "u"),
        ("rules.0.acl", "user", "app"),
        ("rules.0.acl", "group", "log"),
        ("rules.1.default_acl", "user", "z"),
    ]


def test_mistakes_are_found_early(tmp_path):
    rules = [
        {"match": "/a["},
        {"match": "/a", "mode": "u+q"},
        {"match": "/a", "capabilities": "cap_x+p"},
        {"match": "/a", "capabilities_rootid": 5},
        {"match": "/a", "acl": "u:5"},
        {"match": "/a", "xattrs": {"nope": "x"}, "remove_xattrs": ["nope*"]},
    ]
    found = problems("attributes", file=str(tmp_path / "r.toml"), rules=rules, file_contexts="no")
    assert found == [
        "node: changes attributes, but needs no node that has any",
        f"node: there is no file {tmp_path}/no",
        "node: glob '/a[' has a '[' that is never closed",
        "node: rule changes nothing",
        "node: mode 'u+q' has 'q', which is none of r, w, x, X, s and t",
        "node: there is no capability 'cap_x' (in 'cap_x+p')",
        "node: capabilities_rootid without capabilities",
        "node: ACL entry 'u:5' is malformed",
        "node: extended attribute 'nope' is in no known namespace",
        "node: extended attribute 'nopex' is in no known namespace",
    ]
    assert problems("attributes", needs=["b"]) == ["node: changes nothing"]


clauses = st.builds(
    "{}{}{}".format,
    st.sampled_from(["", "u", "g", "o", "a", "ug", "go", "uo"]),
    st.sampled_from("+-="),
    st.one_of(
        st.sampled_from(["u", "g", "o", ""]),
        st.lists(st.sampled_from("rwxXst"), max_size=4, unique=True).map("".join),
    ),
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.lists(clauses, min_size=1, max_size=3).map(",".join),
    mode=st.integers(0, 0o7777),
    directory=st.booleans(),
)
def test_symbolic_modes_agree_with_chmod(tmp_path, text, mode, directory):
    path = tmp_path / "x"
    path.mkdir() if directory else path.write_bytes(b"")
    path.chmod(mode)
    before = path.stat().st_mode
    subprocess.run(["sh", "-c", 'umask 0; chmod -- "$1" "$2"', "sh", text, path], check=True)
    after = path.stat().st_mode
    path.rmdir() if directory else path.unlink()
    assert oct(apply_mode(text, before)) == oct(after)


@pytest.mark.parametrize("text", ["", "u", "8", "75", "00755555", "x+r", "u+rq", "u+r,", "0799"])
def test_malformed_modes_are_refused(text):
    with pytest.raises(InputError):
        apply_mode(text, stat.S_IFREG)
