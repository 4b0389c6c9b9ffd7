"""A scan lists what `find` lists, in the canonical order, in C and in Python alike."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cfsbuild import limits
from cfsbuild.errors import BuildError
from cfsbuild.tree import paths, scan, walk

names = st.binary(min_size=1, max_size=6).filter(
    lambda name: not {0, 0x2F} & set(name) and name not in {b".", b".."}
)
trees = st.recursive(
    st.one_of(st.just(b"x"), st.just("link")),
    lambda children: st.dictionaries(names, children, max_size=6),
    max_leaves=30,
)


def make(path: bytes, tree) -> None:
    """Make files, links and directories as `tree` says."""
    place = Path(os.fsdecode(path))
    if isinstance(tree, dict):
        place.mkdir(parents=True, exist_ok=True)
        for name, child in tree.items():
            make(path + b"/" + name, child)
    elif tree == "link":
        place.symlink_to("to/nowhere")
    else:
        place.write_bytes(tree)


def both(root: Path, monkeypatch) -> tuple[scan.Scan, scan.Scan]:
    """Scan with the extension module, and without."""
    monkeypatch.setenv("CFSBUILD_NATIVE", "1")
    native = scan.scan(root)
    monkeypatch.setenv("CFSBUILD_NATIVE", "0")
    return native, scan.scan(root)


@pytest.fixture
def varied(tmp_path):
    """Have one of everything."""
    root = tmp_path / "root"
    (root / "b" / "deep" / "er").mkdir(parents=True)
    (root / "b-").write_bytes(b"between")
    (root / "b" / "file").write_bytes(b"content")
    os.link(root / "b" / "file", root / "b" / "zlink")
    (root / "a").symlink_to("b/file")
    (root / "loop").symlink_to(".")
    os.mkfifo(root / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(root / "sock"))
    (root / os.fsdecode(b"\xff\n\x01")).write_bytes(b"")
    return root


def test_both_implementations_give_the_same_bytes(varied, monkeypatch) -> None:
    native, pure = both(varied, monkeypatch)
    assert native.records == pure.records
    assert native.name_bytes == pure.name_bytes


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(names, trees, max_size=8))
def test_any_tree_gives_the_same_bytes_and_the_canonical_order(tmp_path, monkeypatch, tree) -> None:
    root = tmp_path / "any"
    shutil.rmtree(os.fsencode(root), ignore_errors=True)
    make(os.fsencode(root), tree)
    native, pure = both(root, monkeypatch)
    assert native.digest == pure.digest
    assert native.paths == sorted(native.paths, key=paths.depth_first)
    assert len(set(native.paths)) == len(native)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(names, trees, max_size=8))
def test_any_number_of_threads_gives_the_same_bytes(tmp_path, tree) -> None:
    root = tmp_path / "threads"
    shutil.rmtree(os.fsencode(root), ignore_errors=True)
    make(os.fsencode(root), tree)
    assert len({scan.scan(root, threads=threads).digest for threads in (1, 2, 3, 64)}) == 1


def test_many_directories_are_listed_alike_by_many_threads(tmp_path) -> None:
    for number in range(400):
        place = tmp_path / f"{number % 7}" / f"{number % 31}" / f"{number}"
        place.mkdir(parents=True)
        (place / "file").write_bytes(b"x")
    alone = scan.scan(tmp_path, threads=1)
    assert len(alone) > 1000
    for _ in range(20):
        assert scan.scan(tmp_path, threads=16).digest == alone.digest


@pytest.mark.parametrize("threads", [1, 16])
def test_of_several_things_that_cannot_be_listed_the_first_in_order_is_named(tmp_path, threads) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name / "deep" / "deeper").mkdir(parents=True)
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(OSError, match="a/deep/deeper") as caught:
            pytest.importorskip("cfsbuild.tree._scan").scan(fd, 2, limits.PATH_BYTES, 100, False, threads)
    finally:
        os.close(fd)
    assert caught.value.errno == errno.ENAMETOOLONG


@pytest.mark.parametrize("threads", [1, 16])
def test_the_entry_that_is_one_too_many_is_named_alike_in_c_and_python(tmp_path, threads) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).write_bytes(b"")
    bounds = (limits.PATH_DEPTH, limits.PATH_BYTES)
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        pytest.importorskip("cfsbuild.tree._scan").scan(fd, *bounds, 4, False, threads)
        with pytest.raises(OSError, match="'c'") as native:
            pytest.importorskip("cfsbuild.tree._scan").scan(fd, *bounds, 3, False, threads)
        with pytest.raises(OSError, match="'c'") as pure:
            walk.Walk(*bounds, 3, one_file_system=False).root(fd)
    finally:
        os.close(fd)
    assert native.value.errno == pure.value.errno == errno.EOVERFLOW


def test_find_lists_the_same_with_the_same_status(varied) -> None:
    found = scan.scan(varied)
    done = subprocess.run(
        ["find", ".", "-printf", r"%P\t%i\t%s\t%m\t%U\t%G\t%n\0"], cwd=varied, check=True, capture_output=True
    )
    expected = sorted(line.split(b"\t") for line in done.stdout.split(b"\0")[:-1])
    actual = sorted(
        [
            path[1:] if path != b"/" else b"",
            *(b"%d" % number for number in (ino, size)),
            b"%o" % stat.S_IMODE(mode),
            *(b"%d" % number for number in (uid, gid, nlink)),
        ]
        for path, ino, size, mode, uid, gid, nlink in zip(
            found.paths, found.ino, found.size, found.mode, found.uid, found.gid, found.nlink, strict=True
        )
    )
    assert actual == expected


def test_symbolic_links_are_never_followed(varied) -> None:
    found = scan.scan(varied)
    number = found.paths.index(b"/loop")
    assert stat.S_ISLNK(found.mode[number])
    assert scan.read_target(found, number) == b"."
    assert not any(path.startswith(b"/loop/") for path in found.paths)


def test_times_are_kept_to_the_nanosecond(varied) -> None:
    os.utime(varied / "b-", ns=(5, 1_234_567_890_123_456_789))
    os.utime(varied / "b", ns=(5, -7))
    found = scan.scan(varied)
    assert found.mtime_ns[found.paths.index(b"/b-")] == 1_234_567_890_123_456_789
    assert found.mtime_ns[found.paths.index(b"/b")] == (varied / "b").stat().st_mtime_ns
    assert found.newest_ns == max(found.ctime_ns)


@pytest.mark.parametrize("native", ["0", "1"])
def test_what_cannot_be_listed_is_named(native, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("CFSBUILD_NATIVE", native)
    with pytest.raises(BuildError, match="absent does not exist"):
        scan.scan(tmp_path / "absent")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(BuildError, match="is no directory"):
        scan.scan(tmp_path / "file")


@pytest.mark.parametrize("native", ["0", "1"])
def test_an_unreadable_directory_is_named(native, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("CFSBUILD_NATIVE", native)
    locked = tmp_path / "a" / "locked"
    locked.mkdir(parents=True)
    locked.chmod(0)
    if os.geteuid() != 0:
        with pytest.raises(BuildError, match="a/locked cannot be read"):
            scan.scan(tmp_path)
        return
    tmp_path.chmod(0o755)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.chdir(tmp_path)  # what lies above it may be closed to others
            os.setresuid(65534, 65534, 65534)
            with pytest.raises(BuildError, match="a/locked cannot be read"):
                scan.scan(Path())
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("native", ["0", "1"])
def test_a_tree_deeper_than_the_limit_is_refused_with_its_path(native, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("CFSBUILD_NATIVE", native)
    fd = os.open(tmp_path, os.O_RDONLY)
    for _ in range(limits.PATH_DEPTH + 1):
        os.mkdir("d", dir_fd=fd)
        inner = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(fd)
    with pytest.raises(BuildError, match="nested too deep") as caught:
        scan.scan(tmp_path)
    assert caught.value.brief.count("/d") >= limits.PATH_DEPTH
    assert "256 levels" in caught.value.resolution


@pytest.mark.parametrize("native", ["0", "1"])
def test_a_scan_matches_itself_and_sees_each_change(native, varied, monkeypatch) -> None:
    old = scan.scan(varied)
    monkeypatch.setenv("CFSBUILD_NATIVE", native)
    assert scan.match((old.records, old.name_bytes), old) == list(range(len(old)))
    (varied / "b" / "file").write_bytes(b"changed")
    (varied / "b" / "deep" / "new").write_bytes(b"new")
    (varied / "fifo").unlink()
    new = scan.scan(varied)
    matched = dict(zip(new.paths, scan.match((old.records, old.name_bytes), new), strict=True))
    lost = {path for path, number in matched.items() if number < 0}
    assert lost == {b"/", b"/b/file", b"/b/zlink", b"/b/deep", b"/b/deep/new"}
    assert all(old.paths[number] == path for path, number in matched.items() if number >= 0)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(names, trees, max_size=6), st.dictionaries(names, trees, max_size=6))
def test_matching_any_two_scans_agrees_in_c_and_python(tmp_path, monkeypatch, one, other) -> None:
    root = tmp_path / "two"
    shutil.rmtree(os.fsencode(root), ignore_errors=True)
    make(os.fsencode(root), one)
    old = scan.scan(root)
    for name, tree in other.items():
        if name not in one:
            make(os.fsencode(root) + b"/" + name, tree)
    new = scan.scan(root)
    monkeypatch.setenv("CFSBUILD_NATIVE", "1")
    native = scan.match((old.records, old.name_bytes), new)
    assert native == walk.match(old.records, old.name_bytes, new.records, new.name_bytes)
    assert sum(number >= 0 for number in native) >= len(old) - 1


def test_damaged_records_are_refused_not_followed(varied) -> None:
    found = scan.scan(varied)
    with pytest.raises(ValueError, match="records"):
        scan.match((found.records[:-1], found.name_bytes), found)
    with pytest.raises(ValueError, match="records"):
        scan.match((b"\xff" * 80, found.name_bytes), found)


def test_extended_attributes_are_read_not_through_links(varied) -> None:
    try:
        os.setxattr(varied / "b-", "user.note", b"\x00v")
    except OSError:
        pytest.skip("this file system has no user xattrs")
    found = scan.scan(varied)
    assert scan.read_xattrs(found, found.paths.index(b"/b-")) == ((b"user.note", b"\x00v"),)
    assert scan.read_xattrs(found, found.paths.index(b"/a")) == ()


def test_those_with_extended_attributes_are_found_in_a_mixture_of_entries(varied) -> None:
    chosen = []
    for number, path in enumerate(sorted(varied.rglob("*"))):
        if number % 2 and not path.is_symlink() and (path.is_file() or path.is_dir()):
            try:
                os.setxattr(path, "user.note", b"v")
            except OSError:
                pytest.skip("this file system has no user xattrs")
            chosen.append(b"/" + os.fsencode(path.relative_to(varied)))
    found = scan.scan(varied)
    places = [os.fsencode(varied) + path for path in found.paths]
    asked = [number for number, place in enumerate(places) if os.listxattr(place, follow_symlinks=False)]
    assert {found.paths[number] for number in asked} >= set(chosen)
    assert all(number in found.attributed for number in asked)
    assert all(bool(scan.read_xattrs(found, number)) is (number in asked) for number in range(len(found)))


def test_an_entry_that_vanished_is_reported_when_its_attributes_are_read(tmp_path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "f").write_bytes(b"x")
    found = scan.scan(tmp_path)
    shutil.rmtree(tmp_path / "d")
    with pytest.raises(BuildError, match="vanished"):
        scan.read_xattrs(found, found.paths.index(b"/d/f"))
