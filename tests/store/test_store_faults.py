"""The store survives a kill, and reports a failure, at every system call that changes it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import store_driver
from fault_injection import inject, points
from store_driver import names

import cfsbuild
from cfsbuild.store.fsck import check_store
from cfsbuild.store.store import Store

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed"),
]


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> Path:
    """Return a copy of the program that nobody edits while its system calls are counted."""
    copy = tmp_path_factory.mktemp("library")
    shutil.copytree(Path(cfsbuild.__file__).parent, copy / "cfsbuild")
    shutil.copy(store_driver.__file__, copy)
    return copy


def driver(library: Path) -> Path:
    return library / "store_driver.py"


class Scene:
    """A store in the state that a run begins with, made anew for each run."""

    def __init__(self, base: Path, what: str) -> None:
        self.base = base
        self.what = what
        self.store = base / "store"
        self.source = base / "source"
        self.start = base / "start"
        if what != "build":
            with Store.init(self.start) as store:
                store_driver.build(store, "one")
                if what == "gc":
                    store_driver.build(store, "two")
        if what == "repair":
            shutil.copytree(self.start, self.source, symlinks=True)
            damaged = max((self.start / "objects").glob("*/*"), key=lambda path: path.stat().st_size)
            damaged.chmod(0o644)
            with damaged.open("r+b") as file:
                file.write(b"!")
            damaged.chmod(0o444)
            (self.start / "objects" / "stray").write_bytes(b"")

    def reset(self) -> None:
        shutil.rmtree(self.store, ignore_errors=True)
        if self.start.exists():
            shutil.copytree(self.start, self.store, symlinks=True)

    def arguments(self) -> list[str]:
        """Return the driver's command line."""
        extra = {"build": ["two"], "rebuild": ["two"], "gc": [], "repair": [str(self.source)]}[self.what]
        return [str(self.store), {"rebuild": "build"}.get(self.what, self.what), *extra]

    def image(self) -> str | None:
        """Return the image that the reference stands for."""
        if not (self.store / "meta.json").exists():
            return None
        with Store.open(self.store) as store:
            digest = store.resolve("images/app")
            return digest.hex() if digest else None

    def check(self, images: set[str | None]) -> None:
        """After a fault: nothing is damaged, the reference is old or new; after another run: nothing is left."""
        assert self.image() in images
        if (self.store / "meta.json").exists() and self.what != "repair":
            with Store.open(self.store) as store:
                report = check_store(store)
            assert report.damage == 0, report.findings
        assert store_driver.main(self.arguments()) == 0
        if self.what == "gc":
            assert store_driver.main(self.arguments()) == 0
        with Store.open(self.store) as store:
            assert check_store(store).findings == ()
            assert store.image("images/app") is not None
        assert names(self.store / "cfsbuild/staging") == []
        assert not list((self.store / "cfsbuild/trash").glob("gc-*"))
        assert not [name for name in names(self.store) if name not in EXPECTED]


EXPECTED = {"meta.json", "objects", "images", "cfsbuild"}


def scene_and_points(
    library: Path, tmp_path: Path, what: str
) -> tuple[Scene, list[tuple[str, int]], set[str | None]]:
    scene = Scene(tmp_path, what)
    # The first run compiles the program, the second is counted.
    for _ in range(2):
        scene.reset()
        before = scene.image()
        found = points(driver(library), scene.arguments(), scene.store, tmp_path / "log")
    return scene, found, {before, scene.image()}


@pytest.mark.parametrize(("what", "least"), [("build", 60), ("rebuild", 40), ("gc", 20), ("repair", 20)])
def test_kill_at_every_call_loses_nothing_and_leaves_nothing(library, tmp_path, what, least):
    scene, found, images = scene_and_points(library, tmp_path, what)
    assert len(found) >= least
    for name, number in found:
        scene.reset()
        result = inject(driver(library), scene.arguments(), f"{name}:signal=KILL:when={number}")
        assert result.returncode in {-9, 137}, f"{name} {number} was not killed: {result.stderr}"
        scene.check(images)


@pytest.mark.parametrize("error", ["ENOSPC", "EIO"])
@pytest.mark.parametrize("what", ["build", "rebuild", "gc", "repair"])
def test_an_error_at_every_call_is_one_clear_line(library, tmp_path, what, error):
    scene, found, images = scene_and_points(library, tmp_path, what)
    log = tmp_path / "log"
    survived = []
    for name, number in found:
        scene.reset()
        result = inject(driver(library), scene.arguments(), f"{name}:error={error}:when={number}", log)
        injected = [line for line in log.read_text().splitlines() if "(INJECTED)" in line]
        assert len(injected) == 1, f"{name} {number} was not injected"
        assert str(scene.store) in injected[0], "another call than the one that was counted"
        assert "Traceback" not in result.stderr, injected[0] + result.stderr
        if result.returncode == 0:
            survived.append(injected[0])
        else:
            assert result.returncode == 7, f"{injected[0]}: {result.stderr}"
            assert result.stderr.count("\n") == 1
        scene.check(images)
    assert survived == []
