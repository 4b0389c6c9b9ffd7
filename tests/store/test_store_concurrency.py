"""Several builders and a gc on one store for a while: nothing that is in use is ever lost."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import store_driver
from store_driver import names

from cfsbuild.store.fsck import check_store
from cfsbuild.store.store import Store

pytestmark = pytest.mark.slow

SECONDS = 15.0

BUILDER = """
import sys, time
from pathlib import Path
import store_driver
from cfsbuild.store.store import Store
path, seconds, name = Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
end, builds, digests = time.monotonic() + seconds, 0, {}
with Store.open(path) as store:
    while time.monotonic() < end:
        version = str(builds % 5)
        digest = store_driver.build(store, version)
        assert digests.setdefault(version, digest) == digest, "the same build gave another image"
        builds += 1
print(builds, *(f"{version}={digest.hex()}" for version, digest in sorted(digests.items())))
"""

COLLECTOR = """
import sys, time
from pathlib import Path
from cfsbuild.errors import StoreError
from cfsbuild.store.gc import collect
from cfsbuild.store.store import Store
end, runs, removed = time.monotonic() + float(sys.argv[2]), 0, 0
with Store.open(Path(sys.argv[1])) as store:
    while time.monotonic() < end:
        report = collect(store, keep_age=0, grace=float(sys.argv[3]))
        removed += len(report.removed)
        runs += 1
        time.sleep(0.05)
print(runs, removed)
"""


def start(code: str, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("grace", ["0", "600"])
def test_two_builders_and_a_gc_lose_nothing(store, grace):
    path = str(store.path)
    builders = [start(BUILDER, path, str(SECONDS / 2), name) for name in "ab"]
    collector = start(COLLECTOR, path, str(SECONDS / 2), grace)
    results = [process.communicate(timeout=120) for process in (*builders, collector)]
    assert [process.returncode for process in (*builders, collector)] == [0, 0, 0], results
    digests = {results[0][0].split(" ", 1)[1], results[1][0].split(" ", 1)[1]}
    assert len(digests) == 1
    assert int(results[2][0].split()[0]) >= 3
    assert int(results[2][0].split()[1]) >= 3
    report = check_store(store)
    assert report.damage == 0, report.findings
    assert names(store.path / "cfsbuild/staging") == []
    assert store.image("images/app") is not None


def test_killed_builders_beside_a_gc_leave_a_sound_store(store):
    path = str(store.path)
    collector = start(COLLECTOR, path, str(SECONDS / 2), "0")
    end = time.monotonic() + SECONDS / 2
    kills = 0
    while time.monotonic() < end:
        builder = start(BUILDER, path, "60", "k")
        time.sleep(0.4 + kills % 7 * 0.05)
        builder.kill()
        builder.communicate()
        kills += 1
    output, errors = collector.communicate(timeout=120)
    assert collector.returncode == 0, errors
    assert kills >= 5
    assert check_store(store).damage == 0
    with Store.open(store.path) as again:
        store_driver.build(again, "last")
        assert names(store.path / "cfsbuild/staging") == []
        assert check_store(again).damage == 0
    assert output
