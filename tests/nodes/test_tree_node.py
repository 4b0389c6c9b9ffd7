"""The kind `tree`: a directory becomes a layer without the accidents of a checkout."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
from pathlib import Path

import msgspec
import pytest
from node_helpers import Objects, context, problems, run, spec, tree_of

from cfsbuild.errors import BuildError
from cfsbuild.events import Note
from cfsbuild.fsverity.digest import digest_bytes
from cfsbuild.nodes.kind import Owners
from cfsbuild.nodes.tree import KIND
from cfsbuild.nodes.treefilter import compile_patterns
from cfsbuild.tree import paths
from cfsbuild.tree.layer import encode_layer
from cfsbuild.tree.scan import scan

LONG = b"more than sixty-four bytes of content, so that it becomes an object " * 2


@pytest.fixture
def source(tmp_path) -> Path:
    root = tmp_path / "dist"
    (root / "bin").mkdir(parents=True)
    (root / "share" / "empty").mkdir(parents=True)
    (root / "bin" / "app").write_bytes(LONG)
    (root / "bin" / "app").chmod(0o751)
    (root / "bin" / "link").symlink_to("app")
    (root / "share" / "data").write_bytes(b"small")
    (root / "share" / "data").chmod(0o600)
    (root / "share" / "none").write_bytes(b"")
    os.mkfifo(root / "share" / "fifo")
    os.link(root / "bin" / "app", root / "share" / "same")
    os.utime(root / "share" / "data", ns=(0, 1_500_000_000_123_456_789))
    return root


def fingerprint(source: Path, **params) -> str:
    node = spec("tree", source=str(source), **params)
    return KIND.gather(context(node, Objects()), node.params).digests["source"]


def test_everything_below_the_source_arrives_below_the_target(source) -> None:
    objects = Objects()
    layer = run("tree", objects, source=str(source), target="/opt/app")
    assert set(layer.entries) | set(layer.links) == {
        b"/opt/app/bin/app",
        b"/opt/app/bin/link",
        b"/opt/app/share/data",
        b"/opt/app/share/empty",
        b"/opt/app/share/fifo",
        b"/opt/app/share/none",
        b"/opt/app/share/same",
    }
    app = layer.entries[b"/opt/app/bin/app"]
    assert objects.content(app) == LONG
    assert app.digest == digest_bytes(LONG, objects.algorithm)
    assert layer.entries[b"/opt/app/share/data"].content == b"small"
    assert layer.entries[b"/opt/app/bin/link"].target == b"app"
    assert layer.links == {b"/opt/app/share/same": b"/opt/app/bin/app"}


def test_accidents_of_the_checkout_do_not_arrive(source) -> None:
    layer = run("tree", source=str(source))
    modes = {path: oct(inode.mode) for path, inode in layer.entries.items()}
    assert modes == {
        b"/bin/app": "0o100755",
        b"/bin/link": "0o120777",
        b"/share/data": "0o100644",
        b"/share/empty": "0o40755",
        b"/share/fifo": "0o10644",
        b"/share/none": "0o100644",
    }
    assert {(inode.uid, inode.gid, inode.mtime_ns, inode.xattrs) for inode in layer.entries.values()} == {
        (0, 0, 0, ())
    }


def test_two_checkouts_at_different_places_give_equal_layers(source, tmp_path, monkeypatch) -> None:
    one = run("tree", source=str(source), target="/x")
    before = fingerprint(source)
    other = tmp_path / "else" / "where"
    other.parent.mkdir()
    subprocess.run(["cp", "-R", "--preserve=links", source, other], check=True)
    (other / "share" / "data").chmod(0o640)
    for native in ("0", "1"):
        monkeypatch.setenv("CFSBUILD_NATIVE", native)
        assert encode_layer(run("tree", source=str(other), target="/x")) == encode_layer(one)
        assert fingerprint(other) == before


@pytest.mark.parametrize("preserve", ["mtime", "mode", "owner", "xattrs"])
def test_preserve_keeps_exactly_what_it_names(source, preserve) -> None:
    file = source / "share" / "data"
    try:
        os.setxattr(file, "user.note", b"kept")
        if os.geteuid() == 0:
            os.chown(file, 123, 456)
    except OSError:
        pytest.skip("this file system has no user xattrs")
    inode = run("tree", source=str(source), preserve=[preserve]).entries[b"/share/data"]
    status = file.stat()
    expected = {
        "mtime": (0o644, 0, 0, 1_500_000_000_123_456_789, ()),
        "mode": (0o600, 0, 0, 0, ()),
        "owner": (0o644, status.st_uid, status.st_gid, 0, ()),
        "xattrs": (0o644, 0, 0, 0, ((b"user.note", b"kept"),)),
    }[preserve]
    found = (stat.S_IMODE(inode.mode), inode.uid, inode.gid, inode.mtime_ns, inode.xattrs)
    assert found == expected


def test_the_fingerprint_covers_what_matters_and_nothing_else(source) -> None:
    before = fingerprint(source)
    (source / "share" / "data").chmod(0o644)
    os.utime(source / "share" / "data")
    assert fingerprint(source) == before
    seen = {before}
    changes = [
        lambda: (source / "share" / "data").write_bytes(b"SMALL"),
        lambda: (source / "bin" / "app").write_bytes(LONG[::-1]),
        lambda: (source / "share" / "data").chmod(0o755),
        (source / "new").mkdir,
        lambda: (source / "share" / "none").rename(source / "share" / "nothing"),
        lambda: ((source / "bin" / "link").unlink(), (source / "bin" / "link").symlink_to("spp")),
        lambda: ((source / "share" / "same").unlink(), (source / "share" / "same").write_bytes(LONG[::-1])),
    ]
    for change in changes:
        change()
        seen.add(fingerprint(source))
    assert len(seen) == len(changes) + 1
    assert fingerprint(source, preserve=["mtime"]) not in seen


def test_owner_group_and_rules_apply_and_later_rules_win(source) -> None:
    layer = run(
        "tree",
        owners=Owners(uids={"root": 0, "app": 990}, gids={"root": 0, "app": 991}),
        source=str(source),
        target="/opt",
        owner="app",
        group=7,
        rules=[
            {"match": "share/*", "mode": "0440", "group": "app"},
            {"match": "app", "group": "app"},
            {"match": "bin/app", "mode": "4755"},
            {"match": "same", "mode": "4755"},
            {"match": "share/fifo", "mode": "0600", "owner": 5},
        ],
    )
    found = {path: (oct(stat.S_IMODE(i.mode)), i.uid, i.gid) for path, i in layer.entries.items()}
    assert found[b"/opt/share/data"] == ("0o440", 990, 991)
    assert found[b"/opt/share/fifo"] == ("0o600", 5, 991)
    assert found[b"/opt/bin/app"][0] == "0o4755"
    assert found[b"/opt"] == ("0o755", 990, 7)


def test_a_rule_for_one_of_two_hard_links_is_refused(source) -> None:
    with pytest.raises(BuildError, match="are the same file") as caught:
        run("tree", source=str(source), rules=[{"match": "bin/app", "mode": "0700"}])
    assert "/share/same" in caught.value.brief
    assert caught.value.origin is not None


def test_a_rule_that_matches_nothing_is_told(source) -> None:
    events = []
    node = spec("tree", source=str(source), rules=[{"match": "sbin/*", "mode": "0700"}])
    given = msgspec.structs.replace(context(node, Objects()), listener=events.append)
    KIND.produce(given, node.params, KIND.gather(given, node.params))
    (note,) = (event for event in events if isinstance(event, Note))
    assert (note.text, note.origin) == ("rule 'sbin/*' matches nothing", "recipe.toml:3")


def test_sockets_are_left_out_with_a_note_and_devices_refused(source) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(source / "sock"))
    events = []
    node = spec("tree", source=str(source))
    given = msgspec.structs.replace(context(node, Objects()), listener=events.append)
    layer = KIND.produce(given, node.params, KIND.gather(given, node.params))
    assert b"/sock" not in layer.entries
    assert [event.text for event in events if isinstance(event, Note)] == [
        "/sock is a socket and is left out"
    ]
    if os.geteuid() != 0:
        pytest.skip("making a device needs root")
    os.mknod(source / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    with pytest.raises(BuildError, match="/null is a device node"):
        run("tree", source=str(source))
    assert b"/null" not in run("tree", source=str(source), exclude=["/null"]).entries


def test_xattrs_of_overlayfs_are_refused_unless_asked_for(source) -> None:
    try:
        os.setxattr(source / "share", "trusted.overlay.opaque", b"y")
    except OSError:
        pytest.skip("setting trusted xattrs needs root and a file system that has them")
    assert run("tree", source=str(source)).entries
    with pytest.raises(BuildError, match=r"trusted\.overlay\.opaque"):
        run("tree", source=str(source), preserve=["xattrs"])
    layer = run("tree", source=str(source), preserve=["overlay-xattrs"])
    assert layer.entries[b"/share"].xattrs == ((b"trusted.overlay.opaque", b"y"),)


def git_ignores(tmp_path: Path, lines: list[str], names: list[str]) -> set[str]:
    """Ask git which files it would leave out."""
    repository = tmp_path / "repository"
    repository.mkdir()
    subprocess.run(["git", "init", "-q", repository], check=True)
    for name in names:
        file = repository / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")
    (repository / ".git" / "info" / "exclude").write_text("\n".join(lines) + "\n")
    done = subprocess.run(
        ["git", "ls-files", "-z", "--others", "--ignored", "--exclude-standard"],
        cwd=repository,
        check=True,
        capture_output=True,
        text=True,
    )
    return set(done.stdout.split("\0")) - {""}


NAMES = [
    "a.o",
    "keep.o",
    "doc/a.txt",
    "doc/b/c.txt",
    "src/a.o",
    "src/doc/x",
    "build/out",
    "build/keep",
    "x/build",
]


@pytest.mark.parametrize(
    "lines",
    [
        ["*.o"],
        ["*.o", "!keep.o"],
        ["doc/"],
        ["/doc/"],
        ["build"],
        ["/build/*", "!/build/keep"],
        ["build/", "!build/keep"],
        ["doc/**/c.txt"],
        ["**/doc"],
        ["# comment", "", "a.[oc]"],
    ],
)
def test_exclude_leaves_out_what_git_ignores(tmp_path, lines) -> None:
    ignored = git_ignores(tmp_path, lines, NAMES)
    root = tmp_path / "root"
    for name in NAMES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    layer = run("tree", source=str(root), exclude=[line for line in lines if line])
    kept = {os.fsdecode(path[1:]) for path, inode in layer.entries.items() if inode.is_regular}
    assert kept == set(NAMES) - ignored


def test_include_takes_what_matches_and_the_directories_above(source) -> None:
    layer = run("tree", source=str(source), target="/t", include=["data", "/bin/"], exclude=["link"])
    assert set(layer.entries) == {b"/t/bin/app", b"/t/share/data"}
    with pytest.raises(BuildError, match=r"nothing in .* matches include"):
        run("tree", source=str(source), include=["*.nope"])


def test_a_link_whose_first_name_is_excluded_is_a_file(source) -> None:
    layer = run("tree", source=str(source), exclude=["/bin/"])
    assert layer.links == {}
    assert layer.entries[b"/share/same"].size == len(LONG)


def test_names_with_every_byte_arrive(tmp_path) -> None:
    names = {bytes([byte]) for byte in range(1, 256)} - {b"/", b"."}
    for name in names:
        (tmp_path / os.fsdecode(name)).write_bytes(name)
    layer = run("tree", source=str(tmp_path), target="/every", exclude=["no-such-file"])
    assert {path[7:]: inode.content for path, inode in layer.entries.items()} == {
        name: name for name in names
    }
    assert list(layer.entries) == sorted(layer.entries, key=paths.depth_first)


def test_directories_that_nobody_declared_do_not_conflict(source) -> None:
    first = run("dir", target="/share", mode="0700")
    tree = tree_of(first, run("tree", source=str(source)))
    assert oct(tree.entries[b"/share"].mode) == "0o40700"


def test_check_finds_what_is_wrong_before_anything_runs(source, tmp_path) -> None:
    assert "does not exist" in problems("tree", source=str(tmp_path / "absent"))[0]
    assert "is not a directory" in problems("tree", source=str(source / "bin" / "app"))[0]
    assert problems("tree", source=str(source), exclude=["!"])
    assert problems("tree", source=str(source), rules=[{"match": "a/../b", "mode": "0644"}])
    assert "changes nothing" in problems("tree", source=str(source), rules=[{"match": "a"}])[0]
    assert "both given and preserved" in problems("tree", source=str(source), owner=5, preserve=["owner"])[0]
    assert problems("tree", source=str(source), owner="app", rules=[{"match": "bin/*", "mode": "0755"}]) == []


def test_owner_names_are_listed_with_their_places(source) -> None:
    node = spec("tree", source=str(source), owner="app", rules=[{"match": "x", "owner": "web", "group": 3}])
    assert list(KIND.owner_names(node.params)) == [("owner", "user", "app"), ("rules.0.owner", "user", "web")]


def test_a_pattern_without_a_slash_matches_at_any_depth() -> None:
    matches = compile_patterns(["*.pyc", "!keep.pyc", "/top"])
    assert matches("a/b/c.pyc")
    assert not matches("a/keep.pyc")
    assert matches("top/")
    assert not matches("a/top")


def test_a_link_that_changes_after_it_was_listed_ends_the_build(tmp_path):
    link = tmp_path / "link"
    link.symlink_to("short")
    found = scan(tmp_path)
    link.unlink()
    link.symlink_to("a longer target")
    node = spec("tree", source=str(tmp_path))
    with pytest.raises(BuildError, match=r"source changed while building: .*/link") as caught:
        KIND.gather(context(node, Objects(), scan=lambda _: found), node.params)
    assert caught.value.reason == "source-changed"
