"""Tree to image, against the real mkcomposefs: `benchmarks/image_bench.py [ENTRIES] [ROUNDS]`.

Needs root and the lab (tests/lab/make-lab). Every round runs each contender once, in turn, so that a busy
machine slows all of them; ratios of medians are what counts. Prints wall time, CPU time and peak memory.
"""

from __future__ import annotations

import hashlib
import os
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
LAB = Path(os.environ.get("CFSBUILD_LAB") or CACHE / "cfsbuild" / "lab")

# Runs a command and reports on itself: exec'ed for each contender, so that peaks do not add up.
MEASURE = """
import os, resource, sys, time
start = time.perf_counter()
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
_, status, usage = os.wait4(pid, 0)
print(time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss, file=sys.stderr)
sys.exit(os.waitstatus_to_exitcode(status))
"""

IN_MEMORY = """
import resource, sys, time
from cfsbuild.erofs.writer import write_image
from cfsbuild.tree.dump import parse_dump, read_lines
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
entries = list(parse_dump(read_lines(open(sys.argv[1], "rb"))))
listed = peak()
wall, cpu = time.perf_counter(), time.process_time()
image = write_image(entries, format=0, native=sys.argv[3] == "native")
print(time.perf_counter() - wall, time.process_time() - cpu, peak() - listed, file=sys.stderr)
open(sys.argv[2], "wb").write(image)
"""


def make_dump(path: Path, entries: int) -> None:
    """Write a dump of a rootfs-like tree: 9 % directories, 8 % symlinks, 8 % inline, the rest external."""
    draw = random.Random(1)
    directories, here = [b""], b""
    with path.open("wb") as file:
        file.write(b"/ 0 40755 2 0 0 0 1700000000.0 - - - security.selinux=system_u:object_r:root_t:s0\n")
        for number in range(entries):
            time = b"%d.%d" % (1500000000 + draw.randrange(10**8), draw.randrange(10**9))
            label = b"security.selinux=system_u:object_r:t%d_t:s0" % draw.randrange(40)
            name = here + b"/name%d" % number
            choice = draw.random()
            if choice < 0.09:
                fields = b" 0 40755 2 0 0 0 " + time + b" - - - "
                if name.count(b"/") < 7:
                    directories.append(name)
                here = name
            elif choice < 0.17:
                fields = b" 6 120777 1 0 0 0 " + time + b" target - - "
            elif choice < 0.25:
                fields = b" 5 100644 1 0 0 0 " + time + b" - hello - "
            else:
                digest = hashlib.sha256(b"%d" % number).hexdigest().encode()
                size = draw.randrange(65, 100000)
                fields = b" %d 100644 1 0 0 0 %b %b/%b - %b " % (size, time, digest[:2], digest[2:], digest)
            file.write(name + fields + label + b"\n")
            if draw.random() < 0.1:
                here = draw.choice(directories)


def measure(command: list[str]) -> tuple[float, float, float]:
    """Return wall seconds, CPU seconds and peak MiB of `command`."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *command], check=True, capture_output=True, text=True
    )
    wall, cpu, peak = done.stderr.split()[-3:]
    return float(wall), float(cpu), int(peak) / 1024


def measure_in_memory(dump: Path, image: Path, kind: str) -> tuple[float, float, float]:
    """Return the same for turning a list of entries into an image, with memory above that list."""
    command = [sys.executable, "-c", IN_MEMORY, str(dump), str(image), kind]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    wall, cpu, peak = done.stderr.split()[-3:]
    return float(wall), float(cpu), int(peak) / 1024


def main() -> int:
    """Measure and print."""
    entries = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    if os.geteuid() != 0 or not (LAB / "usr/bin/mkcomposefs").exists():
        print("needs root and the lab: tests/lab/make-lab", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="bench-", dir=LAB / "tmp") as directory:
        here = Path(directory)
        dump = here / "dump"
        make_dump(dump, entries)
        inside = f"/tmp/{here.name}"  # noqa: S108 (the lab's own)
        formats = ["--min-version=0", "--max-version=0"]
        front_end = str(Path(sys.executable).with_name("cfsbuild"))
        contenders = {
            "mkcomposefs --from-file": lambda: measure(
                [
                    "/usr/sbin/chroot",
                    str(LAB),
                    "/usr/bin/mkcomposefs",
                    "--from-file",
                    *formats,
                    f"{inside}/dump",
                    f"{inside}/theirs",
                ]
            ),
            "cfsbuild mkcomposefs --from-file": lambda: measure(
                [front_end, "mkcomposefs", "--from-file", *formats, str(dump), str(here / "front-end")]
            ),
            "write_image, entries in memory": lambda: measure_in_memory(dump, here / "native", "native"),
        }
        if entries <= 200_000:
            contenders["write_image without the extension"] = lambda: measure_in_memory(
                dump, here / "pure", "pure"
            )
        results: dict[str, list[tuple[float, float, float]]] = {name: [] for name in contenders}
        for _ in range(rounds):
            for name, run in contenders.items():
                results[name].append(run())
        images = {hashlib.sha256(path.read_bytes()).hexdigest() for path in here.iterdir() if path != dump}
        report(entries, results)
        print(f"images are {'identical' if len(images) == 1 else 'DIFFERENT'}")
        return len(images) != 1


def report(entries: int, results: dict[str, list[tuple[float, float, float]]]) -> None:
    """Print medians, and ratios to the first contender."""
    base = [statistics.median(column) for column in zip(*next(iter(results.values())), strict=True)]
    print(f"{entries} entries; ratio > 1: faster or smaller than the first line")
    for name, rows in results.items():
        wall, cpu, peak = (statistics.median(column) for column in zip(*rows, strict=True))
        times = f"wall {wall:7.3f} s ({base[0] / wall:5.2f}x)  CPU {cpu:7.3f} s ({base[1] / cpu:5.2f}x)"
        print(f"{name:34} {times}  peak {peak:6.0f} MiB, {peak * 2**20 / entries:5.0f} B/entry")


if __name__ == "__main__":
    sys.exit(main())
