"""Ingest puts every file into the store with one read, and notices what is not right."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cfsbuild.errors import BuildError, StoreError
from cfsbuild.events import Progress
from cfsbuild.fsverity import pool
from cfsbuild.fsverity.algorithm import Algorithm
from cfsbuild.fsverity.digest import digest_bytes
from cfsbuild.native import extension
from cfsbuild.store.ingest import ingest_in_order, ingest_tree
from cfsbuild.store.sink import HashOnly
from cfsbuild.store.statcache import StatCache
from cfsbuild.store.store import Store
from cfsbuild.tree.scan import scan

MIB = 1 << 20


@pytest.fixture(params=["native", "plain"])
def path_taken(request, monkeypatch):
    """Take the extension module, or not."""
    monkeypatch.setenv("CFSBUILD_NATIVE", "1" if request.param == "native" else "0")
    if request.param == "native" and extension("cfsbuild.store._ingest") is None:
        pytest.skip("the extension module is not built")
    return request.param


@pytest.fixture
def store(request, tmp_path):
    """Have an empty store, of SHA-256 unless a test asks for another algorithm."""
    return Store.init(tmp_path / "store", getattr(request, "param", Algorithm.SHA256))


@pytest.fixture
def source(tmp_path) -> Path:
    """Have files of all sizes that matter, duplicates, hard links, holes, and no files."""
    root = tmp_path / "source"
    (root / "sub" / "empty").mkdir(parents=True)
    for size in (0, 1, 63, 64, 65, 4095, 4096, 4097, MIB - 1, MIB, MIB + 1, 3 * MIB + 5):
        (root / f"f{size}").write_bytes(bytes(range(251)) * (size // 251) + b"y" * (size % 251))
    for index in range(90):
        (root / "sub" / f"d{index}").write_bytes(b"duplicate" * 100 + b"%d" % (index // 3))
    (root / "copy").write_bytes((root / f"f{MIB + 1}").read_bytes())
    os.link(root / "f4096", root / "sub" / "link")
    with (root / "hole").open("wb") as file:
        file.truncate(5 * MIB)
        file.seek(2 * MIB)
        file.write(b"in the middle")
    (root / "symlink").symlink_to("f4096")
    os.mkfifo(root / "fifo")
    return root


def expected(root: Path, algorithm: Algorithm) -> dict[bytes, bytes | None]:
    """Return what each path's value must be, from its content."""
    result: dict[bytes, bytes | None] = {}
    for path in scan(root).paths:
        file = root / os.fsdecode(path[1:])
        if file.is_symlink() or not file.is_file() or file.stat().st_size == 0:
            result[path] = None
        else:
            data = file.read_bytes()
            result[path] = data if len(data) <= 64 else digest_bytes(data, algorithm)
    return result


def forgotten(root: Path) -> bool:
    """Put the content of all files of `root` out of the page cache; say whether that is so, by one of them."""
    os.sync()
    for path in root.rglob("*"):
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    with (root / f"f{MIB}").open("rb") as file:
        try:
            os.preadv(file.fileno(), [bytearray(1)], 0, os.RWF_NOWAIT)
        except BlockingIOError:
            return True
        except OSError:
            return False
    return False


@pytest.fixture
def many(source) -> Path:
    """Have more small files than all threads together wait for."""
    for index in range(600):
        (source / "sub" / f"m{index}").write_bytes(b"%d" % index * (index * 7 % 900))
    return source


@pytest.mark.parametrize("threads", [1, 2, 0])
def test_files_that_are_not_in_the_page_cache_are_read_too(many, store, threads) -> None:
    wanted = expected(many, store.algorithm)
    if not forgotten(many):
        pytest.skip("this file system keeps its files in memory, or cannot say whether it does")
    found = scan(many)
    with store.transaction() as transaction:
        values = ingest_tree(found, transaction, threads=threads)
        transaction.commit()
    assert dict(zip(found.paths, values, strict=True)) == wanted
    for value in values:
        if value is not None and len(value) == store.algorithm.digest_size:
            assert digest_bytes(store.read_object(value), store.algorithm) == value


VALUES = """
import resource, sys
from pathlib import Path
from cfsbuild.fsverity.algorithm import Algorithm
from cfsbuild.store.ingest import ingest_tree
from cfsbuild.store.sink import HashOnly
from cfsbuild.tree.scan import scan

found = scan(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[2]),) * 2)
print([value and value.hex() for value in ingest_tree(found, HashOnly(Algorithm.SHA256))])
"""

CROWD = """
import resource, sys, threading
from pathlib import Path
from cfsbuild.fsverity.algorithm import Algorithm
from cfsbuild.store.ingest import ingest_tree
from cfsbuild.store.sink import HashOnly
from cfsbuild.tree.scan import scan

found = scan(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[2]),) * 2)
results = []
crowd = [
    threading.Thread(target=lambda: results.append(ingest_tree(found, HashOnly(Algorithm.SHA256))))
    for _ in range(6)
]
for one in crowd:
    one.start()
for one in crowd:
    one.join()
print(len(results), all(result == results[0] for result in results))
"""

OVERLAY = """
mkdir "$1/upper" "$1/work" "$1/merged"
mount -t overlay -o "lowerdir=$2,upperdir=$1/upper,workdir=$1/work" overlay "$1/merged" || exit 77
"$3" -c "$4" "$1/merged" "$5"
"""


def shown(root: Path) -> str:
    """Return what `VALUES` has to print."""
    return str([value and value.hex() for value in expected(root, Algorithm.SHA256).values()])


def test_few_descriptors_are_enough(many) -> None:
    forgotten(many)
    command = [sys.executable, "-c", VALUES, str(many), "40"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == shown(many)


@pytest.fixture
def on_overlay(many, tmp_path_factory):
    """Run a program of Python on an overlay, where no read can be asked not to wait; return what it wrote."""
    place = tmp_path_factory.mktemp("overlay")

    def run(program, descriptors):
        return overlaid(place, many, program, descriptors)

    return run


def overlaid(place, root, program, descriptors) -> str:
    script = ["sh", "-c", OVERLAY, "sh", str(place), str(root), sys.executable, program, str(descriptors)]
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", *script],
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode in {1, 77} and not done.stdout and "Traceback" not in done.stderr:
        pytest.skip(f"no overlay can be mounted: {done.stderr.strip()}")
    assert done.stderr == ""
    return done.stdout.strip()


def test_files_are_read_where_every_read_waits(on_overlay, many) -> None:
    assert on_overlay(VALUES, 1024) == shown(many)


NEARLY_NONE = """
import os, resource, sys
from pathlib import Path
from cfsbuild.fsverity.algorithm import Algorithm
from cfsbuild.store.ingest import ingest_tree
from cfsbuild.store.sink import HashOnly
from cfsbuild.tree.scan import scan

found = scan(Path(sys.argv[1]))
limit = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
held = []
while len(held) < limit - 20:
    held.append(os.open("/", os.O_RDONLY))
values = ingest_tree(found, HashOnly(Algorithm.SHA256), threads=2)
print([value and value.hex() for value in values])
"""


def test_where_descriptors_run_out_files_that_are_waited_for_give_theirs_back(on_overlay, many) -> None:
    assert on_overlay(NEARLY_NONE, 100) == shown(many)


def test_several_nodes_together_do_not_use_up_the_descriptors(on_overlay) -> None:
    assert on_overlay(CROWD, 200) == "6 True"


def test_values_are_digests_contents_or_nothing(path_taken, source) -> None:
    for algorithm in Algorithm:
        found = scan(source)
        values = ingest_tree(found, HashOnly(algorithm))
        assert dict(zip(found.paths, values, strict=True)) == expected(source, algorithm)


@pytest.mark.parametrize("algorithm", list(Algorithm))
@pytest.mark.parametrize("pool_files", [1, 10**6])
def test_values_in_order_are_the_same(path_taken, source, algorithm, pool_files, monkeypatch) -> None:
    monkeypatch.setattr(pool, "_POOL_FILES", pool_files)
    found = scan(source)
    values = ingest_in_order(found, algorithm=algorithm, threads=2)
    assert dict(zip(found.paths, values, strict=True)) == expected(source, algorithm)


@pytest.mark.parametrize("name", ["f64", "f1048577", "sub/d80"])
@pytest.mark.parametrize("pool_files", [1, 10**6])
def test_a_change_after_the_scan_is_noticed_in_order_too(
    path_taken, source, name, pool_files, monkeypatch
) -> None:
    monkeypatch.setattr(pool, "_POOL_FILES", pool_files)
    found = scan(source)
    file = source / name
    before = file.stat()
    file.write_bytes(b"Z" * before.st_size)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(BuildError) as caught:
        list(ingest_in_order(found, algorithm=Algorithm.SHA256, threads=2))
    assert caught.value.brief == f"source changed while building: {file}"


@pytest.mark.parametrize("store", list(Algorithm), indirect=True)
def test_every_object_is_in_the_store_after_the_commit(path_taken, source, store) -> None:
    found = scan(source)
    with store.transaction() as transaction:
        values = ingest_tree(found, transaction)
        transaction.commit()
    assert dict(zip(found.paths, values, strict=True)) == expected(source, store.algorithm)
    for path, value in expected(source, store.algorithm).items():
        content = (source / os.fsdecode(path[1:])).read_bytes() if value is not None else b""
        if len(content) > 64:
            name = value.hex()
            file = store.path / "objects" / name[:2] / name[2:]
            assert file.read_bytes() == content
            assert oct(file.stat().st_mode) == "0o100444"
            assert file.stat().st_nlink == 1
    assert not list((store.path / "cfsbuild" / "staging").iterdir())


@pytest.mark.parametrize("store", list(Algorithm), indirect=True)
def test_fsverity_utils_finds_the_digest_that_names_each_object(path_taken, source, store) -> None:
    if subprocess.run(["which", "fsverity"], check=False, capture_output=True).returncode:
        pytest.skip("program `fsverity` (fsverity-utils) is not installed")
    with store.transaction() as transaction:
        ingest_tree(scan(source), transaction)
        transaction.commit()
    objects = sorted((store.path / "objects").glob("??/*"))
    done = subprocess.run(
        ["fsverity", "digest", "--compact", f"--hash-alg={store.algorithm.value}", *objects],
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == [file.parent.name + file.name for file in objects]
    assert len(objects) > 35


def test_what_is_in_the_store_is_not_written_again(path_taken, source, store) -> None:
    inodes = []
    for _ in range(2):
        with store.transaction() as transaction:
            ingest_tree(scan(source), transaction)
            transaction.commit()
        inodes.append({file.stat().st_ino for file in (store.path / "objects").glob("??/*")})
    assert inodes[0] == inodes[1]


@pytest.mark.parametrize("at", [0, -1])
@pytest.mark.parametrize("name", ["f65", "f4097", f"f{MIB}", f"f{MIB + 1}", f"f{3 * MIB + 5}"])
def test_a_damaged_object_is_replaced_when_its_content_is_read_again(
    path_taken, source, store, name, at
) -> None:
    with store.transaction() as transaction:
        ingest_tree(scan(source), transaction)
        transaction.commit()
    content = (source / name).read_bytes()
    digest = digest_bytes(content, store.algorithm)
    place = store.path / "objects" / digest.hex()[:2] / digest.hex()[2:]
    damaged = bytearray(content)
    damaged[at] ^= 1
    place.chmod(0o644)
    place.write_bytes(damaged)
    others = {path: path.stat().st_ino for path in (store.path / "objects").rglob("*") if path != place}
    with store.transaction() as transaction:
        ingest_tree(scan(source), transaction)
        transaction.commit()
    assert place.read_bytes() == content
    assert others == {path: path.stat().st_ino for path in others}


def test_nothing_is_left_when_the_transaction_is_given_up(path_taken, source, store) -> None:
    with store.transaction() as transaction:
        ingest_tree(scan(source), transaction)
    assert list((store.path / "objects").glob("??/*")) == []
    assert not list((store.path / "cfsbuild" / "staging").iterdir())


@pytest.mark.parametrize("name", ["f65", "f64", "f1048577"])
@pytest.mark.parametrize("change", ["content", "size", "replaced", "status", "gone"])
def test_a_file_that_changes_after_the_scan_ends_the_build(path_taken, source, name, change) -> None:
    found = scan(source)
    file = source / name
    if change == "content":
        before = file.stat()
        file.write_bytes(b"Z" * before.st_size)
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    elif change == "size":
        with file.open("ab") as stream:
            stream.write(b"more")
    elif change == "replaced":
        other = source.parent / "other"
        other.write_bytes(file.read_bytes())
        other.rename(file)
    elif change == "status":
        file.chmod(0o600)
    else:
        file.unlink()
    with pytest.raises(BuildError, match=name) as caught:
        ingest_tree(found, HashOnly(Algorithm.SHA256))
    assert caught.value.exit_code == 1
    if change != "gone":
        assert caught.value.brief == f"source changed while building: {file}"


def test_several_threads_may_ingest_the_same_into_one_transaction(path_taken, source, store) -> None:
    found = scan(source)
    results: list[object] = []
    with store.transaction() as transaction:

        def run() -> None:
            results.append(ingest_tree(found, transaction))

        threads = [threading.Thread(target=run) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        transaction.commit()
    assert len(results) == 4
    assert all(result == results[0] for result in results)
    for path, value in expected(source, store.algorithm).items():
        if (
            value is not None
            and len(value) == store.algorithm.digest_size
            and not path.endswith((b"f63", b"f64"))
        ):
            assert digest_bytes(store.read_object(value), store.algorithm) == value


def test_only_the_files_asked_for_are_read(path_taken, source) -> None:
    found = scan(source)
    (source / "f65").unlink()
    wanted = [number for number, path in enumerate(found.paths) if path != b"/f65"]
    values = ingest_tree(found, HashOnly(Algorithm.SHA256), numbers=wanted)
    assert values[found.paths.index(b"/f65")] is None
    assert values[found.paths.index(b"/f4096")] == digest_bytes(
        (source / "f4096").read_bytes(), Algorithm.SHA256
    )


def test_an_object_that_gc_removed_is_written_again_although_the_cache_knows_it(
    path_taken, source, store, tmp_path
) -> None:
    cache = StatCache(tmp_path / "state")
    age(source)
    found = scan(source)
    for _ in range(2):
        with store.transaction() as transaction:
            values = ingest_tree(found, transaction, cache=cache)
            transaction.commit()
        victim = values[found.paths.index(b"/f4097")]
        file = store.path / "objects" / victim.hex()[:2] / victim.hex()[2:]
        assert file.exists()
        file.unlink()
    with store.transaction() as transaction:
        ingest_tree(found, transaction, cache=cache)
        transaction.commit()
    assert file.read_bytes() == (source / "f4097").read_bytes()


def age(root: Path) -> None:
    """Wait until no file is too young for the stat cache."""
    newest = max(scan(root).ctime_ns)
    time.sleep(max(0.0, (newest + 2_050_000_000 - time.time_ns()) / 1e9))


@pytest.fixture
def tiny(tmp_path):
    """Mount a file system of 2 MiB."""
    place = tmp_path / "tiny"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tiny", str(place)], check=False, capture_output=True
    )
    if done.returncode:
        pytest.skip("mounting a small tmpfs needs root")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.parametrize("large", [False, True])
def test_a_full_disk_is_a_store_error_with_the_cause(path_taken, tiny, tmp_path, large) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for index in range(40):
        (source / f"f{index}").write_bytes(os.urandom((3 * MIB) if large else MIB // 8))
    store = Store.init(tiny / "store")
    with pytest.raises(StoreError, match="No space left") as caught, store.transaction() as transaction:
        ingest_tree(scan(source), transaction)
    assert "ENOSPC" in caught.value.details
    assert caught.value.exit_code == 7
    assert list((tiny / "store" / "objects").glob("??/*")) == []
    assert not list((tiny / "store" / "cfsbuild" / "staging").iterdir())


def test_progress_counts_files(source) -> None:
    if extension("cfsbuild.store._ingest") is None:
        pytest.skip("the extension module is not built")
    big = source / "big"
    with big.open("wb") as file:
        file.truncate(300 * MIB)
    seen: list[Progress] = []
    ingest_tree(scan(source), HashOnly(Algorithm.SHA256), listener=seen.append, job="app", threads=1)
    assert seen
    assert {event.job for event in seen} == {"app"}
    assert all(0 <= event.done <= event.total for event in seen)


def test_a_listener_that_raises_stops_the_work(source) -> None:
    if extension("cfsbuild.store._ingest") is None:
        pytest.skip("the extension module is not built")
    with (source / "big").open("wb") as file:
        file.truncate(300 * MIB)

    def stop(_event: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ingest_tree(scan(source), HashOnly(Algorithm.SHA256), listener=stop, threads=1)


def test_what_a_device_does_not_take_directly_goes_through_the_page_cache(source, tmp_path) -> None:
    if extension("cfsbuild.store._ingest") is None:
        pytest.skip("the extension module is not built")
    if subprocess.run(["which", "strace"], check=False, capture_output=True).returncode:
        pytest.skip("program `strace` is not installed")
    Store.init(tmp_path / "store").close()
    script = tmp_path / "ingest.py"
    script.write_text(INGEST)
    trace = tmp_path / "trace"
    inject = ["-e", "trace=pwrite64", "-e", "inject=pwrite64:error=EINVAL:when=1"]
    run = [sys.executable, str(script), str(source), str(tmp_path / "store")]
    subprocess.run(["strace", "-f", "-o", str(trace), *inject, *run], check=True)
    assert "(INJECTED)" in trace.read_text()
    for value in expected(source, Algorithm.SHA256).values():
        if value is not None and len(value) == 32:
            name = value.hex()
            file = tmp_path / "store" / "objects" / name[:2] / name[2:]
            assert digest_bytes(file.read_bytes(), Algorithm.SHA256) == value


INGEST = """
import sys
from pathlib import Path
from cfsbuild.store.ingest import ingest_tree
from cfsbuild.store.store import Store
from cfsbuild.tree.scan import scan

with Store.open(Path(sys.argv[2])) as store, store.transaction() as transaction:
    ingest_tree(scan(Path(sys.argv[1])), transaction, threads=1)
    transaction.commit()
"""
