"""The extension module survives a kill, and reports a failure, at every system call that changes the store.

The tests of transactions and builds do the same without it, since its threads make calls in no fixed order;
here it has one.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from cfsbuild.native import extension
from cfsbuild.store.fsck import check_store
from cfsbuild.store.ingest import ingest_tree
from cfsbuild.store.sink import HashOnly
from cfsbuild.store.store import Store
from cfsbuild.tree.scan import scan

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed"),
    pytest.mark.skipif(
        extension("cfsbuild.store._ingest") is None, reason="the extension module is not built"
    ),
]

CALLS = "mkdirat,openat,pwrite64,fchmod,renameat,unlinkat"
INGEST = """
import sys
from pathlib import Path
from cfsbuild.errors import StoreError
from cfsbuild.store.ingest import ingest_tree
from cfsbuild.store.store import Store
from cfsbuild.tree.scan import scan

try:
    with Store.open(Path(sys.argv[2])) as store, store.transaction() as transaction:
        ingest_tree(scan(Path(sys.argv[1])), transaction, threads=1)
        transaction.commit()
except StoreError as error:
    sys.exit(error.exit_code)
"""


@pytest.fixture
def source(tmp_path) -> Path:
    """Have a small file, twice, one that is written past the page cache, and one that is written in pieces."""
    root = tmp_path / "source"
    root.mkdir()
    for name, size in (("small", 3000), ("again", 3000), ("direct", 70_001), ("pieces", (2 << 20) + 5)):
        (root / name).write_bytes(b"x" * size)
    return root


class Scene:
    """A store that files are taken into, anew for each fault."""

    def __init__(self, tmp_path: Path, source: Path) -> None:
        self.source = source
        self.store = tmp_path / "store"
        self.script = tmp_path / "ingest.py"
        self.script.write_text(INGEST)
        self.log = tmp_path / "log"

    def reset(self) -> None:
        shutil.rmtree(self.store, ignore_errors=True)
        Store.init(self.store).close()

    def run(self, *strace: str) -> int:
        command = [sys.executable, str(self.script), str(self.source), str(self.store)]
        tracing = ["strace", "-f", "-qq", "-y", "-o", str(self.log), *strace]
        # A umask of 0177 makes the module set the mode of each file.
        return subprocess.run([*tracing, *command], umask=0o177, timeout=60, check=False).returncode

    def points(self) -> list[tuple[str, int]]:
        """Return (system call, the how manyth of its thread) of each call of the module's thread below staging."""
        self.reset()
        assert self.run("-e", f"trace={CALLS}") == 0
        lines = [line.split(maxsplit=1) for line in self.log.read_text().splitlines()]
        worker = next(thread for thread, call in lines if call.startswith("pwrite64("))
        seen: Counter[str] = Counter()
        found = []
        for thread, call in lines:
            name = call.partition("(")[0]
            if thread == worker:
                seen[name] += 1
                if "/staging/" in call and not re.search("O_RDONLY", call):
                    found.append((name, seen[name]))
        return found

    def digests(self) -> set[bytes]:
        values = ingest_tree(scan(self.source), HashOnly(Store.open(self.store).algorithm))
        return {value for value in values if value is not None}

    def check(self, *, after_kill: bool = False) -> None:
        """Nothing is damaged; a run without a fault stores everything, and leaves nothing else."""
        with Store.open(self.store) as store:
            found = {finding.kind for finding in check_store(store).findings}
        assert found <= ({"leftover"} if after_kill else set())
        assert self.run("-e", "trace=none") == 0
        with Store.open(self.store) as store:
            assert check_store(store).findings == ()
            assert all(store.has(digest) for digest in self.digests())
        assert list((self.store / "cfsbuild/staging").iterdir()) == []


def test_there_are_calls_of_each_kind_to_disturb(tmp_path, source) -> None:
    names = {name for name, _ in Scene(tmp_path, source).points()}
    assert names == {"mkdirat", "openat", "pwrite64", "fchmod", "renameat"}


@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
def test_a_refused_call_is_a_store_error(tmp_path, source, error) -> None:
    scene = Scene(tmp_path, source)
    for name, number in scene.points():
        scene.reset()
        code = scene.run("-e", f"trace={name}", "-e", f"inject={name}:error={error}:when={number}")
        assert "(INJECTED)" in scene.log.read_text(), (name, number)
        assert code == 7, (name, number)
        scene.check()


def test_a_kill_at_any_call_loses_nothing(tmp_path, source) -> None:
    scene = Scene(tmp_path, source)
    for name, number in scene.points():
        scene.reset()
        code = scene.run("-e", f"trace={name}", "-e", f"inject={name}:signal=SIGKILL:when={number}")
        assert "SIGKILL" in scene.log.read_text(), (name, number)
        assert code == -9, (name, number)
        scene.check(after_kill=True)
