"""Reading and hashing a real directory, against mkcomposefs, interleaved in one run; prints ratios.

    hash_bench.py DIRECTORY [--lab CHROOT] [--rounds N] [--cold] [--store DIRECTORY]
    hash_bench.py --kernels

`--cold` empties the page cache before every run (needs root). `--store` compares the first, durable build
into an empty store, made in that directory. The peer is mkcomposefs of PATH or of the chroot, with two
threads; it also scans, sorts and makes an image; ours scans and hashes, and starts an interpreter.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

from cfsbuild.fsverity import digest
from cfsbuild.fsverity.algorithm import Algorithm

OURS = """
import sys
from pathlib import Path
from cfsbuild.fsverity.algorithm import Algorithm
from cfsbuild.store.ingest import ingest_tree
from cfsbuild.store.sink import HashOnly
from cfsbuild.tree.scan import scan
values = ingest_tree(scan(Path(sys.argv[1])), HashOnly(Algorithm.SHA256), threads=int(sys.argv[2]))
print(sum(value is not None for value in values))
"""

OURS_STORE = """
import sys
from pathlib import Path
from cfsbuild.store.ingest import ingest_tree
from cfsbuild.store.store import Store
from cfsbuild.tree.scan import scan
store = Store.init(Path(sys.argv[2]))
with store.transaction() as transaction:
    ingest_tree(scan(Path(sys.argv[1])), transaction)
    transaction.commit()
"""


def kernels() -> None:
    """Print how fast each kernel hashes 4 KiB blocks, beside hashlib."""
    data = os.urandom(1 << 20)
    for algorithm in Algorithm:
        for kernel in ("hashlib", *digest.kernels()):
            os.environ["CFSBUILD_NATIVE"] = "0" if kernel == "hashlib" else "1"
            os.environ["CFSBUILD_SHA256_KERNEL"] = "" if kernel == "hashlib" else kernel
            best = min(_seconds(lambda: digest.hash_blocks(data, algorithm)) for _ in range(30))  # noqa: B023
            print(f"{algorithm.value}  {kernel:<12} {len(data) / best / 1e6:6.0f} MB/s")
        os.environ["CFSBUILD_NATIVE"] = "1"


def _seconds(work) -> float:  # noqa: ANN001
    begin = time.thread_time()
    work()
    return time.thread_time() - begin


def peer(lab: str) -> list[str]:
    """Return the command that runs mkcomposefs."""
    if not lab:
        found = shutil.which("mkcomposefs")
        if not found:
            sys.exit("mkcomposefs is not on PATH; name a chroot that has it: --lab")
        return [found]
    root = Path(lab)
    loader = root / "lib64" / "ld-linux-x86-64.so.2"
    libraries = root / "usr" / "lib" / "x86_64-linux-gnu"
    return [str(loader), "--library-path", str(libraries), str(root / "usr" / "bin" / "mkcomposefs")]


def measure(command: list[str], environment: dict[str, str], *, cold: bool, fresh: Path | None) -> float:
    """Return the wall seconds of one run."""
    if fresh is not None:
        shutil.rmtree(fresh, ignore_errors=True)
    os.sync()
    if cold:
        Path("/proc/sys/vm/drop_caches").write_text("3\n")
    begin = time.perf_counter()
    subprocess.run(command, check=True, env={**os.environ, **environment}, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def runs(options: argparse.Namespace) -> dict[str, tuple[list[str], dict[str, str], Path | None]]:
    """Return label → (command, environment, what to remove before)."""
    directory, mkcomposefs = options.directory, peer(options.lab)
    python = sys.executable
    if options.store:
        ours, theirs = Path(options.store) / "bench-ours", Path(options.store) / "bench-theirs"
        return {
            "mkcomposefs --digest-store": (
                [*mkcomposefs, "--threads=2", f"--digest-store={theirs}", directory, "/dev/null"],
                {},
                theirs,
            ),
            "store, native": ([python, "-c", OURS_STORE, directory, str(ours)], {}, ours),
        }
    native = [python, "-c", OURS, directory]
    return {
        "mkcomposefs": ([*mkcomposefs, "--threads=2", "--print-digest-only", directory], {}, None),
        "native, 2 threads": ([*native, "2"], {}, None),
        "native, default": ([*native, "0"], {}, None),
        "native, 32 threads": ([*native, "32"], {}, None),
        "hashlib": ([*native, "2"], {"CFSBUILD_NATIVE": "0"}, None),
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory", nargs="?")
    parser.add_argument("--lab", default="")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cold", action="store_true")
    parser.add_argument("--store", default="")
    parser.add_argument("--kernels", action="store_true")
    options = parser.parse_args()
    if options.kernels:
        kernels()
    if not options.directory:
        return
    plan = runs(options)
    seconds: dict[str, list[float]] = {label: [] for label in plan}
    for _ in range(options.rounds):
        for label, (command, environment, fresh) in plan.items():
            seconds[label].append(measure(command, environment, cold=options.cold, fresh=fresh))
    base = statistics.median(next(iter(seconds.values())))
    for label, times in seconds.items():
        median = statistics.median(times)
        print(f"{label:<28} {median:7.3f} s  [{min(times):.3f}-{max(times):.3f}]  {base / median:5.2f}x")
    for _, _, fresh in plan.values():
        if fresh is not None:
            shutil.rmtree(fresh, ignore_errors=True)


if __name__ == "__main__":
    main()
