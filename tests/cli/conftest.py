"""A store with one object, and images of small trees, for the verbs that look into images."""

from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
import swtpm

from cfsbuild.cli.main import main
from cfsbuild.erofs.writer import write_image
from cfsbuild.fsverity.algorithm import Algorithm
from cfsbuild.fsverity.digest import digest_bytes
from cfsbuild.store.store import Store
from cfsbuild.tree.dump import parse_dump_bytes

TOOL = b"#!/bin/sh\necho hello\n" + b"# padding\n" * 105

DUMP = r"""/ 4096 40755 5 0 0 0 0.0 - - -
/bin 7 120777 1 0 0 0 1700000000.0 usr/bin - -
/dev 0 40755 2 0 0 0 0.0 - - -
/dev/null 0 20666 1 0 0 259 0.0 - - -
/dev/sda 0 60660 1 0 6 2049 0.0 - - -
/etc 0 40755 2 0 0 0 0.0 - - -
/etc/group 20 100644 1 0 0 0 0.0 - root:x:0:\napp:x:990\n -
/etc/hostname 5 100644 2 0 0 0 1700000000.0 - edge\n -
/etc/passwd 54 100644 1 0 0 0 0.0 - root:x:0:0::/root:/bin/sh\napp:x:990:990::/:/bin/false\n -
/etc/we\nird\xff 4 100600 1 990 990 0 -5.0 - odd\n - user.a=b
/usr 0 40755 3 0 0 0 0.0 - - -
/usr/bin 0 40755 3 0 0 0 0.0 - - -
/usr/bin/hostlink 5 @100644 2 0 0 0 0.0 /etc/hostname - -
/usr/bin/loop 4 120777 1 0 0 0 0.0 loop - -
/usr/bin/tool SIZE 104755 1 0 0 0 1700000000.0 PAYLOAD - DIGEST
"""


class Outcome(NamedTuple):
    """What a user sees of a command."""

    status: int
    out: bytes
    err: str

    @property
    def text(self):
        return self.out.decode()

    @property
    def lines(self):
        return self.text.splitlines()

    @property
    def json(self):
        return msgspec.json.decode(self.out)


class Lab(NamedTuple):
    """A store that has the tool, and a directory to work in (the working directory)."""

    directory: Path
    store: Path

    def dump(self, edit=lambda text: text):
        digest = digest_bytes(TOOL, Algorithm.SHA256).hex()
        text = DUMP.replace("SIZE", str(len(TOOL))).replace("PAYLOAD", f"{digest[:2]}/{digest[2:]}")
        return edit(text.replace("DIGEST", digest)).encode()

    def image(self, name="a.cfs", edit=lambda text: text, form=1):
        path = self.directory / name
        path.write_bytes(bytes(write_image(parse_dump_bytes(self.dump(edit)), format=form)))
        return path

    @property
    def content(self):
        return TOOL

    @property
    def tool(self):
        digest = digest_bytes(TOOL, Algorithm.SHA256).hex()
        return self.store / "objects" / digest[:2] / digest[2:]


@pytest.fixture
def lab(tmp_path, monkeypatch):
    for name in ("CFSBUILD_JOBS", "SOURCE_DATE_EPOCH", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CFSBUILD_STORE", str(tmp_path / "store"))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    with Store.init(tmp_path / "store") as store, store.transaction() as transaction:
        transaction.add_bytes(TOOL)
        transaction.commit()
    return Lab(work, tmp_path / "store")


@pytest.fixture
def run(capfdbinary):
    def call(*arguments):
        capfdbinary.readouterr()
        status = main([str(argument) for argument in arguments])
        out, err = capfdbinary.readouterr()
        return Outcome(status, out, err.decode())

    return call


@pytest.fixture
def refused(run):
    """Return the reason that `verify` gives for a refusal, to people and as JSON."""

    def call(*arguments):
        told = run("verify", *arguments)
        assert told.status == 5
        assert told.err.startswith("error: ")
        result = run("verify", *arguments, "--json")
        assert result.status == 5
        assert not result.json["ok"]
        return result.json["faults"][0]["reason"]

    return call


@pytest.fixture
def files():
    """Return the contents of all files below a directory."""

    def call(directory):
        return {path: path.read_bytes() for path in sorted(Path(directory).rglob("*")) if path.is_file()}

    return call


@pytest.fixture
def machine(tmp_path):
    """Give a TPM of the test's own."""
    with swtpm.running(tmp_path / "tpm") as made:
        yield made
