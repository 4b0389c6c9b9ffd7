"""Running programs side by side: each round runs every contender once, so that a busy machine slows them all.

Wall time of a shared machine is noisy; processor time (user and system, of the program and what it started)
is less so. Ratios are made within a round; a ratio above 1 means that ours took less.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
LAB = Path(os.environ.get("CFSBUILD_LAB") or CACHE / "cfsbuild" / "lab")

# Starts a command and reports on it: a process of its own, since a child's peak counts its parent's memory.
REPORTER = """
import os, sys, time
begin = time.perf_counter()
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
_, status, usage = os.wait4(pid, 0)
wall = time.perf_counter() - begin
print("\\n", wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss, file=sys.stderr)
sys.exit(os.waitstatus_to_exitcode(status))
"""


class Sample(NamedTuple):
    """One run: wall and processor seconds, peak memory in bytes."""

    wall: float
    cpu: float
    peak: int


def mkcomposefs() -> list[str]:
    """Return the command that runs the real mkcomposefs: by the lab's own loader, without a chroot."""
    program = LAB / "usr/bin/mkcomposefs"
    if not program.exists():
        raise SystemExit("the lab has no mkcomposefs: run tests/lab/make-lab")
    loader, libraries = LAB / "lib64/ld-linux-x86-64.so.2", LAB / "usr/lib/x86_64-linux-gnu"
    return [str(loader), "--library-path", str(libraries), str(program)]


def cfsbuild() -> str:
    """Return our program: the one that is installed beside the interpreter that runs this."""
    program = Path(sys.executable).with_name("cfsbuild")
    if not program.exists():
        raise SystemExit(
            f"no cfsbuild beside {sys.executable}: run this with the environment it is installed in"
        )
    return str(program)


def run(command: Sequence[str], environment: Mapping[str, str] | None = None) -> tuple[Sample, str]:
    """Run `command`; return what it took and what it wrote to standard output."""
    done = subprocess.run(
        [sys.executable, "-S", "-c", REPORTER, *command],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, **(environment or {})},
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
    wall, cpu, peak = done.stderr.split()[-3:]
    return Sample(float(wall), float(cpu), int(peak) * 1024), done.stdout


def drop_caches() -> None:
    """Empty the page cache; needs root."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3\n")


class Contest(NamedTuple):
    """A row of the table. `gate` is what the wall ratio has to reach; `prepare` is run once, before.

    When `warm`, one round more is run first, which does not count.
    """

    name: str
    gate: float
    theirs: Callable[[], Sample]
    ours: Callable[[], Sample]
    prepare: Callable[[], None] = lambda: None
    warm: bool = True


class Outcome(NamedTuple):
    """What the rounds of a contest gave."""

    contest: Contest
    theirs: list[Sample]
    ours: list[Sample]

    def ratios(self, field: str) -> list[float]:
        """Return theirs / ours for each round."""
        pairs = zip(self.theirs, self.ours, strict=True)
        return [getattr(a, field) / getattr(b, field) for a, b in pairs]

    def met(self) -> bool:
        """Say whether the median of the wall ratios reaches the gate."""
        return statistics.median(self.ratios("wall")) >= self.contest.gate

    def line(self) -> str:
        """Return the row as Markdown."""
        wall, cpu = self.ratios("wall"), self.ratios("cpu")
        best = min(sample.wall for sample in self.theirs) / min(sample.wall for sample in self.ours)
        cells = (
            self.contest.name,
            f"{statistics.median(wall):.2f}x",
            f"{min(wall):.2f}-{max(wall):.2f}",
            f"{best:.2f}x",
            f"{statistics.median(cpu):.2f}x",
            f"{statistics.median(sample.wall for sample in self.theirs):.3f}",
            f"{statistics.median(sample.wall for sample in self.ours):.3f}",
            f"{max(sample.peak for sample in self.theirs) >> 20} / {max(s.peak for s in self.ours) >> 20}",
            f"{self.contest.gate:g}x",
            "yes" if self.met() else "**no**",
        )
        return f"| {' | '.join(cells)} |"


HEAD = (
    "| row | wall ratio, median | min-max | best / best | CPU ratio | theirs s | ours s "
    "| peak MiB | gate | met |\n|---|---|---|---|---|---|---|---|---|---|"
)


def hold(contest: Contest, rounds: int) -> Outcome:
    """Run both sides `rounds` times, each first in turn."""
    contest.prepare()
    outcome = Outcome(contest, [], [])
    for number in range(0 if contest.warm else 1, rounds + 1):
        sides = [(contest.theirs, outcome.theirs), (contest.ours, outcome.ours)]
        for side, samples in sides if number % 2 else reversed(sides):
            sample = side()
            if number:
                samples.append(sample)
    print(outcome.line(), flush=True)
    return outcome
