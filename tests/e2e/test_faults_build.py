"""`cfsbuild build` and `store gc` survive a kill, and report a failure, at every system call that changes files."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import cfsbuild
from cfsbuild.cli.main import main
from cfsbuild.store.fsck import check_store
from cfsbuild.store.store import Store

sys.path.append(str(Path(__file__).parents[1] / "store"))

from fault_injection import inject, points

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")

RECIPE = """\
[image]
name = "r"

[nodes.base]
kind = "archive"
source = "base.tar"

[nodes.users]
kind = "accounts"
needs = ["base"]
users = [{ name = "app", uid = 990 }]

[nodes.app]
kind = "tree"
source = "app"
target = "/opt/app"

[nodes.motd]
kind = "file"
target = "/etc/motd"
source = "motd"
"""

EXPECTED = {"r.cfs", "r.dump", "r.manifest.json"}
SAMPLE = 13
"""By default every so many calls are tried."""

HARMLESS = ("/cfsbuild/state/", " mkdir(", ".cfsbuild-tmp>, LOCK_EX")
"""What a build may succeed without: caches, making a directory that is there, locks where there are none."""


@pytest.fixture(scope="module")
def driver(tmp_path_factory) -> Path:
    """Return a copy of the program that nobody edits while its system calls are counted."""
    copy = tmp_path_factory.mktemp("library")
    shutil.copytree(Path(cfsbuild.__file__).parent, copy / "cfsbuild")
    shutil.copy(Path(__file__).parent / "cli_driver.py", copy)
    return copy / "cli_driver.py"


def write_project(directory: Path) -> None:
    directory.mkdir()
    (directory / "r.toml").write_text(RECIPE)
    (directory / "motd").write_text("welcome\n" * 20)
    (directory / "app/bin").mkdir(parents=True)
    (directory / "app/bin/run").write_text("#!/bin/sh\n" * 300)
    (directory / "app/small").write_text("x")
    (directory / "app/link").symlink_to("bin/run")
    with tarfile.open(directory / "base.tar", "w") as tar:
        for name, data in (("etc/passwd", b"root:x:0:0::/root:/bin/sh\n"), ("usr/lib/big", b"0123" * 40_000)):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    old = 1_700_000_000
    for path in [directory, *directory.rglob("*")]:
        os.utime(path, (old, old), follow_symlinks=False)


class Scene:
    """A project with store and output in the state that a run begins with, made anew for each run."""

    def __init__(self, base: Path, what: str) -> None:
        self.what = what
        self.work = base / "work"
        self.start = base / "start"
        self.store = self.work / "store"
        self.out = self.work / "out"
        write_project(self.work)
        if what != "build":
            self.main("build", "-q", "r.toml")
            self.change("welcome\n" * 20 + "again\n")
            if what == "gc":
                self.main("build", "-q", "r.toml")
        shutil.move(self.work, self.start)

    def change(self, text: str) -> None:
        (self.work / "motd").write_text(text)
        os.utime(self.work / "motd", (1_700_000_001, 1_700_000_001))

    def main(self, *arguments: str) -> int:
        return main(["-C", str(self.work), "--store", str(self.store), "-j1", "--progress=none", *arguments])

    def arguments(self) -> list[str]:
        """Return the command line that is disturbed."""
        verb = (
            ["store", "gc", "--grace", "0s", "--keep-age", "0s"]
            if self.what == "gc"
            else ["build", "-q", "r.toml"]
        )
        return ["-C", str(self.work), "--store", str(self.store), "-j1", "--progress=none", *verb]

    def reset(self) -> None:
        shutil.rmtree(self.work, ignore_errors=True)
        shutil.copytree(self.start, self.work, symlinks=True)

    def files(self) -> dict[str, bytes]:
        """Return what is in the output directory, hidden files left out."""
        found = sorted(self.out.glob("[!.]*")) if self.out.exists() else []
        return {path.name: path.read_bytes() for path in found}

    def image(self) -> str | None:
        """Return the image that the reference stands for."""
        if not (self.store / "meta.json").exists():
            return None
        with Store.open(self.store) as store:
            digest = store.resolve("r")
            return digest.hex() if digest else None

    def check(
        self, before: tuple[str | None, dict[str, bytes]], after: tuple[str | None, dict[str, bytes]]
    ) -> None:
        """After a fault: nothing is damaged, all is old or new; after another run: all is new, nothing is left."""
        assert self.image() in {before[0], after[0]}
        for name, data in self.files().items():
            assert data in {before[1].get(name), after[1].get(name)}, f"{name} is neither old nor new"
        if (self.store / "meta.json").exists():
            with Store.open(self.store) as store:
                report = check_store(store)
            assert report.damage == 0, report.findings
        assert self.main("build", "-q", "r.toml") == 0
        assert (self.image(), self.files()) == after
        assert {path.name for path in self.out.iterdir()} == EXPECTED
        # What a killed builder staged goes with the next gc; what a killed gc trashed, too.
        assert self.main("store", "gc", "--grace", "0s") == 0
        assert list((self.store / "cfsbuild/staging").iterdir()) == []
        assert list((self.store / "cfsbuild/trash").glob("gc-*")) == []
        with Store.open(self.store) as store:
            assert check_store(store).findings == ()
        assert not [path for path in self.work.rglob("*") if "tmp" in path.name]
        assert self.main("verify", "-q", "r") == 0


def prepare(driver: Path, tmp_path: Path, what: str) -> tuple[Scene, list[tuple[str, int]], tuple, tuple]:
    scene = Scene(tmp_path, what)
    # The first run compiles the program, the second is counted.
    for _ in range(2):
        scene.reset()
        before = scene.image(), scene.files()
        found = points(driver, scene.arguments(), scene.work, tmp_path / "log")
    return scene, found, before, (scene.image(), scene.files())


class Complaints:
    """Collects what went wrong at each call, so that one run tells all of it."""

    def __init__(self) -> None:
        self.found: list[str] = []

    @contextlib.contextmanager
    def about(self, fault: str) -> Iterator[None]:
        try:
            yield
        except AssertionError as error:
            self.found.append(f"{fault}: {error}")


def kill_at(driver, tmp_path, what, chosen):
    scene, found, before, after = prepare(driver, tmp_path, what)
    assert len(found) > LEAST[what]
    complaints = Complaints()
    for name, number in found[chosen]:
        with complaints.about(f"{name} {number}"):
            scene.reset()
            result = inject(driver, scene.arguments(), f"{name}:signal=KILL:when={number}")
            assert result.returncode in {-9, 137}, f"not killed: {result.stderr}"
            scene.check(before, after)
    assert complaints.found == []


def fail_at(driver, tmp_path, what, error, chosen):
    scene, found, before, after = prepare(driver, tmp_path, what)
    log = tmp_path / "log"
    complaints = Complaints()
    for name, number in found[chosen]:
        with complaints.about(f"{name} {number}"):
            scene.reset()
            result = inject(driver, scene.arguments(), f"{name}:error={error}:when={number}", log)
            injected = [line for line in log.read_text().splitlines() if "(INJECTED)" in line]
            assert len(injected) == 1, "not injected"
            check_report(scene, result, injected[0], after)
            scene.check(before, after)
    assert complaints.found == []


def check_report(
    scene: Scene,
    result: subprocess.CompletedProcess[str],
    call: str,
    after: tuple[str | None, dict[str, bytes]],
) -> None:
    """A failed system call is one clear error, or made no difference; and nothing half-done is there."""
    said = f"{call}\n{result.stderr}"
    assert "Traceback" not in result.stderr, said
    assert "internal error" not in result.stderr, said
    if result.returncode == 0:
        assert any(part in call for part in HARMLESS), said
        assert (scene.image(), scene.files()) == after, said
    else:
        assert result.returncode == 7, said
        assert [line[:6] for line in result.stderr.splitlines()].count("error:") == 1, said
    if not call.split()[1].startswith(("unlink", "rmdir")):
        assert not list(scene.work.glob("store/cfsbuild/staging/*")), said
        assert not list(scene.out.glob(".*")), said


LEAST = {"build": 100, "rebuild": 60, "gc": 20}
WHATS = tuple(LEAST)


@pytest.mark.parametrize("what", WHATS)
def test_a_kill_at_some_calls_loses_nothing(driver, tmp_path, what):
    kill_at(driver, tmp_path, what, slice(5, None, SAMPLE * 2))


@pytest.mark.parametrize(("what", "error"), [("build", "ENOSPC"), ("gc", "EIO")])
def test_an_error_at_some_calls_is_one_clear_line(driver, tmp_path, what, error):
    fail_at(driver, tmp_path, what, error, slice(3, None, SAMPLE * 2))


@pytest.mark.slow
@pytest.mark.parametrize("shard", range(2))
@pytest.mark.parametrize("what", WHATS)
def test_a_kill_at_every_call_loses_nothing(driver, tmp_path, what, shard):
    kill_at(driver, tmp_path, what, slice(shard, None, 2))


@pytest.mark.slow
@pytest.mark.parametrize("shard", range(2))
@pytest.mark.parametrize("error", ["ENOSPC", "EIO"])
@pytest.mark.parametrize("what", WHATS)
def test_an_error_at_every_call_is_one_clear_line(driver, tmp_path, what, error, shard):
    fail_at(driver, tmp_path, what, error, slice(shard, None, 2))
