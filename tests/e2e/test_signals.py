"""Signals at random moments: the right status within two seconds, and nothing left."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import cfsbuild
from cfsbuild.cli.main import main
from cfsbuild.store.fsck import check_store
from cfsbuild.store.store import Store

PROGRAM = [sys.executable, "-m", "cfsbuild.cli.main"]
FILES = 1500
LIMIT = 2.0
STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}

RECIPE = '[image]\nname = "r"\n[nodes.tree]\nkind = "tree"\nsource = "source"\n'

# Says when the program listens to signals: until then Python itself answers them.
DRIVER = """
import os, sys
from cfsbuild.cli import signals
from cfsbuild.cli.main import main
install = signals.Signals.install
def tell(self):
    install(self)
    os.write(int(os.environ["READY_FD"]), b".")
signals.Signals.install = tell
sys.exit(main())
"""


class Lab:
    """A tree to build, a store that has it already, and one with something to collect."""

    def __init__(self, base: Path) -> None:
        self.base = base
        source = base / "source"
        source.mkdir()
        for number in range(FILES):
            (source / str(number)).write_bytes(number.to_bytes(4, "big") * 3000)
        (base / "r.toml").write_text(RECIPE)
        (base / "driver.py").write_text(DRIVER)
        assert (
            main(
                [
                    "-C",
                    str(base),
                    "--store",
                    str(base / "full"),
                    "build",
                    "-q",
                    "--output",
                    "full-out",
                    "r.toml",
                ]
            )
            == 0
        )
        shutil.copytree(base / "full", base / "loose", symlinks=True)
        (base / "loose/images/refs/r").unlink()
        for path in (base / "loose/images").glob("*"):
            if path.is_symlink():
                path.unlink()
        for path in (base / "loose/cfsbuild/nodes").glob("*"):
            path.unlink()

    def start(self, arguments: list[str], store: str) -> subprocess.Popen[bytes]:
        """Start the program, and return when it listens to signals."""
        reader, writer = os.pipe()
        environment = {
            **os.environ,
            "PYTHONPATH": str(Path(cfsbuild.__file__).parents[1]),
            "READY_FD": str(writer),
            "CFSBUILD_STORE": str(self.base / store),
        }
        process = subprocess.Popen(
            [sys.executable, self.base / "driver.py", *arguments],
            cwd=self.base,
            env=environment,
            pass_fds=[writer],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        os.close(writer)
        os.read(reader, 1)
        os.close(reader)
        return process

    def reset(self) -> None:
        for name in ("store", "out", "objects", "image.cfs"):
            path = self.base / name
            if path.is_dir():
                shutil.rmtree(path)
            path.unlink(missing_ok=True)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    # In memory where that is possible: a disk that others keep busy makes every sync, which no signal
    # interrupts, a long one.
    memory = Path("/dev/shm")  # noqa: S108 (mkdtemp makes the name safe)
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as directory:
        yield Lab(Path(directory))


CASES = {
    "build": (["build", "r.toml"], ""),
    "build-json": (["build", "--progress=json", "-j4", "r.toml"], ""),
    "gc": (["store", "gc", "--grace", "0s", "--keep-age", "0s"], "loose"),
    "fsck": (["store", "fsck"], "full"),
    "digest-store": (["mkcomposefs", "--digest-store=objects", "source", "image.cfs"], ""),
    "import": (["import", "full-out/r.cfs"], "full"),
    "verify": (["verify", "r"], "full"),
}


def assert_nothing_left(lab: Lab, group: int) -> None:
    with pytest.raises(ProcessLookupError):
        os.killpg(group, 0)
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    assert [line for line in mounts if str(lab.base) in line] == []
    store = lab.base / "store"
    assert list(store.glob("cfsbuild/staging/*")) == []
    assert [path for path in store.rglob("*tmp*") if "cfsbuild-tmp" in path.name] == []
    assert [path.name for path in lab.base.glob("out/.*")] == []
    assert [path.name for path in lab.base.glob(".image*")] == []
    assert [path.name for path in lab.base.glob("objects/*/.*")] == []
    if (store / "meta.json").exists():
        with Store.open(store) as opened:
            assert check_store(opened).damage == 0


def disturb(lab: Lab, case: str, delay: float, signals: list[signal.Signals], gap: float = 0.0) -> bool:
    """Send `signals` after `delay` seconds; return False if the program was done before."""
    arguments, start = CASES[case]
    lab.reset()
    if start:
        shutil.copytree(lab.base / start, lab.base / "store", symlinks=True)
    process = lab.start(arguments, "store")
    try:
        time.sleep(delay)
        began = time.monotonic()
        for number in signals:
            process.send_signal(number)
            time.sleep(gap)
        _, said = process.communicate(timeout=30)
        took = time.monotonic() - began
    finally:
        process.kill()
        process.wait()
    text = said.decode(errors="replace")
    assert "Traceback" not in text, text
    assert "Exception ignored" not in text, text
    assert "error:" not in text, text
    assert took < LIMIT + gap * len(signals), f"{case} took {took:.2f} s after {delay:.3f} s: {text}"
    first = signals[0]
    # A signal that arrives when all is done kills what is left of the process.
    assert process.returncode in {0, STATUS[first], -first}, (process.returncode, text)
    assert_nothing_left(lab, process.pid)
    return process.returncode != 0


def length(lab: Lab, case: str) -> float:
    """Return how long the undisturbed program runs, in seconds."""
    arguments, start = CASES[case]
    lab.reset()
    if start:
        shutil.copytree(lab.base / start, lab.base / "store", symlinks=True)
    process = lab.start(arguments, "store")
    began = time.monotonic()
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    return time.monotonic() - began


def many(lab: Lab, case: str, times: int) -> None:
    moments = random.Random(f"signals {case}")
    whole = length(lab, case)
    hits = 0
    for number in range(times):
        chosen = [signal.SIGINT, signal.SIGTERM, signal.SIGINT, signal.SIGHUP][number % 4]
        delay = moments.uniform(0, whole * 0.9)
        if disturb(lab, case, delay, [chosen]):
            hits += 1
        else:
            # The machine was busier when the length was measured.
            whole = delay
    assert hits >= times // 2, f"only {hits} of {times} signals came before the end"


@pytest.mark.parametrize("case", CASES)
def test_a_signal_at_some_moment_ends_it_with_nothing_left(lab, case):
    many(lab, case, 4)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_signal_at_any_moment_ends_it_with_nothing_left(lab, case):
    many(lab, case, 30)


@pytest.mark.parametrize("part", [0.3, 0.6])
def test_an_impatient_second_ctrl_c_does_not_stop_the_cleaning_up(lab, part):
    delay = length(lab, "build") * part
    assert disturb(lab, "build", delay, [signal.SIGINT] * 4, gap=0.02)


def test_a_build_under_nohup_outlives_the_terminal(lab):
    lab.reset()
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        process = lab.start(["build", "-q", "r.toml"], "store")
    finally:
        signal.signal(signal.SIGHUP, before)
    time.sleep(0.1)
    process.send_signal(signal.SIGHUP)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said


@pytest.mark.parametrize(
    "verb", ["ls -R r", "dump r", "mkcomposefs --print-digest-only full-out", "store gc -n"]
)
def test_a_reader_that_goes_away_ends_it_quietly(lab, verb):
    lab.reset()
    command = (
        f"{' '.join(PROGRAM)} --store full {verb}"
        if "mkcomposefs" not in verb
        else f"{' '.join(PROGRAM)} {verb}"
    )
    script = f"set -o pipefail; {command} | true; echo $?"
    done = subprocess.run(["bash", "-c", script], cwd=lab.base, capture_output=True, text=True, check=True)
    assert done.stdout.strip() in {"0", "141"}
    assert done.stderr == ""
