"""One regular file: where its bytes come from, and what is refused."""

from __future__ import annotations

import os
import stat
import subprocess

import pytest
from node_helpers import Objects, context, problems, run, spec

from cfsbuild.errors import BuildError
from cfsbuild.nodes import file as file_kind
from cfsbuild.nodes.kind import Owners
from cfsbuild.nodes.registry import NODE_KINDS


def only(layer):
    ((path, inode),) = layer.entries.items()
    return path, inode


def test_text_of_up_to_64_bytes_is_inline_and_longer_text_is_an_object():
    objects = Objects()
    path, inode = only(run("file", objects, target="/etc/hostname", content="edge\n"))
    assert (path, inode.content, inode.size, inode.digest) == (b"/etc/hostname", b"edge\n", 5, b"")
    assert (inode.mode, inode.uid, inode.gid, inode.mtime_ns) == (stat.S_IFREG | 0o644, 0, 0, 0)
    assert only(run("file", objects, target="/f", content="x" * 64))[1].content == b"x" * 64
    _, long = only(run("file", objects, target="/f", content="x" * 65))
    assert (long.content, long.size, objects.content(long)) == (b"", 65, b"x" * 65)


def test_empty_text_makes_an_empty_file():
    _, inode = only(run("file", target="/f", content=""))
    assert (inode.size, inode.content, inode.digest) == (0, b"", b"")


@pytest.mark.parametrize("size", [0, 1, 64, 65, 200_000])
def test_a_source_is_taken_byte_for_byte_and_keyed_by_its_fsverity_digest(tmp_path, size):
    data = os.urandom(size)
    (tmp_path / "data").write_bytes(data)
    objects = Objects()
    node = spec("file", file=str(tmp_path / "r.toml"), target="/f", source="data")
    given = context(node, objects)
    fingerprint = file_kind.gather(given, node.params)
    answer = subprocess.run(
        ["fsverity", "digest", "--compact", tmp_path / "data"], capture_output=True, text=True, check=True
    )
    assert fingerprint.digests == {"source": answer.stdout.strip()}
    _, inode = only(file_kind.produce(given, node.params, fingerprint))
    assert objects.content(inode) == data
    assert bool(inode.digest) == (size > 64)


def test_nothing_of_the_source_but_its_bytes_reaches_the_image(tmp_path):
    (tmp_path / "data").write_text("x")
    (tmp_path / "data").chmod(0o4751)
    os.utime(tmp_path / "data", (5, 5))
    _, inode = only(run("file", file=str(tmp_path / "r.toml"), target="/f", source="data"))
    assert (inode.mode, inode.mtime_ns) == (stat.S_IFREG | 0o644, 0)


def test_mode_owner_time_and_xattrs_are_as_given():
    owners = Owners(uids={"root": 0, "app": 990}, gids={"root": 0, "app": 991})
    layer = run(
        "file",
        owners=owners,
        target="//opt//app/",
        content="x",
        mode="4755",
        owner="app",
        group="app",
        mtime=-5,
        xattrs={"user.b": "text", "user.a": "0x00ff", "security.c": "0saGk="},
    )
    path, inode = only(layer)
    assert path == b"/opt/app"
    assert (inode.mode, inode.uid, inode.gid, inode.mtime_ns) == (stat.S_IFREG | 0o4755, 990, 991, -5 * 10**9)
    assert inode.xattrs == ((b"security.c", b"hi"), (b"user.a", b"\x00\xff"), (b"user.b", b"text"))
    assert list(NODE_KINDS["file"].owner_names(spec("file", target="/f", owner="app", group=5).params)) == [
        ("owner", "user", "app")
    ]


def test_a_source_that_changes_while_it_is_read_is_noticed(tmp_path):
    path = tmp_path / "data"
    path.write_bytes(b"x" * 1000)

    class Meddling(Objects):
        def add_fd(self, fd, /):
            result = super().add_fd(fd)
            with path.open("ab") as file:
                file.write(b"y")
            return result

    with pytest.raises(BuildError, match="changed while it was read") as caught:
        run("file", Meddling(), file=str(tmp_path / "r.toml"), target="/f", source="data")
    assert caught.value.reason == "source-changed"
    assert str(caught.value.origin).endswith("r.toml:3")


def test_a_fifo_as_source_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    found = problems("file", file=str(tmp_path / "r.toml"), target="/f", source="fifo")
    assert found == [f"node: {tmp_path}/fifo is not a regular file"]
    node = spec("file", file=str(tmp_path / "r.toml"), target="/f", source="fifo")
    with pytest.raises(BuildError, match="not a regular file"):
        file_kind.gather(context(node, Objects()), node.params)


def test_a_source_that_vanished_after_the_check_is_an_error(tmp_path):
    node = spec("file", file=str(tmp_path / "r.toml"), target="/f", source="gone")
    with pytest.raises(BuildError, match=r"cannot open .*gone: No such file"):
        file_kind.gather(context(node, Objects()), node.params)


def test_a_template_arrives_rendered_and_one_that_does_not_makes_no_empty_file():
    with pytest.raises(BuildError, match=r"template t.j2 was not rendered"):
        run("file", target="/f", template="t.j2")


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({}, ["node: needs one of content, source or template"]),
        ({"content": "x", "source": "."}, ["node: needs one of content, source or template, but has content and source"]),
        ({"content": "x", "template": "t"}, ["node: needs one of content, source or template, but has content and template"]),
        ({"content": "x", "xattrs": {"a.b": "c"}}, ["node: extended attribute 'a.b' is in no known namespace"]),
        ({"content": "x", "xattrs": {"user.a": "0xq"}}, ["node: value of extended attribute 'user.a' is not what its prefix says"]),
        ({"content": "x", "xattrs": {"trusted.overlay.opaque": "y"}}, ["node: extended attribute 'trusted.overlay.opaque' belongs to overlayfs"]),
    ],
)  # fmt: skip
def test_contradictions_are_found_before_anything_runs(params, expected):
    found = problems("file", target="/f", **params)
    assert [brief for brief in found if "is a directory" not in brief] == expected


def test_a_missing_source_and_a_directory_are_found_before_anything_runs(tmp_path):
    file = str(tmp_path / "r.toml")
    assert problems("file", file=file, target="/f", source="no") == [
        f"node: cannot read {tmp_path}/no: No such file or directory"
    ]
    assert problems("file", file=file, target="/f", source=".") == [f"node: {tmp_path} is a directory"]
    assert problems("file", target="/", content="x") == ["node: a file cannot be the root"]


def test_the_registry_knows_every_name_without_importing_any_kind():
    code = (
        "import sys; from cfsbuild.nodes.registry import MODULES, NODE_KINDS;"
        "assert 'file' in NODE_KINDS and 'nope' not in NODE_KINDS;"
        "heavy = {*MODULES.values(), 're', 'networkx', 'jinja2'};"
        "print(*NODE_KINDS); print(*[name for name in sys.modules if name in heavy])"
    )
    answer = subprocess.run([os.sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names, loaded = answer.stdout.splitlines()
    assert names == (
        "file dir symlink device tree archive accounts attributes remove image programs python kernel-modules"
    )
    assert loaded.split() in ([], ["re"])


@pytest.mark.parametrize(
    "name", ["file", "dir", "symlink", "device", "accounts", "attributes", "remove", "image"]
)
def test_every_kind_carries_its_name_and_every_parameter_a_description(name):
    import msgspec  # noqa: PLC0415

    kind = NODE_KINDS[name]
    assert kind.name == name
    assert kind.version >= 1
    schema = msgspec.json.schema(kind.params)
    for definition in schema["$defs"].values():
        for parameter, value in definition.get("properties", {}).items():
            if parameter not in {"owner", "group"}:
                assert "description" in value or "anyOf" in value, f"{name}.{parameter}"
