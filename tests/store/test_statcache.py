"""The stat cache saves reading, and is never believed too much."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
from blake3 import blake3

from cfsbuild.fsverity.algorithm import Algorithm
from cfsbuild.fsverity.digest import digest_bytes
from cfsbuild.store.ingest import ingest_tree
from cfsbuild.store.sink import HashOnly
from cfsbuild.store.statcache import RACY_NS, StatCache
from cfsbuild.store.statfile import Changes, Remembered
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


def change(source: Path, name: str, content: bytes) -> tuple[Scan, int]:
    """Rewrite a file below `sub`; return a later scan and the file's number in it."""
    (source / "sub" / name).write_bytes(content)
    found = later(scan(source))
    return found, found.paths.index(b"/sub/" + name.encode())


def recalled(cache: StatCache, found: Scan) -> Remembered:
    old = cache.recall(found, SHA256)
    assert old is not None
    return old


class Patched(NamedTuple):
    """A cache in which one change was saved, the scan before it, what was known of that, the scan with it."""

    cache: StatCache
    before: Scan
    known: list[bytes | None]
    after: Scan


@pytest.fixture
def patched(source, tmp_path) -> Patched:
    cache = StatCache(tmp_path / "state")
    before = later(scan(source))
    known = values_of(before)
    cache.save(before, SHA256, known)
    after, number = change(source, "f3", b"changed" * 100)
    cache.save_changed(recalled(cache, before), after, SHA256, values_of(after), [number])
    return Patched(cache, before, known, after)


def changes_file(tmp_path: Path) -> Path:
    (file,) = (tmp_path / "state").glob("*.changes")
    return file


def test_what_was_saved_of_changes_is_loaded_with_all_else(patched, source) -> None:
    cache, before, known, after = patched
    assert cache.load(after, SHA256) == values_of(after)
    assert cache.load(before, SHA256).count(None) == known.count(None) + 1
    old = recalled(cache, after)
    again, number = change(source, "f4", b"changed as well" * 100)
    cache.save_changed(old, again, SHA256, values_of(again), [number])
    saved = cache.digest
    assert cache.load(again, SHA256) == values_of(again)
    assert recalled(cache, again).digest == cache.digest == saved != old.digest
    assert len(recalled(cache, again).changed) == 2


def test_changes_are_small_and_leave_the_file_with_the_scan_alone(patched, source, tmp_path) -> None:
    cache, after = patched.cache, patched.after
    changes = changes_file(tmp_path)
    whole = changes.with_suffix("")
    content = whole.read_bytes()
    again, number = change(source, "f4", b"changed as well" * 100)
    cache.save_changed(recalled(cache, after), again, SHA256, values_of(again), [number])
    assert whole.read_bytes() == content
    assert changes.stat().st_size < 600 < whole.stat().st_size


@pytest.mark.parametrize("native", ["0", "1"])
def test_changes_with_any_byte_wrong_count_as_absent(patched, tmp_path, native, monkeypatch) -> None:
    monkeypatch.setenv("CFSBUILD_NATIVE", native)
    cache, before, known, after = patched
    file = changes_file(tmp_path)
    good = file.read_bytes()
    for position in range(len(good)):
        damaged = bytearray(good)
        damaged[position] ^= 0x40
        file.write_bytes(damaged)
        assert cache.load(before, SHA256) == known
    for length in (0, 7, 40, 41, len(good) - 1):
        file.write_bytes(good[:length])
        assert cache.load(before, SHA256) == known
    file.write_bytes(good)
    assert cache.load(after, SHA256) == values_of(after)


@pytest.mark.parametrize(
    "entries",
    [{1 << 40: (bytes(80), None)}, {-1: (bytes(80), None)}, {1: (bytes(79), None)}, {1: (b"", b"x")}],
)
def test_changes_that_do_not_fit_count_as_absent(patched, tmp_path, entries) -> None:
    cache, before, known, after = patched
    body = msgspec.msgpack.encode(Changes(recalled(cache, after).whole, after.taken_ns, entries))
    changes_file(tmp_path).write_bytes(b"CFSSTATC" + blake3(body).digest() + body)
    assert cache.load(before, SHA256) == known
    assert recalled(cache, before).changed == frozenset()


def test_changes_to_another_scan_count_as_absent(patched, source, tmp_path) -> None:
    cache = patched.cache
    file = changes_file(tmp_path)
    stale = file.read_bytes()
    again, _ = change(source, "f3", b"changed once more" * 100)
    cache.save(again, SHA256, values_of(again))
    assert not file.exists()
    file.write_bytes(stale)
    assert cache.load(again, SHA256) == values_of(again)


def test_many_changes_are_saved_with_the_whole(patched, source, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("cfsbuild.store.statcache._WHOLE_FROM", 1)
    cache, after = patched.cache, patched.after
    again, number = change(source, "f4", b"changed as well" * 100)
    cache.save_changed(recalled(cache, after), again, SHA256, values_of(again), [number])
    saved = cache.digest
    assert not list((tmp_path / "state").glob("*.changes"))
    assert cache.load(again, SHA256) == values_of(again)
    assert recalled(cache, again).digest == saved


def test_changes_that_cannot_be_written_cost_only_time(patched, source, tmp_path) -> None:
    cache, after = patched.cache, patched.after
    old = recalled(cache, after)
    shutil.rmtree(tmp_path / "state")
    (tmp_path / "state").write_bytes(b"a file where the directory should be")
    again, number = change(source, "f4", b"changed as well" * 100)
    cache.save_changed(old, again, SHA256, values_of(again), [number])
    assert cache.digest is None
    assert cache.load(again, SHA256) == [None] * len(again)


def test_the_digest_is_of_this_scan_with_these_values(source, tmp_path) -> None:
    cache = StatCache(tmp_path / "state")
    found = later(scan(source))
    values = values_of(found)
    cache.load(found, SHA256)
    assert cache.digest is None
    cache.save(found, SHA256, values)
    first = cache.digest
    again = StatCache(tmp_path / "state")
    again.load(found, SHA256)
    assert again.digest == first
    again.save(found, SHA256, [value and value[::-1] for value in values])
    assert again.digest != first
    (source / "small").unlink()
    again.load(later(scan(source)), SHA256)
    assert again.digest is None


def test_what_is_known_of_another_scan_is_saved_again_so_that_the_next_one_finds_it(source, tmp_path) -> None:
    cache = StatCache(tmp_path / "state")
    found = later(scan(source))
    ingest_tree(found, HashOnly(SHA256), cache=cache)
    (source / "small").unlink()
    fewer = later(scan(source))
    values = ingest_tree(fewer, HashOnly(SHA256), cache=cache)
    assert cache.digest is not None
    assert StatCache(tmp_path / "state").load(fewer, SHA256) == values
    assert recalled(cache, fewer).digest == cache.digest
