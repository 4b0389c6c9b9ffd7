import subprocess
import sys
import time
import tracemalloc
from importlib.util import find_spec
from pathlib import Path

import pytest
import tar_building as tar
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tar_building import END, GNU, USTAR, V7, header, member, pax, record

from cfsbuild.errors import InputError
from cfsbuild.nodes.decompress import decompressed
from cfsbuild.nodes.tar.pax import parse_records

PARTS = st.sampled_from([b"a", b"b", b"..", b".", b"", b"\xff", b"n" * 256, b"d\n"])
PATHS = st.lists(PARTS, max_size=4).map(b"/".join)
NUMBERS = st.sampled_from(
    [b"", b"0", b"1", b"-1", b"7.5", b"512", b"99999999999999999999", b"1e3", b"\0", b"0,4,8,4"]
)
KEYS = st.sampled_from(
    b"path linkpath size uid gid mtime GNU.sparse.size GNU.sparse.map GNU.sparse.offset GNU.sparse.numbytes "
    b"GNU.sparse.major GNU.sparse.minor GNU.sparse.realsize GNU.sparse.name GNU.sparse.numblocks "
    b"SCHILY.xattr.user.a SCHILY.xattr.trusted.overlay.x LIBARCHIVE.xattr.user.a SCHILY.devmajor comment".split()
)
RECORDS = st.lists(st.builds(record, KEYS, st.one_of(PATHS, NUMBERS, st.binary(max_size=20))), max_size=5)
FIELDS = st.lists(st.tuples(st.integers(0, 500), st.binary(min_size=1, max_size=12)), max_size=2)
HEADERS = st.builds(
    header,
    PATHS.map(lambda path: path[:100]),
    st.sampled_from([bytes([byte]) for byte in b"\x0001234567xgLKSVDMZ"]),
    st.integers(0, 1500),
    link=PATHS.map(lambda path: path[:100]),
    magic=st.sampled_from([USTAR, GNU, V7]),
    fields=FIELDS,
)
PIECES = st.one_of(
    HEADERS,
    st.builds(member, PATHS.map(lambda path: path[:100]), st.binary(max_size=600)),
    st.builds(lambda records, kind: pax(*records, kind=kind), RECORDS, st.sampled_from([b"x", b"x", b"g"])),
    st.binary(max_size=600),
    st.just(bytes(512)),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(PIECES, max_size=6), st.booleans())
def test_any_sequence_of_pieces_is_read_or_refused(tmp_path, pieces, ends):
    path = tmp_path / "a.tar"
    path.write_bytes(b"".join(pieces) + (END if ends else b""))
    begin = time.process_time()
    try:
        layer = tar.read_archive(path, format="tar")
    except InputError as error:
        assert error.brief  # noqa: PT017
    else:
        assert all(
            name.startswith(b"/") and b"/../" not in name + b"/" for name in [*layer.entries, *layer.links]
        )
    assert time.process_time() - begin < 1


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_flipped_bits_of_a_good_archive_are_read_or_refused(tmp_path, data):
    good = (
        pax(record(b"SCHILY.xattr.user.a", b"b"), record(b"path", b"long/name"))
        + member(b"x", b"content" * 20)
        + member(b"l", kind=b"1", link=b"long/name")
        + END
    )
    broken = bytearray(good)
    for bit in data.draw(st.lists(st.integers(0, 8 * len(good) - 1), min_size=1, max_size=3)):
        broken[bit // 8] ^= 1 << bit % 8
    path = tmp_path / "a.tar"
    path.write_bytes(bytes(broken))
    try:
        tar.read_archive(path)
    except InputError as error:
        assert error.brief  # noqa: PT017


def drained(data, compression):
    position = 0

    def read(size):
        nonlocal position
        piece = data[position : position + size]
        position += len(piece)
        return piece

    source = decompressed(read, compression)
    while source(1 << 20):
        pass


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(["gzip", "bzip2", "xz", "zstd"]), st.data())
def test_damaged_compressed_streams_are_read_or_refused(compression, data):
    good = COMPRESSED[compression]
    broken = bytearray(good)
    for _ in range(data.draw(st.integers(1, 3))):
        broken[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    try:
        drained(bytes(broken), compression)
    except InputError as error:
        assert error.reason  # noqa: PT017


def make_compressed():
    import bz2  # noqa: PLC0415
    import gzip  # noqa: PLC0415
    import lzma  # noqa: PLC0415

    import zstandard  # noqa: PLC0415

    text = bytes(range(256)) * 8
    return {
        "gzip": gzip.compress(text, mtime=0),
        "bzip2": bz2.compress(text),
        "xz": lzma.compress(text),
        "zstd": zstandard.ZstdCompressor(write_checksum=True).compress(text),
    }


COMPRESSED = make_compressed()


@given(st.binary(max_size=200))
def test_pax_records_parse_or_are_refused(data):
    try:
        records = parse_records(data)
    except InputError:
        return
    assert b"".join(record(key, value) for key, value in records) == data or b" 0" in b" " + data


def test_many_empty_compressed_members_stay_linear():
    begin = time.process_time()
    with pytest.raises(InputError):
        drained(COMPRESSED["gzip"][:10] + b"\3\0" + bytes(8), "xz")
    empty = bytes.fromhex("1f8b08000000000000030300000000000000000000")[:20]
    drained(empty * 50_000, "gzip")
    assert time.process_time() - begin < 3


@pytest.mark.parametrize("compression", ["gzip", "bzip2", "xz", "zstd"])
def test_a_bomb_costs_little_memory(tmp_path, compression, monkeypatch):
    import bz2  # noqa: PLC0415
    import gzip  # noqa: PLC0415
    import lzma  # noqa: PLC0415

    import zstandard  # noqa: PLC0415

    compress = {"gzip": gzip, "bzip2": bz2, "xz": lzma, "zstd": zstandard}[compression].compress
    path = tmp_path / "bomb"
    path.write_bytes(compress(member(b"zeros", bytes(24 << 20)) + END))
    monkeypatch.setattr("cfsbuild.limits.EXPANSION_FREE_BYTES", 8 << 20)
    monkeypatch.setattr("cfsbuild.limits.EXPANSION_RATIO", 10)
    tracemalloc.start()
    begin = time.process_time()
    try:
        with pytest.raises(InputError) as caught:
            drained(path.read_bytes(), compression)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
    assert caught.value.reason == "limit"
    assert time.process_time() - begin < 5


@pytest.mark.slow
def test_atheris_finds_nothing():
    if find_spec("atheris") is None:
        pytest.skip("atheris is not installed")
    target = Path(__file__).with_name("fuzz_tar.py")
    command = [
        sys.executable,
        target,
        "-max_total_time=20",
        "-timeout=2",
        "-rss_limit_mb=512",
        "-max_len=8192",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
