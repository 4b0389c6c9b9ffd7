"""How fast cfsbuild is: ratios to the real mkcomposefs in one interleaved run.

    run.py --root DIRECTORY [--scratch DIRECTORY] [--rounds N] [--only NAME ...] [--xfs]

DIRECTORY is a real root file system (corpus.py makes one). Run it by the interpreter of a
virtual environment that cfsbuild is installed in: an editable installation starts slower. Needs the lab
(tests/lab/make-lab) and, for a cold page cache and XFS, root. Exits with 1 if a row misses its gate.
"""

from __future__ import annotations

import argparse
import contextlib
import filecmp
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import corpus
from measure import HEAD, Contest, Outcome, Sample, cfsbuild, drop_caches, hold, mkcomposefs, run

from cfsbuild.fsverity.digest import implementation

RECIPE = """\
[image]
name = "bench"
version = "1"
epoch = 1700000000

[nodes.root]
kind = "tree"
source = "{source}"
preserve = ["mode", "owner", "mtime", "xattrs"]
"""

RACY = 2.2
"""Seconds after which a changed file may be trusted to be what it was."""

CATS = [shutil.which("xargs") or "xargs", "-0", "-P16", "-n128", "-a"]
CAT = ["sh", "-c", 'exec cat "$@" > /dev/null', "sh"]
"""What reads files and does nothing with them, sixteen at a time."""

IN_MEMORY = """
import resource, sys, time
from cfsbuild.erofs.writer import write_image
from cfsbuild.tree.dump import parse_dump, read_lines
entries = list(parse_dump(read_lines(open(sys.argv[1], "rb"))))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
wall, cpu = time.perf_counter(), time.process_time()
image = write_image(entries, format=0, native=sys.argv[2] == "native")
wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
print(wall, cpu, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


def digest_rows(root: Path) -> Iterator[Contest]:
    """Hash a tree and make its image, but keep nothing."""
    options = ["--print-digest-only", "--threads=2", str(root)]
    digests = set()

    def side(command: list[str], environment: dict[str, str] | None = None) -> Callable[[], Sample]:
        def measured() -> Sample:
            sample, output = run(command, environment)
            digests.add(output)
            if len(digests) != 1:
                raise SystemExit(f"the digests differ: {digests}")
            return sample

        return measured

    theirs = side([*mkcomposefs(), *options])
    ours = [cfsbuild(), "mkcomposefs"]
    yield Contest("digest", 2, theirs, side([*ours, *options]))
    yield Contest("pure", 0.8, theirs, side([*ours, *options], {"CFSBUILD_NATIVE": "0"}))
    if os.geteuid() == 0:
        unthreaded = [option for option in options if not option.startswith("--threads")]

        def cold(measured: Callable[[], Sample]) -> Callable[[], Sample]:
            def emptied() -> Sample:
                drop_caches()
                return measured()

            return emptied

        theirs = side([*mkcomposefs(), *unthreaded])
        front_end = side([*ours, *unthreaded])
        yield Contest("cold", 3, cold(theirs), cold(front_end))
        with tempfile.NamedTemporaryFile() as names:
            paths = (path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
            names.writelines(b"%b\0" % bytes(path) for path in paths)
            names.flush()
            yield Contest("cold, cat", 0, cold(lambda: run([*CATS, names.name, *CAT])[0]), cold(front_end))


class Building:
    """Both sides' stores in one directory, and how to fill them from `source`."""

    def __init__(self, place: Path, source: Path) -> None:
        self.place = place
        self.source = source
        self.recipe = place / "bench.toml"
        self.recipe.write_text(RECIPE.format(source=source.absolute()))

    def theirs(self) -> Sample:
        """Run mkcomposefs."""
        options = ["--threads=2", f"--digest-store={self.place / 'theirs'}", str(self.source)]
        return run([*mkcomposefs(), *options, str(self.place / "theirs.cfs")])[0]

    def ours(self) -> Sample:
        """Run cfsbuild."""
        places = ["--store", str(self.place / "ours"), "--output", str(self.place / "out")]
        return run([cfsbuild(), "build", "--progress=none", *places, str(self.recipe)])[0]

    def fill(self) -> None:
        """Let both sides have built once."""
        if not (self.place / "theirs").exists():
            self.theirs()
        if not (self.place / "ours").exists():
            self.ours()


def first_build(place: Path, source: Path, name: str, gate: float) -> Contest:
    """Fill an empty store, durably.

    Nothing is removed before all rounds are done: ext4 does not use the inodes of removed files again for
    minutes, and to pass over them costs whoever comes next more than all else.
    """
    numbers = iter(range(10**6))

    def fresh(side: Callable[[Building], Sample]) -> Callable[[], Sample]:
        def measured() -> Sample:
            own = place / f"first-{next(numbers)}"
            own.mkdir()
            os.sync()
            return side(Building(own, source))

        return measured

    return Contest(name, gate, fresh(Building.theirs), fresh(Building.ours), warm=False)


def again(building: Building) -> Contest:
    """Build once more with nothing changed."""

    def prepare() -> None:
        building.fill()
        time.sleep(RACY)
        building.ours()

    return Contest("no change", 10, building.theirs, building.ours, prepare)


def one_changed(building: Building) -> Contest:
    """Build after one file changed: the same file for both, another content each time."""
    victim = next(
        path
        for path in sorted(building.source.rglob("*.py"))
        if not path.is_symlink() and 1000 < path.stat().st_size < 20000
    )
    count = iter(range(10**6))

    def changed(side: Callable[[], Sample]) -> Callable[[], Sample]:
        def measured() -> Sample:
            with victim.open("a") as file:
                file.write(f"# {next(count)} {os.getpid()}\n")
            os.sync()
            return side()

        return measured

    return Contest("one changed", 6, changed(building.theirs), changed(building.ours), building.fill)


def image_rows(scratch: Path, entries: int) -> Iterator[Contest]:
    """Turn a tree that is in memory, and a dump file, into an image."""
    dump = scratch / f"dump-{entries}"

    def prepare() -> None:
        if not dump.exists():
            corpus.make_dump(dump, entries)

    formats = ["--from-file", "--min-version=0", "--max-version=0", str(dump)]

    def theirs() -> Sample:
        return run([*mkcomposefs(), *formats, str(scratch / "theirs")])[0]

    def front_end() -> Sample:
        sample, _ = run([cfsbuild(), "mkcomposefs", *formats, str(scratch / "ours")])
        if (scratch / "theirs").exists() and not filecmp.cmp(
            scratch / "theirs", scratch / "ours", shallow=False
        ):
            raise SystemExit("the images differ")
        return sample

    def in_memory() -> Sample:
        _, output = run([sys.executable, "-c", IN_MEMORY, str(dump), "native"])
        wall, cpu, peak = output.split()
        return Sample(float(wall), float(cpu), int(peak))

    yield Contest(f"in memory, {entries:,}", 2 if entries >= 10**6 else 1, theirs, in_memory, prepare)
    yield Contest(f"dump file, {entries:,}", 1, theirs, front_end, prepare)


@contextlib.contextmanager
def xfs(scratch: Path, gigabytes: int) -> Iterator[Path]:
    """Mount a new XFS, in a sparse file, for as long as the context lasts."""
    image, place = scratch / "xfs.img", scratch / "xfs"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(gigabytes << 30)
    subprocess.run(["mkfs.xfs", "-q", str(image)], check=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)
        image.unlink()


def start_up(rounds: int) -> bool:
    """Compare the processor time of `--help` with that of an interpreter that does nothing."""
    bare, ours = [], []
    for _ in range(rounds * 4):
        bare.append(run([sys.executable, "-c", "pass"])[0].cpu)
        ours.append(run([cfsbuild(), "--help"])[0].cpu)
    # A busy machine only ever adds: caches are cold, frequencies low.
    over, usual = (1000 * (pick(ours) - pick(bare)) for pick in (min, statistics.median))
    print(
        f"\n`--help`: {over:.0f} ms of CPU over `python3 -c pass` at best, median {usual:.0f} (gate: 80 ms)"
    )
    return over < 80


def memory(outcomes: list[Outcome], entries: dict[str, int]) -> bool:
    """Say what a run takes for each entry, over a base of 60 MB."""
    good = True
    print("\n| row | peak, bytes an entry over 60 MB: ours | theirs |\n|---|---|---|")
    for outcome in outcomes:
        count = entries.get(outcome.contest.name)
        if not count:
            continue
        each = [
            max(0, max(sample.peak for sample in side) - 60 * 10**6) / count
            for side in (outcome.ours, outcome.theirs)
        ]
        good &= each[0] <= 1024
        print(f"| {outcome.contest.name} | {each[0]:.0f} | {each[1]:.0f} |")
    return good


def rows(options: argparse.Namespace, scratch: Path) -> Iterator[Contest]:
    """Yield every row; what it needs is made before it is yielded, and kept until the next is asked for."""
    yield from digest_rows(options.root)
    building = Building(scratch, options.root)
    yield again(building)
    yield one_changed(building)
    yield first_build(scratch, options.root, "first build, ext4", 3)
    for place in (*scratch.glob("first-*"), scratch / "theirs", scratch / "ours"):
        shutil.rmtree(place, ignore_errors=True)
    if options.xfs:
        with xfs(scratch, 16 + 8 * options.rounds) as place:
            yield first_build(place, options.root, "first build, xfs", 4)
    for entries in (100_000, 1_000_000):
        yield from image_rows(scratch, entries)


def main() -> int:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="*", default=[], help="rows whose names begin with one of these")
    parser.add_argument("--xfs", action="store_true")
    options = parser.parse_args()
    found = corpus.facts(options.root)
    machine = f"{os.cpu_count()} processors, kernel {platform.release()}, SHA-256 by {implementation()}"
    print(f"{found}\n\n{machine}\n\n{HEAD}", flush=True)
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory(prefix="bench-", dir=options.scratch) as scratch:
        wanted = (
            contest
            for contest in rows(options, Path(scratch))
            if not options.only or contest.name.startswith(tuple(options.only))
        )
        outcomes.extend(hold(contest, options.rounds) for contest in wanted)
    counts = {
        "digest": found.entries,
        "first build, ext4": found.entries,
        "in memory, 1,000,000": 10**6,
        "dump file, 1,000,000": 10**6,
    }
    good = [memory(outcomes, counts), start_up(options.rounds), *(outcome.met() for outcome in outcomes)]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
