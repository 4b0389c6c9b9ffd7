"""Whatever is wrong with what a user gives: the designed status, a message that names the place, nothing left."""

from __future__ import annotations

import io
import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import NamedTuple

import pytest

import cfsbuild
from cfsbuild.cli.main import main

HEAD = '[image]\nname = "r"\n'
PROGRAM = [sys.executable, "-m", "cfsbuild.cli.main"]
UNPRIVILEGED = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
"""Root without the right to ignore permission bits: still finds the interpreter wherever that is."""

needs_setpriv = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None, reason="needs root and setpriv"
)


class Outcome(NamedTuple):
    status: int
    out: str
    err: str


class Place:
    """A working directory with a store."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.store = directory / "store"

    def write(self, text: str, name: str = "r.toml") -> None:
        (self.directory / name).write_text(HEAD + text)

    def run(self, *arguments: str | bytes, wrap: list[str] | None = None, **options: object) -> Outcome:
        """Run the program as a process of its own."""
        environment = {
            **os.environ,
            "PYTHONPATH": str(Path(cfsbuild.__file__).parents[1]),
            "CFSBUILD_STORE": str(self.store),
        }
        environment.update(options.pop("env", {}))
        done = subprocess.run(
            [*(wrap or []), *PROGRAM, *arguments],
            cwd=self.directory,
            env={name: value for name, value in environment.items() if value is not None},
            capture_output=True,
            timeout=60,
            check=False,
            **options,
        )
        outcome = Outcome(
            done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        )
        self.check(outcome)
        return outcome

    def check(self, outcome: Outcome) -> None:
        """Check what holds for every failure."""
        said = outcome.out + outcome.err
        for word in ("Traceback", "internal error", "Exception ignored", "Warning"):
            assert word not in said, said
        if outcome.status:
            assert not list(self.store.glob("cfsbuild/staging/*")), said
            assert not list(self.directory.glob("out/.*")), said


@pytest.fixture
def place(tmp_path, monkeypatch) -> Place:
    monkeypatch.chdir(tmp_path)
    return Place(tmp_path)


@pytest.fixture
def call(place, capsys):
    """Run the program in this process."""

    def run(*arguments: str) -> Outcome:
        status = main(["--store", str(place.store), "--progress=none", *arguments])
        outcome = Outcome(status, *capsys.readouterr())
        place.check(outcome)
        return outcome

    return run


def file(target: str, name: str = "a", more: str = 'content = "x"\n') -> str:
    return f'[nodes.{name}]\nkind = "file"\ntarget = "{target}"\n{more}'


RECIPES = {
    "empty": (b"", 1, "[image]"),
    "only a comment": (b"# nothing\n", 1, "[image]"),
    "binary": (bytes(range(256)) * 20, 2, "UTF-8"),
    "NUL": (HEAD.encode() + b'[vars]\na = "\\u0000"\n', 4, "NUL"),
    "no TOML": (b"key value\n", 1, "TOML"),
    "too large": (b"#" * (1 << 20) + b"\n\n", 0, "larger"),
    "deep": (b"a = " + b"[" * 100_000 + b"\n", 1, "nested"),
    "deep tables": (b"a = " + b"{a=" * 50_000 + b"\n", 1, "nested"),
    "long keys": (b"[" + b".".join([b"a"] * 5000) + b"]\n", 1, "parts"),
    "twice": (HEAD.encode() + b'name = "s"\n', 3, "name"),
    "unknown section": (HEAD.encode() + b"[nonsense]\n", 3, "nonsense"),
    "unknown key": (HEAD.encode() + file("/a", more='content = "x"\nmod = "0644"\n').encode(), 7, "mode"),
    "wrong type": (HEAD.encode() + file("/a", more="content = 5\n").encode(), 6, "content"),
    "unknown kind": (HEAD.encode() + b'[nodes.a]\nkind = "fil"\n', 4, "file"),
    "no kind": (HEAD.encode() + b"[nodes.a]\n", 3, "kind"),
    "cycle": (
        HEAD.encode()
        + file("/a", more='content = "x"\nneeds = ["b"]\n').encode()
        + file("/b", "b", more='content = "x"\nneeds = ["a"]\n').encode(),
        7,
        "circle",
    ),
    "unknown need": (
        HEAD.encode() + file("/a", more='content = "x"\nneeds = ["nope"]\n').encode(),
        7,
        "nope",
    ),
    "missing source": (HEAD.encode() + file("/a", more='source = "nope"\n').encode(), 6, "nope"),
    "missing include": (b'include = ["nope.toml"]\n' + HEAD.encode(), 1, "nope.toml"),
    "unknown owner": (
        HEAD.encode() + file("/a", more='content = "x"\nowner = "nobody"\n').encode(),
        7,
        "nobody",
    ),
    "bad mode": (HEAD.encode() + file("/a", more='content = "x"\nmode = "rwx"\n').encode(), 7, "mode"),
    "dots": (HEAD.encode() + file("/../etc/passwd").encode(), 5, ".."),
    "relative": (HEAD.encode() + file("etc/passwd").encode(), 5, "absolute"),
    "newline": (HEAD.encode() + file("/a\\nb").encode(), 5, "newline"),
    "NUL in path": (HEAD.encode() + file("/a\\u0000").encode(), 5, "NUL"),
    "long name": (HEAD.encode() + file("/" + "a" * 256).encode(), 5, "255"),
    "long path": (HEAD.encode() + file("/a" * 2100).encode(), 5, "4095"),
    "template error": (HEAD.encode() + file("/a", more='content = "{{ nope }}"\n').encode(), 6, "nope"),
    "template syntax": (HEAD.encode() + file("/a", more='content = "{{ ("\n').encode(), 6, ""),
    "template bomb": (
        HEAD.encode() + file("/a", more="content = \"{{ 'x' * 10**10 }}\"\n").encode(),
        6,
        "",
    ),
    "static conflict": (
        HEAD.encode() + file("/a").encode() + file("/a", "b", more='content = "y"\n').encode(),
        7,
        "a and b both provide /a",
    ),
    "device as source": (HEAD.encode() + file("/a", more='source = "/dev/zero"\n').encode(), 6, "regular"),
    "null as source": (HEAD.encode() + file("/a", more='source = "/dev/null"\n').encode(), 6, "regular"),
    "directory as source": (HEAD.encode() + file("/a", more='source = "."\n').encode(), 6, "directory"),
    "device as archive": (
        HEAD.encode() + b'[nodes.a]\nkind = "archive"\nsource = "/dev/zero"\n',
        5,
        "regular",
    ),
    "device as tree": (HEAD.encode() + b'[nodes.a]\nkind = "tree"\nsource = "/dev/zero"\n', 5, "directory"),
    "itself": (HEAD.encode() + b'[nodes.a]\nkind = "image"\nrecipe = "r.toml"\n', 0, ""),
    "matrix bomb": (
        HEAD.encode()
        + b"[matrix]\n"
        + b"".join(b'v%d = ["%s"]\n' % (n, b'", "'.join(b"%d" % m for m in range(9))) for n in range(9)),
        0,
        "",
    ),
}


@pytest.mark.parametrize("verb", ["check", "build"])
@pytest.mark.parametrize("case", RECIPES)
def test_a_wrong_recipe_is_refused_with_its_line(place, call, case, verb):
    text, line, word = RECIPES[case]
    (place.directory / "r.toml").write_bytes(text)
    began = time.monotonic()
    outcome = call(verb, "r.toml")
    assert time.monotonic() - began < 25
    assert outcome.status == 2, outcome
    assert outcome.out == ""
    assert word in outcome.err, outcome.err
    assert "r.toml:" in outcome.err
    if line:
        assert f"r.toml:{line}: error:" in outcome.err, outcome.err
    assert not (place.directory / "out").exists()


@pytest.mark.parametrize("case", ["empty", "cycle", "static conflict"])
def test_errors_as_json_have_their_places(place, call, case):
    text, line, _ = RECIPES[case]
    (place.directory / "r.toml").write_bytes(text)
    for verb in ("check", "build"):
        outcome = call("--json", verb, "r.toml")
        document = json.loads(outcome.err.splitlines()[-1])["error"]
        assert (outcome.status, document["exit_code"], outcome.out) == (2, 2, "")
        assert line in {problem["origin"]["line"] for problem in document["problems"]}


def test_a_directory_and_a_fifo_are_no_recipes(place, call):
    (place.directory / "d.toml").mkdir()
    os.mkfifo(place.directory / "f.toml")
    for name in ("d.toml", "f.toml", "nope.toml"):
        for verb in ("build", "check"):
            outcome = call(verb, name)
            assert outcome.status == 2
            assert name in outcome.err


def test_a_conflict_that_only_an_archive_reveals_has_status_1(place, call):
    with tarfile.open(place.directory / "a.tar", "w") as tar:
        member = tarfile.TarInfo("a")
        member.size = 1
        tar.addfile(member, io.BytesIO(b"y"))
    place.write(file("/a") + '[nodes.b]\nkind = "archive"\nsource = "a.tar"\n')
    assert call("check", "r.toml").status == 0
    outcome = call("build", "r.toml")
    assert outcome.status == 1
    assert "r.toml:7: error: a and b both provide /a" in outcome.err
    assert not (place.directory / "out").exists()


TREE = '[nodes.t]\nkind = "tree"\nsource = "tree"\n'


@pytest.fixture
def tree(place) -> Path:
    place.write(TREE)
    (place.directory / "tree").mkdir()
    (place.directory / "tree/file").write_text("content\n" * 100)
    return place.directory / "tree"


def test_odd_things_in_trees_are_kept_or_left_out_with_a_note(place, call, tree):
    os.mkfifo(tree / "fifo")
    (tree / "loop").symlink_to("loop")
    (tree / "up").symlink_to("..")
    for byte in range(1, 256):
        if byte not in b"/.":
            (tree / os.fsdecode(bytes([byte]))).write_bytes(b"x")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("tree/socket")
        outcome = call("--progress=plain", "build", "r.toml")
    assert outcome.status == 0
    assert "/socket is a socket and is left out" in outcome.err
    listing = call("ls", "r").out
    assert " loop -> loop" in listing
    assert "socket" not in listing
    assert call("verify", "r").status == 0


@needs_setpriv
@pytest.mark.parametrize("name", ["file", "directory"])
def test_what_cannot_be_read_is_named_with_the_node(place, tree, name):
    if name == "directory":
        (tree / name).mkdir()
    (tree / name).chmod(0)
    outcome = place.run("build", "r.toml", wrap=UNPRIVILEGED)
    (tree / name).chmod(0o755)
    assert outcome.status == 1
    assert f"r.toml:3: error: tree/{name} cannot be read" in outcome.err
    assert not (place.directory / "out").exists()


def test_a_device_in_a_tree_is_refused(place, call, tree):
    try:
        os.mknod(tree / "null", 0o20666, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("this user may not make devices")
    outcome = call("build", "r.toml")
    assert outcome.status == 1
    assert "/null" in outcome.err
    assert "r.toml:5: error:" in outcome.err


def test_a_file_of_proc_changes_while_it_is_read(place, call):
    place.write(file("/a", more='source = "/proc/self/status"\n'))
    outcome = call("build", "r.toml")
    assert outcome.status == 1
    assert "r.toml:6: error:" in outcome.err
    assert "changed while it was read" in outcome.err


def test_a_tree_that_is_too_deep_is_refused(place, call, tree):
    here = os.open(tree, os.O_RDONLY)
    for _ in range(300):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    outcome = call("build", "r.toml")
    assert outcome.status == 1
    assert "256 levels" in outcome.err
    assert "r.toml:3: error:" in outcome.err


@pytest.fixture
def image(place, call, tree) -> bytes:
    assert call("build", "-q", "r.toml").status == 0
    return (place.directory / "out/r.cfs").read_bytes()


@pytest.mark.parametrize("length", [0, 1, 4, 100, 1024, 4096, 5000, -1])
def test_truncated_images_are_refused(place, call, image, length):
    (place.directory / "bad.cfs").write_bytes(image[:length])
    assert call("verify", "bad.cfs").status == 5
    for verb in ("ls", "dump", "export"):
        more = ["new.tar"] if verb == "export" else []
        outcome = call(verb, "bad.cfs", *more)
        assert outcome.status == 1, (verb, outcome)
        assert "bad.cfs" in outcome.err
    assert not (place.directory / "new.tar").exists()


@pytest.mark.parametrize(
    "data",
    [b"\x7fELF" * 5000, os.urandom(64) * 300, bytes(20_000), b"/ garbage\n"],
    ids=["elf", "random", "zeros", "dump"],
)
def test_what_is_no_image_is_refused(place, call, data):
    (place.directory / "bad.cfs").write_bytes(data)
    for verb in (["verify", "bad.cfs"], ["ls", "bad.cfs"], ["composefs-info", "dump", "bad.cfs"]):
        assert call(*verb).status in {1, 5}
    assert call("mkcomposefs", "--from-file", "bad.cfs", "new.cfs").status == 1
    assert not (place.directory / "new.cfs").exists()


def test_a_huge_sparse_file_is_no_image(place, call):
    with (place.directory / "bad.cfs").open("wb") as sparse:
        sparse.write(b"\xd0\x78\x62\x9a")
        sparse.truncate(1 << 40)
    began = time.monotonic()
    assert call("verify", "bad.cfs").status == 5
    assert call("ls", "bad.cfs").status == 1
    assert time.monotonic() - began < 2


@pytest.mark.parametrize("what", ["image", "object"])
def test_damage_in_the_store_is_found_by_verify(place, call, image, what):
    """The digest that counts is the one under which the store knows the image."""
    link = place.store / "images/refs/r"
    objects = sorted((place.store / "objects").glob("*/*"), key=lambda path: path.stat().st_size)
    damaged = (
        link.resolve() if what == "image" else next(path for path in objects if path.stat().st_size == 800)
    )
    damaged.chmod(0o644)
    with damaged.open("r+b") as stream:
        # A byte that the structure of an image leaves free: only the digest tells.
        stream.seek(1024 + 64 if what == "image" else 0)
        stream.write(b"!")
    outcome = call("verify", "r")
    assert outcome.status == 5
    assert "damaged" in outcome.err
    assert call("store", "fsck").status == 5
    document = json.loads(call("--json", "verify", "r").out)
    assert not document["ok"]
    assert image


STORES = ("random", "file", "foreign", "garbage", "unfinished meta", "open to all")


@pytest.fixture
def bad_store(place, call, image):
    def make(what: str) -> Path:
        path = place.directory / "bad"
        if what == "random":
            path.mkdir()
            (path / "thesis.txt").write_text("keep me")
        elif what == "file":
            path.write_text("keep me")
        else:
            shutil.copytree(place.store, path, symlinks=True)
            meta = path / "meta.json"
            text = meta.read_text()
            meta.unlink()
            meta.write_text(
                {"foreign": text.replace("1", "99"), "garbage": "{}}", "unfinished meta": ""}.get(what, text)
            )
            if what == "open to all":
                path.chmod(0o777)
        return path

    return make


@pytest.mark.parametrize("what", STORES)
def test_what_is_no_usable_store_is_refused_and_left_alone(place, call, bad_store, what):
    path = bad_store(what)
    before = snapshot(path)
    for verb in (
        ["build", "r.toml"],
        ["store", "info"],
        ["store", "gc"],
        ["store", "fsck"],
        ["ls", "r"],
        ["verify", "r"],
    ):
        outcome = call("--store", str(path), *verb)
        assert outcome.status == 7, (verb, outcome)
        assert "bad" in outcome.err
        assert snapshot(path) == before


def snapshot(path: Path) -> list[tuple[str, int]]:
    return sorted((str(found), found.lstat().st_size) for found in [path, *path.rglob("*")])


def test_a_store_of_another_algorithm_is_status_2(place, call, image):
    (place.directory / "r.toml").write_text(HEAD + 'digest = "sha512"\n' + TREE)
    outcome = call("build", "r.toml")
    assert outcome.status == 2
    assert "sha512" in outcome.err


@needs_setpriv
def test_a_read_only_store_can_be_read_and_not_written(place, image):
    for path in [place.store, *place.store.rglob("*")]:
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & 0o555)
    for verb in (
        ["ls", "r"],
        ["verify", "r"],
        ["dump", "r"],
        ["store", "fsck"],
        ["store", "info"],
        ["build", "-n", "r.toml"],
    ):
        assert place.run(*verb, wrap=UNPRIVILEGED).status == 0
    (place.directory / "tree/new").write_text("new")
    for verb in (["build", "r.toml"], ["store", "gc"], ["store", "fsck", "--repair"]):
        outcome = place.run(*verb, wrap=UNPRIVILEGED)
        assert outcome.status == 7
        assert "cannot be written" in outcome.err


@pytest.mark.parametrize(
    "data", [b"", b"garbage\n", os.urandom(5000), b"/ 0 40755\n"], ids=["empty", "text", "bytes", "short"]
)
def test_garbage_on_standard_input_is_no_dump(place, data):
    outcome = place.run("mkcomposefs", "--from-file", "-", "new.cfs", input=data)
    assert outcome.status == 1
    assert outcome.err.startswith("mkcomposefs: ")
    assert outcome.err.count("\n") == 1
    assert not (place.directory / "new.cfs").exists()


def test_an_output_directory_that_cannot_be_written_is_status_7(place, call, tree):
    (place.directory / "out").write_text("a file")
    outcome = call("build", "r.toml")
    assert outcome.status == 7
    assert "--output" in outcome.err
    (place.directory / "out").unlink()
    assert call("build", "-q", "r.toml").status == 0


CLOSED = {
    "stdout of ls": ("ls r >&-", 7),
    "stdin": ("ls r <&- >/dev/null", 0),
    "stdin that is needed": ("mkcomposefs --from-file - x <&-", 1),
    "stderr": ("ls nope 2>&-", 2),
    "all": ("build -q --force r.toml <&- >&- 2>&-", 7),
    "stdout that is not needed": ("check -q r.toml >&-", 0),
    "stdout of a front end": ("mkcomposefs tree - >&-", 1),
    "a full stdout": ("dump r >/dev/full", 7),
    "a full stdout of json": ("build --json r.toml >/dev/full", 7),
}


@pytest.mark.parametrize("case", CLOSED)
def test_closed_standard_streams_are_never_confused_with_files(place, image, case):
    command, status = CLOSED[case]
    before = (place.directory / "out/r.cfs").read_bytes()
    done = place.run(wrap=["sh", "-c", f'"$0" "$@" {command}'])
    assert done.status == status, done
    assert (place.directory / "out/r.cfs").read_bytes() == before
    assert place.run("store", "fsck").status == 0


def test_neither_path_nor_home_nor_a_locale_is_needed(place, image):
    assert (
        place.run("build", "--force", "r.toml", env={"PATH": "", "HOME": None, "LC_ALL": "xx_YY"}).status == 0
    )
    outcome = place.run("store", "info", env={"HOME": None, "CFSBUILD_STORE": None, "XDG_DATA_HOME": None})
    assert outcome.status == 2
    assert "CFSBUILD_STORE" in outcome.err


@pytest.mark.parametrize("locale", [{"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}, {}])
def test_arguments_need_not_be_utf_8(place, image, locale):
    name = os.fsdecode(b"\xff.toml")
    for arguments in (
        ["ls", name],
        ["build", name],
        ["--json", "build", name],
        [name],
        ["build", "-o", name, "r.toml"],
    ):
        assert place.run(*arguments, env=locale).status == 2
    (place.directory / name).write_text(HEAD + TREE)
    assert place.run("build", "-q", name, env=locale).status == 0
    assert place.run("--store", os.fsdecode(b"st\xff"), "build", "-q", "r.toml", env=locale).status == 0


VERBS = {
    "check nope.toml": 2, "graph nope.toml": 2, "ls nope": 2, "verify nope": 2, "diff a b": 2, "why r.toml nope": 2,
    "cat r /nope": 2, "cat r /": 2, "show nope": 2, "mount nope /nope": 2, "umount /nope": 2, "export nope x": 2,
    "import /dev/null": 2, "nonsense": 2, "build --bogus": 2, "build -j0 r.toml": 2, "build --locked r.toml": 2,
    "store gc --grace x": 2, "watch nope.toml": 2, "--store nope store info": 7, "mount r /nope": 7,
}  # fmt: skip


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_tells_errors_as_one_json_document(call, image, verb):
    outcome = call("--json", *verb.split())
    document = json.loads(outcome.err)
    assert document["error"]["exit_code"] == outcome.status == VERBS[verb]
    assert outcome.out == ""
