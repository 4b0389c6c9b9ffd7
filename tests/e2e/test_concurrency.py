"""Several programs on one store, or one program on a store with no room: through the command line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

import cfsbuild
from cfsbuild.cli.main import main
from cfsbuild.store.fsck import check_store
from cfsbuild.store.store import Store

PROGRAM = [sys.executable, "-m", "cfsbuild.cli.main"]
SECONDS = 15.0
VERSIONS = 4


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(cfsbuild.__file__).parents[1]), **more}


def write_project(directory: Path, files: int = 40) -> None:
    """Write a recipe whose versions share most of their files."""
    (directory / "tree").mkdir(parents=True)
    for number in range(files):
        (directory / f"tree/{number}").write_bytes(number.to_bytes(2, "big") * 2000)
    for version in range(VERSIONS):
        (directory / f"v{version}").write_text(f"version {version}\n" * 50)
    (directory / "r.toml").write_text(
        '[image]\nname = "r"\nversion = "{{ v }}"\n[vars]\nv = "0"\n'
        '[nodes.tree]\nkind = "tree"\nsource = "tree"\n'
        '[nodes.version]\nkind = "file"\ntarget = "/version"\nsource = "v{{ v }}"\n'
    )


LOOP = """
import json, subprocess, sys, time
program, end, turns = json.loads(sys.argv[1]), time.monotonic() + float(sys.argv[2]), 0
while time.monotonic() < end:
    done = subprocess.run([part.replace("@", str(turns % int(sys.argv[3]))) for part in program],
                          capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"turn {turns}: exit {done.returncode}: {done.stderr}")
    turns += 1
print(turns)
"""


def loop(arguments: list[str], directory: Path, seconds: float) -> subprocess.Popen[str]:
    """Run the program again and again; `@` in the arguments is a version's number."""
    return subprocess.Popen(
        [sys.executable, "-c", LOOP, json.dumps([*PROGRAM, *arguments]), str(seconds), str(VERSIONS)],
        cwd=directory,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def together(tmp_path: Path, seconds: float) -> None:
    store = tmp_path / "store"
    builders = []
    for name in ("one", "two"):
        write_project(tmp_path / name)
        build = ["--store", str(store), "build", "-q", "-o", "v=@", "r.toml"]
        builders.append(loop(build, tmp_path / name, seconds))
    while not (store / "meta.json").exists():
        time.sleep(0.01)
    gc = loop(["--store", str(store), "store", "gc", "--grace", "0s", "--keep-age", "0s"], tmp_path, seconds)
    fsck = loop(["--store", str(store), "store", "fsck"], tmp_path, seconds)
    turns = []
    for process in (*builders, gc, fsck):
        said, complaint = process.communicate(timeout=seconds + 90)
        assert process.returncode == 0, complaint
        turns.append(int(said))
    assert min(turns) >= 1, turns
    built = min(VERSIONS, max(turns[:2]))
    with Store.open(store) as opened:
        report = check_store(opened)
        assert report.findings == ()
        assert len(opened.refs()) == built
    # The same images as in a store of its own.
    write_project(tmp_path / "alone")
    for version in range(built):
        arguments = ["-C", str(tmp_path / "alone"), "--progress=none"]
        assert main([*arguments, "--store", "store", "build", "-q", "-o", f"v={version}", "r.toml"]) == 0
        with Store.open(store) as shared, Store.open(tmp_path / "alone/store") as own:
            assert shared.resolve(f"r-{version}") == own.resolve(f"r-{version}")
        assert main([*arguments, "--store", str(store), "verify", f"r-{version}"]) == 0


def test_two_builders_a_gc_and_an_fsck_at_once_for_a_moment(tmp_path):
    together(tmp_path, 3.0)


@pytest.mark.slow
def test_two_builders_a_gc_and_an_fsck_at_once_for_a_while(tmp_path):
    together(tmp_path, SECONDS)


def test_builders_that_make_the_store_at_the_same_time_share_it(tmp_path):
    write_project(tmp_path / "p")
    command = [*PROGRAM, "--store", "store", "build", "-q", "r.toml", "--output"]
    running = [
        subprocess.Popen(
            [*command, f"out{number}"],
            cwd=tmp_path / "p",
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(4)
    ]
    digests = set()
    for process in running:
        said, complaint = process.communicate(timeout=60)
        assert process.returncode == 0, complaint
        digests.add(said.split()[0])
    assert len(digests) == 1
    with Store.open(tmp_path / "p/store") as store:
        assert check_store(store).findings == ()


def test_two_builds_into_one_output_directory_leave_whole_files(tmp_path):
    """Different versions under one name: each file is one of the two, none is mixed or left over."""
    write_project(tmp_path / "p")
    recipe = tmp_path / "p/r.toml"
    recipe.write_text(recipe.read_text().replace('version = "{{ v }}"\n', ""))
    sizes = {}
    for version in range(2):
        out = tmp_path / f"p/out{version}"
        arguments = ["-C", str(tmp_path / "p"), "--progress=none", "--store", "store", "build", "-q"]
        assert main([*arguments, "-o", f"v={version}", "--output", str(out), "r.toml"]) == 0
        sizes[version] = {path.name: path.read_bytes() for path in out.iterdir()}
    both = [
        loop(["--store", f"store{n}", "build", "-q", "--force", "-o", f"v={n}", "r.toml"], tmp_path / "p", 2)
        for n in range(2)
    ]
    for process in both:
        _, complaint = process.communicate(timeout=60)
        assert process.returncode == 0, complaint
    assert {path.name for path in (tmp_path / "p/out").iterdir()} == set(sizes[0])
    for path in (tmp_path / "p/out").iterdir():
        assert path.read_bytes() in {sizes[0][path.name], sizes[1][path.name]}


def mounted(kind: str, target: Path) -> None:
    """Mount a file system of 16 MiB, or skip."""
    target.mkdir()
    if kind == "tmpfs":
        command = ["mount", "-t", "tmpfs", "-o", "size=16M", "tmpfs", str(target)]
    else:
        disk = target.with_suffix(".disk")
        with disk.open("wb") as file:
            file.truncate(16 << 20)
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", disk], check=True, capture_output=True)
        command = ["mount", "-o", "loop", str(disk), str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount {kind}: {done.stderr.strip()}")


@pytest.fixture(params=["ext4", "tmpfs"])
def small_disk(request, tmp_path):
    if os.geteuid() != 0 or shutil.which("mkfs.ext4") is None:
        pytest.skip("needs root and mkfs.ext4")
    target = tmp_path / "mnt"
    mounted(request.param, target)
    yield target
    subprocess.run(["umount", target], check=True)


def fill(directory: Path, leave: int) -> None:
    """Leave only `leave` bytes of room."""
    status = os.statvfs(directory)
    with (directory / "balloon").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, status.f_bavail * status.f_frsize - leave))


@pytest.mark.slow
@pytest.mark.parametrize("native", ["0", "1"])
@pytest.mark.parametrize("where", ["store", "out"])
def test_a_full_disk_is_one_clear_line_and_leaves_nothing(small_disk, tmp_path, capsys, where, native):
    """With the native code and without; the store, or only the output, on the disk that is full."""
    project = tmp_path / "p"
    write_project(project, files=120)
    places = {"store": project / "store", "out": project / "out", where: small_disk / where}
    command = [*PROGRAM, "-C", str(project), "--store", str(places["store"]), "--progress=none"]
    command += ["build", "-q", "--output", str(places["out"]), "-o", "v=1", "r.toml"]
    failures = 0
    step, end = (40_000, 900_000) if where == "store" else (3_000, 60_000)
    for leave in range(0, end, step):
        for path in places.values():
            shutil.rmtree(path, ignore_errors=True)
        fill(small_disk, leave)
        done = subprocess.run(
            command, env=environment(CFSBUILD_NATIVE=native), capture_output=True, text=True, check=False
        )
        (small_disk / "balloon").unlink()
        assert done.returncode in {0, 7}, done.stderr
        assert "Traceback" not in done.stderr
        if done.returncode:
            failures += 1
            assert [line[:6] for line in done.stderr.splitlines()].count("error:") == 1
            assert "No space left" in done.stderr
        assert not list(places["store"].glob("cfsbuild/staging/*"))
        assert not list(places["out"].glob(".*"))
        if (places["store"] / "meta.json").exists():
            with Store.open(places["store"]) as store:
                assert check_store(store).damage == 0
        assert main(command[len(PROGRAM) :]) == 0
        assert main([*command[len(PROGRAM) : -7], "verify", "-q", "r-1"]) == 0
    capsys.readouterr()
    assert failures >= 4


def test_a_gc_says_that_it_waits_for_a_build_and_ends_with_7_when_that_takes_too_long(tmp_path, capsys):
    with Store.init(tmp_path / "store") as store, store.transaction():
        assert main(["--store", str(tmp_path / "store"), "store", "gc", "--wait", "3s"]) == 7
    said = capsys.readouterr().err
    assert "waiting up to 3 seconds for the builds" in said
    assert "error: store is in use" in said
