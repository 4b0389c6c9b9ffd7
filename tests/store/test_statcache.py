"""The stat cache saves reading, and is never believed too much."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cfsbuild.fsverity.algorithm import Algorithm
from cfsbuild.fsverity.digest import digest_bytes
from cfsbuild.store.ingest import ingest_tree
from cfsbuild.store.sink import HashOnly
from cfsbuild.store.statcache import RACY_NS, StatCache
from cfsbuild.tree.scan import Scan, scan

SHA256 = Algorithm.SHA256


@pytest.fixture
def source(tmp_path) -> Path:
    root = tmp_path / "source"
    (root / "sub").mkdir(parents=True)
    for index in range(20):
        (root / "sub" / f"f{index}").write_bytes(b"%d" % index * 100)
    (root / "small").write_bytes(b"small")
    return root


def later(found: Scan, by_ns: int = 2 * RACY_NS) -> Scan:
    """Return a scan as if it had been made later, when its files were no longer young."""
    return Scan(found.root, found.records, found.name_bytes, found.newest_ns + by_ns)


def values_of(found: Scan) -> list[bytes | None]:
    return ingest_tree(found, HashOnly(SHA256))


def test_what_was_saved_is_loaded(source, tmp_path) -> None:
    cache = StatCache(tmp_path / "new" / "state")
    found = later(scan(source))
    values = values_of(found)
    assert cache.load(found, SHA256) == [None] * len(found)
    cache.save(found, SHA256, values)
    assert cache.load(found, SHA256) == values
    assert cache.load(found, Algorithm.SHA512) == [None] * len(found)


def test_only_what_changed_is_forgotten(source, tmp_path) -> None:
    cache = StatCache(tmp_path)
    found = later(scan(source))
    cache.save(found, SHA256, values_of(found))
    (source / "sub" / "f3").write_bytes(b"changed" * 100)
    (source / "sub" / "new").write_bytes(b"new" * 100)
    (source / "small").unlink()
    now = scan(source)
    loaded = dict(zip(now.paths, cache.load(now, SHA256), strict=True))
    files = {path: value for path, value in loaded.items() if path.startswith(b"/sub/")}
    assert {path for path, value in files.items() if value is None} == {b"/sub/f3", b"/sub/new"}
    assert files[b"/sub/f4"] == digest_bytes(b"4" * 100, SHA256)


def test_a_file_younger_than_two_seconds_at_the_scan_is_read_again(source, tmp_path) -> None:
    cache = StatCache(tmp_path)
    found = scan(source)
    values = values_of(found)
    cache.save(later(found, RACY_NS - 1), SHA256, values)
    assert None in [cache.load(found, SHA256)[number] for number in range(len(found)) if found.size[number]]
    cache.save(later(found, RACY_NS), SHA256, values)
    assert cache.load(found, SHA256) == values


def test_a_change_that_hides_behind_equal_size_and_mtime_is_seen_by_its_ctime(source, tmp_path) -> None:
    cache = StatCache(tmp_path)
    found = later(scan(source))
    cache.save(found, SHA256, values_of(found))
    file = source / "sub" / "f5"
    before = file.stat()
    file.write_bytes(b"X" * before.st_size)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    now = scan(source)
    assert cache.load(now, SHA256)[now.paths.index(b"/sub/f5")] is None


@pytest.mark.parametrize("native", ["0", "1"])
def test_a_file_with_any_byte_wrong_counts_as_absent(source, tmp_path, native, monkeypatch) -> None:
    monkeypatch.setenv("CFSBUILD_NATIVE", native)
    cache = StatCache(tmp_path / "state")
    found = later(scan(source))
    cache.save(found, SHA256, values_of(found))
    (file,) = (tmp_path / "state").iterdir()
    good = file.read_bytes()
    nothing = [None] * len(found)
    for position in range(0, len(good), 13):
        damaged = bytearray(good)
        damaged[position] ^= 0x40
        file.write_bytes(damaged)
        assert cache.load(found, SHA256) == nothing
    for length in (0, 7, 8, 40, 41, len(good) - 1):
        file.write_bytes(good[:length])
        assert cache.load(found, SHA256) == nothing
    file.write_bytes(good)
    assert cache.load(found, SHA256) != nothing


def test_another_users_file_is_ignored(source, tmp_path) -> None:
    if os.geteuid() != 0:
        pytest.skip("giving a file away needs root")
    cache = StatCache(tmp_path / "state")
    found = later(scan(source))
    cache.save(found, SHA256, values_of(found))
    (file,) = (tmp_path / "state").iterdir()
    os.chown(file, 65534, 65534)
    assert cache.load(found, SHA256) == [None] * len(found)


def test_a_symbolic_link_in_its_place_is_ignored(source, tmp_path) -> None:
    cache = StatCache(tmp_path / "state")
    found = later(scan(source))
    cache.save(found, SHA256, values_of(found))
    (file,) = (tmp_path / "state").iterdir()
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    assert cache.load(found, SHA256) == [None] * len(found)


def test_a_state_directory_that_cannot_be_written_costs_only_time(source, tmp_path) -> None:
    (tmp_path / "state").write_bytes(b"a file where the directory should be")
    cache = StatCache(tmp_path / "state")
    found = later(scan(source))
    values = ingest_tree(found, HashOnly(SHA256), cache=cache)
    assert values == values_of(found)


def test_excluded_files_stay_known(source, tmp_path) -> None:
    cache = StatCache(tmp_path / "state")
    found = later(scan(source))
    cache.save(found, SHA256, values_of(found))
    (source / "sub" / "f3").write_bytes(b"changed" * 100)
    now = later(scan(source))
    ingest_tree(now, HashOnly(SHA256), cache=cache, numbers=[now.paths.index(b"/sub/f3")])
    assert cache.load(now, SHA256)[now.paths.index(b"/sub/f9")] == digest_bytes(b"9" * 100, SHA256)


def test_the_cache_really_saves_the_read(source, tmp_path) -> None:
    cache = StatCache(tmp_path / "state")
    found = later(scan(source))
    values = ingest_tree(found, HashOnly(SHA256), cache=cache)
    for file in (source / "sub").iterdir():
        file.unlink()
    assert ingest_tree(found, HashOnly(SHA256), cache=cache) == values
