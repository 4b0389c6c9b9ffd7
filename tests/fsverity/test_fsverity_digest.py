"""Digests are what fsverity-utils and the reference vectors say, whichever kernel computes them."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cfsbuild.errors import BuildError, UsageError
from cfsbuild.fsverity import digest, pool
from cfsbuild.fsverity.algorithm import Algorithm

VECTORS = [
    (b"", "sha256", "3d248ca542a24fc62d1c43b916eae5016878e2533c88238480b26128a1f1af95"),
    (
        b"",
        "sha512",
        (
            "ccf9e5aea1c2a64efa2f2354a6024b90dffde6bbc017825045dce374474e13d1"
            "0adb9dadcc6ca8e17a3c075fbd31336e8f266ae6fa93a6c3bed66f9e784e5abf"
        ),
    ),
    (b"hello world", "sha256", "1e2eaa4202d750a41174ee454970b92c1bc2f925b1e35076d8c7d5f56362ba64"),
    (
        b"hello world",
        "sha512",
        (
            "18430270729d162d4e469daca123ae61893db4b0583d8f7081e3bf4f92b88ba5"
            "14e7982f10733fb6aa895195c5ae8fd2eb2c47a8be05513ce5a0c51a6f570409"
        ),
    ),
    (b"foo bar baz\n", "sha256", "91e7d88cb7bc9cf6d8db3b0ecf89af4abf204bef5b3ade5113d5b62ef374e70b"),
    (bytes(4096), "sha256", "babc284ee4ffe7f449377fbf6692715b43aec7bc39c094a95878904d34bac97e"),
    (bytes(4097), "sha256", "093756e4ea9683329106d4a16982682ed182c14bf076463a9e7f97305cbac743"),
    (
        bytes(4097),
        "sha512",
        (
            "4339f5da3788e60fa6857bd7040fadccd6f125b2c2334777eb14ed55179ad887"
            "d9131e9ce78485afc23051392b71e015528abbb7be07ed7073c56480b15cedf1"
        ),
    ),
    (b"a" * 524288, "sha256", "35ce0df2a57eb54aeba7969570bac9dfadfac295ec181a03f13ac7a7da54909e"),
    (b"a" * 524289, "sha256", "cc4f297494cf9e0b6f159db6d30a62d3fcc219fc9c0cbc2d8792bd264da4d9cb"),
    (b"a" * 67108869, "sha256", "6f42f661e3102c264726830cd8f8d4e5a0f61cb3cc84e6ccd6e388d3351d9dc8"),
]
PATHS = ["hashlib", *digest.kernels()]
MIB = 1 << 20


def take(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    """Compute with `path` from now on."""
    monkeypatch.setenv("CFSBUILD_NATIVE", "0" if path == "hashlib" else "1")
    monkeypatch.setenv("CFSBUILD_SHA256_KERNEL", "" if path == "hashlib" else path)


def both_ways(directory: Path, names: list[bytes], algorithm: Algorithm, **keywords: int):
    """Return the digests of files by the native module and by hashlib."""
    fd = os.open(directory, os.O_RDONLY)
    patch = pytest.MonkeyPatch()
    try:
        patch.setenv("CFSBUILD_NATIVE", "1")
        native = digest.digest_files(fd, names, algorithm, **keywords)
        patch.setenv("CFSBUILD_NATIVE", "0")
        return native, digest.digest_files(fd, names, algorithm, **keywords)
    finally:
        patch.undo()
        os.close(fd)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("data", "algorithm", "expected"), VECTORS)
def test_published_vectors_hold_on_every_path(data, algorithm, expected, path, monkeypatch) -> None:
    if path in {"portable C", "avx2 x16"} and len(data) > 64 * MIB - 1:
        data, expected = b"a" * 524288, VECTORS[8][2]
    take(monkeypatch, path)
    assert digest.digest_bytes(data, Algorithm(algorithm)).hex() == expected


def boundary_sizes(algorithm: Algorithm) -> list[int]:
    per_block = 4096 // algorithm.digest_size
    around = [0, 1, 4096, per_block * 4096, per_block * per_block * 4096, MIB, 2 * MIB, 17 * MIB]
    return sorted({max(0, size + step) for size in around for step in (-1, 0, 1)})


@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_fsverity_utils_agrees_around_every_boundary(algorithm, tmp_path) -> None:
    if not shutil.which("fsverity"):
        pytest.skip("program `fsverity` (fsverity-utils) is not installed")
    names = []
    for size in boundary_sizes(algorithm):
        path = tmp_path / f"file{size}"
        with path.open("wb") as file:
            file.write(bytes(range(1, 252)) * 40 if size > 10040 else bytes(range(1, 252))[:1] * size)
            file.truncate(size)
        names.append(os.fsencode(path.name))
    done = subprocess.run(
        ["fsverity", "digest", "--compact", f"--hash-alg={algorithm.value}", *map(os.fsdecode, names)],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    )
    expected = done.stdout.split()
    native, pure = both_ways(tmp_path, names, algorithm, threads=2)
    assert [found.hex() for found, _ in native] == expected
    assert [found.hex() for found, _ in pure] == expected
    assert [size for _, size in native] == boundary_sizes(algorithm)
    for name, text in zip(names, expected, strict=True):
        fd = os.open(tmp_path / os.fsdecode(name), os.O_RDONLY)
        assert digest.digest_fd(fd, algorithm)[0].hex() == text
        os.close(fd)


@pytest.mark.parametrize("path", digest.kernels())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 40), st.sampled_from(list(Algorithm)), st.integers(0, 2**32))
def test_every_kernel_hashes_blocks_as_hashlib_does(path, monkeypatch, count, algorithm, seed) -> None:
    data = random.Random(seed).randbytes(count * 4096)
    take(monkeypatch, path)
    native = digest.hash_blocks(data, algorithm)
    take(monkeypatch, "hashlib")
    assert native == digest.hash_blocks(data, algorithm)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 3 * MIB), max_size=12),
    st.lists(st.integers(0, 9000), max_size=12),
    st.sampled_from(list(Algorithm)),
)
def test_pieces_of_any_length_give_the_digest_of_the_whole(large, small, algorithm) -> None:
    pieces = [bytes([index % 251]) * size for index, size in enumerate([*small, *large[:2]])]
    hasher = digest.Hasher(algorithm)
    for piece in pieces:
        hasher.update(piece)
    assert hasher.digest() == digest.digest_bytes(b"".join(pieces), algorithm)
    assert hasher.size == sum(map(len, pieces))


@pytest.mark.parametrize("algorithm", list(Algorithm))
@pytest.mark.parametrize("threads", [1, 2, 40])
def test_a_batch_of_many_files_equals_hashlib_and_the_worker_pool(algorithm, threads, tmp_path) -> None:
    names = []
    for index in range(1500):
        name = b"\xff\n%d" % index
        size = (index * 7919) % 9000 if index % 100 else index * 2000
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(bytes([index % 256]) * size)
        names.append(name)
    native, pure = both_ways(tmp_path, names, algorithm, threads=threads)
    assert native == pure
    assert len({found for found, _ in native}) > 1000


@pytest.mark.parametrize("native", ["0", "1"])
@pytest.mark.parametrize("count", [1, 600])
def test_what_cannot_be_read_is_named(native, count, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("CFSBUILD_NATIVE", native)
    for index in range(count):
        (tmp_path / f"f{index}").write_bytes(b"x")
    (tmp_path / "link").symlink_to("f0")
    os.mkfifo(tmp_path / "fifo")
    names = [b"f%d" % index for index in range(count)]
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        for bad in (b"absent", b"link", b"fifo", b"."):
            with pytest.raises(OSError, match=r".") as caught:
                digest.digest_files(fd, [*names, bad], Algorithm.SHA256, threads=2)
            assert caught.value.filename == bad
    finally:
        os.close(fd)


@pytest.fixture
def many_files(tmp_path):
    """Have a directory, as a descriptor, with more files than the first batch of a worker."""
    names = [b"f%d" % index for index in range(600)]
    for name in names:
        (tmp_path / os.fsdecode(name)).write_bytes(name * 50)
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd, names
    os.close(fd)


def test_workers_that_end_too_early_are_noticed(many_files, monkeypatch) -> None:
    monkeypatch.setattr(sys, "executable", shutil.which("true"))
    with pytest.raises(BuildError, match="ended before its work was done"):
        list(pool.digest_files(*many_files, Algorithm.SHA256, processes=2))


def test_who_stops_early_leaves_no_worker_and_no_descriptor(many_files, monkeypatch) -> None:
    started = []

    class Recorded(subprocess.Popen):
        def __init__(self, *arguments: object, **options: object) -> None:
            super().__init__(*arguments, **options)
            started.append(self)

    monkeypatch.setattr(subprocess, "Popen", Recorded)
    before = len(list(Path("/proc/self/fd").iterdir()))
    digests = pool.digest_files(*many_files, Algorithm.SHA256, processes=2)
    next(digests)
    digests.close()
    assert [worker.returncode is None for worker in started] == [False, False]
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_an_unknown_kernel_is_a_usage_error(monkeypatch) -> None:
    if not digest.kernels():
        pytest.skip("the extension module is not built")
    monkeypatch.setenv("CFSBUILD_SHA256_KERNEL", "sha-4")
    with pytest.raises(UsageError, match="sha-4"):
        digest.implementation()


def test_the_environment_switches_to_hashlib_and_back(monkeypatch) -> None:
    monkeypatch.setenv("CFSBUILD_NATIVE", "1")
    before = digest.implementation()
    monkeypatch.setenv("CFSBUILD_NATIVE", "0")
    assert digest.implementation() == "hashlib"
    monkeypatch.setenv("CFSBUILD_NATIVE", "1")
    assert digest.implementation() == before
