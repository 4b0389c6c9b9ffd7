"""The image writer: known images, limits, and equality of the Python and the native emitter."""

import hashlib
import stat
import struct

import pytest
from generator import many_shared_xattrs, random_dump, wide_dump
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cfsbuild import limits
from cfsbuild.erofs.format import filter_bit, xattr_index, xxh32
from cfsbuild.erofs.reader import read_image
from cfsbuild.erofs.writer import write_dump, write_image
from cfsbuild.errors import InputError, UsageError
from cfsbuild.fsverity.algorithm import Algorithm
from cfsbuild.fsverity.digest import digest_bytes
from cfsbuild.tree.dump import DumpEntry, format_entry, parse_dump, parse_dump_bytes
from cfsbuild.tree.flavour import from_dump, to_dump

try:
    from cfsbuild.erofs import _emit
except ImportError:
    _emit = None

EXAMPLE = (
    b"/ 4096 40755 2 0 0 0 1000.5 - - - user.a=1\n"
    b"/big 5000 100644 1 0 0 0 1000.5 ab/cd - " + b"00112233445566778899aabbccddeeff" * 2 + b" user.a=1\n"
    b"/d 0 40755 2 0 0 0 1001.0 - - -\n"
    b"/d/hl 0 @100644 1 0 0 0 0.0 /big - -\n"
    b"/l 2 120777 1 0 0 0 1000.5 xy - -\n"
    b"/small 5 100644 1 0 0 0 1000.5 - hello -\n"
)
EMPTY = b"/ 0 40755 2 0 0 0 0.0 - - -\n"
both = pytest.mark.parametrize(
    "native",
    [
        False,
        pytest.param(
            True, marks=pytest.mark.skipif(_emit is None, reason="the native emitter was not built")
        ),
    ],
)


def image_of(text, *, native=True, **options):
    return write_image(parse_dump_bytes(text), native=native, **({"format": 0} | options))


def verity(image):
    return digest_bytes(image, Algorithm.SHA256).hex()


@both
def test_the_worked_example_of_the_format(native):
    image = image_of(EXAMPLE, max_format=1, native=native)
    assert len(image) == 16384
    assert (
        hashlib.sha256(image).hexdigest()
        == "baac33c94fdfc55a030306aa5e6a4cc9a7a2ede3bce191138a09d6ff5497ed31"
    )
    assert verity(image) == "115947246ec012d695aaa0cbd80739a2d2d0e9c829963e89d18ab66d4ea6d37e"
    root_nid, inodes, seconds = struct.unpack_from("<HQQ", image, 1024 + 14)
    assert (root_nid, inodes, seconds) == (36, 261, 1000)
    assert image[7392:7394] == b"\x08\x00"  # "big": chunk based, compact


@both
@pytest.mark.parametrize(
    ("version", "digest"),
    [
        (0, "8f589e8f57ecb88823736b0d857ddca1e1068a23e264fad164b28f7038eb3682"),
        (1, "14a26c957c84f6eb774b91205476adc13196c7c33b9dd97d08d43725ecb90b63"),
    ],
)
def test_the_empty_tree_has_the_digest_that_other_implementations_pin(version, digest, native):
    assert verity(image_of(EMPTY, format=version, native=native)) == digest


def test_name_filter_hashes():
    known = {
        b"security.selinux": (0x9490146B, 11),
        b"security.ima": (0x1DDD9DC0, 0),
        b"security.capability": (0x8C47AC5D, 29),
        b"trusted.overlay.redirect": (0x887EC271, 17),
        b"trusted.overlay.metacopy": (0xDBE5E05F, 31),
        b"trusted.overlay.opaque": (0x4CE0A7F4, 20),
        b"trusted.overlay.overlay.opaque": (0x207B5265, 5),
        b"trusted.overlay.overlay.whiteout": (0x54A3E364, 4),
        b"trusted.overlay.overlay.whiteouts": (0x46DD3E0C, 12),
        b"user.overlay.whiteout": (0xED142E09, 9),
        b"user.overlay.whiteouts": (0xD11B80B4, 20),
        b"user.overlay.opaque": (0xF8DC99EA, 10),
        b"system.posix_acl_access": (0x0857597E, 30),
        b"system.posix_acl_default": (0x59EEABB5, 21),
        b"system.nfs4_acl": (0x4FA0248A, 10),
        b"lustre.lov": (0x2F70BFC9, 9),
        b"user.a": (0x371A8CD5, 21),
    }
    for name, (value, bit) in known.items():
        index, suffix = xattr_index(name)
        assert xxh32(suffix, 0x25BBE08F + index) == value
        assert filter_bit(name) == bit


def test_the_version_is_raised_only_for_whiteouts_and_only_in_range():
    whiteout = EMPTY + b"/w 0 20644 1 0 0 0 0.0 - - -\n"
    device = EMPTY + b"/w 0 60644 1 0 0 0 0.0 - - -\n"
    versions = [
        image_of(text, format=low, max_format=high)[12]
        for text in (EMPTY, whiteout, device)
        for low, high in ((0, 0), (0, 1), (1, 1), (1, 0))
    ]
    assert versions == [0, 0, 1, 1, 0, 1, 1, 1, 0, 0, 1, 1]


@pytest.mark.parametrize(("low", "high"), [(-1, None), (2, None), (0, 2)])
def test_unknown_formats_are_a_usage_error(low, high):
    with pytest.raises(UsageError, match="formats are 0 to 1"):
        image_of(EMPTY, format=low, max_format=high)


def test_sha512_digests_make_longer_metacopy_xattrs():
    entry = DumpEntry(b"/f", 65, 0o100644, 1, 0, 0, 0, 0, 0, b"ab/cd", None, bytes(range(64)))
    root = next(parse_dump_bytes(EMPTY))
    for native in (False, True):
        image = write_image([root, entry], format=1, algorithm=Algorithm.SHA512, native=native)
        assert b"overlay.metacopy" + bytes((0, 68, 0, 2)) + bytes(range(64)) in image
    with pytest.raises(InputError, match="digest"):
        write_image([root, entry], format=1)


def entry(path, mode=0o100644, **fields):
    base = {"size": 0, "nlink": 1, "uid": 0, "gid": 0, "rdev": 0, "mtime_sec": 0, "mtime_nsec": 0}
    return DumpEntry(path=path, mode=mode, **(base | fields))


ROOT = entry(b"/", 0o40755)
REFUSED = {
    "a hard link to a whiteout that the format adds": [ROOT, entry(b"/link", hardlink=b"/a6")],
    "nothing": [],
    "no root": [entry(b"/a")],
    "root is a file": [entry(b"/")],
    "root is a link": [entry(b"/", 0o40755, hardlink=b"/")],
    "no directory": [ROOT, entry(b"/a/b")],
    "directory is a file": [ROOT, entry(b"/a"), entry(b"/a/b")],
    "child before its directory": [ROOT, entry(b"/a/b"), entry(b"/a", 0o40755)],
    "twice": [ROOT, entry(b"/a"), entry(b"/b"), entry(b"/a")],
    "directory twice": [ROOT, entry(b"/a", 0o40755), entry(b"/a", 0o40755)],
    "file and link": [ROOT, entry(b"/b"), entry(b"/a"), entry(b"/a", hardlink=b"/b")],
    "link twice": [ROOT, entry(b"/b"), entry(b"/a", hardlink=b"/b"), entry(b"/a", hardlink=b"/b")],
    "root twice": [ROOT, ROOT],
    "dot": [ROOT, entry(b"/.")],
    "dot dot": [ROOT, entry(b"/..")],
    "NUL": [ROOT, entry(b"/a\0")],
    "relative": [ROOT, entry(b"a")],
    "empty path": [ROOT, entry(b"")],
    "long name": [ROOT, entry(b"/" + b"a" * 256)],
    "bad type": [ROOT, entry(b"/a", 0o000644)],
    "link to nowhere": [ROOT, entry(b"/a", hardlink=b"/b")],
    "link to a directory": [ROOT, entry(b"/d", 0o40755), entry(b"/a", hardlink=b"/d")],
    "link to the root": [ROOT, entry(b"/a", hardlink=b"/")],
    "link to itself": [ROOT, entry(b"/a", hardlink=b"/a")],
    "loop of links": [ROOT, entry(b"/a", hardlink=b"/b"), entry(b"/b", hardlink=b"/a")],
    "link to dot": [ROOT, entry(b"/a", hardlink=b"/.")],
    "no target": [ROOT, entry(b"/a", 0o120777)],
    "long target": [ROOT, entry(b"/a", 0o120777, payload=b"t" * 4096)],
    "long payload": [ROOT, entry(b"/a", size=9, payload=b"t" * 4096)],
    "payload that leads out": [ROOT, entry(b"/a", size=9, payload=b"../t")],
    "payload with a NUL": [ROOT, entry(b"/a", size=9, payload=b"t\0")],
    "content of another size": [ROOT, entry(b"/a", size=9, content=b"t")],
    "long content": [ROOT, entry(b"/a", size=5001, content=b"t" * 5001)],
    "huge": [ROOT, entry(b"/a", size=limits.FILE_BYTES + 1, payload=b"x")],
    "many xattrs": [ROOT, entry(b"/a", xattrs=((b"user.a", b"x" * 32767),))],
    "long xattr name": [ROOT, entry(b"/a", xattrs=((b"u" * 256, b""),))],
    "xattr that escaping makes too long": [
        ROOT,
        entry(b"/a", xattrs=((b"trusted.overlay." + b"x" * 232, b""),)),
    ],
    "xattr without a name": [ROOT, entry(b"/a", xattrs=((b"", b""),))],
    "uid": [ROOT, entry(b"/a", uid=2**32)],
    "negative gid": [ROOT, entry(b"/a", gid=-1)],
    "rdev": [ROOT, entry(b"/a", 0o20644, rdev=2**32)],
    "mtime": [ROOT, entry(b"/a", mtime_sec=2**63)],
    "mode": [ROOT, entry(b"/a", 0o1100644)],
}


@both
@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_tree_or_too_much_is_refused(case, native):
    with pytest.raises(InputError):
        write_image(REFUSED[case], format=0, native=native)


@both
def test_links_lead_through_other_links_in_any_order(native):
    entries = [ROOT, entry(b"/a", hardlink=b"/b"), entry(b"/b", hardlink=b"/c"), entry(b"/c", mode=0o100600)]
    chain = [entry(b"/%05d" % number, hardlink=b"/%05d" % (number + 1)) for number in range(20000)]
    assert write_image(entries, format=0, native=native)[1024 + 16] == 258 % 256
    assert write_image([ROOT, *chain, entry(b"/20000")], format=0, native=native)


@both
def test_the_iterable_may_be_a_generator_and_its_errors_pass(native):
    def failing():
        yield ROOT
        raise InputError("from the source")

    with pytest.raises(InputError, match="from the source"):
        write_image(failing(), format=0, native=native)


needs_native = pytest.mark.skipif(_emit is None, reason="the native emitter was not built")


def text_of(entries):
    return [format_entry(item) + b"\n" for item in entries]


@needs_native
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.integers(0, 2**32), st.sampled_from([(0, None), (1, None), (0, 1)]), st.sampled_from(list(Algorithm))
)
def test_both_emitters_write_the_same_bytes(seed, formats, algorithm):
    dump = random_dump(seed, digest_size=algorithm.digest_size)
    options = {"format": formats[0], "max_format": formats[1], "algorithm": algorithm}
    assert write_image(dump, **options) == write_image(dump, **options, native=False)


@needs_native
def test_both_emitters_agree_on_wide_directories_and_many_xattrs():
    wide = [wide_dump(names, names) for names in (20, 46, 300, 1500)]
    for dump in (*wide, many_shared_xattrs(1, 200)):
        assert write_image(dump, format=1) == write_image(dump, format=1, native=False)


def outcome(function):
    try:
        return function()
    except InputError as error:
        return "line" in error.brief or "refused"


@needs_native
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_reading_lines_natively_accepts_and_makes_the_same(data):
    lines = text_of(random_dump(data.draw(st.integers(0, 2**32))))[:30]
    for _ in range(data.draw(st.integers(0, 2))):
        number = data.draw(st.integers(0, len(lines) - 1))
        line = lines[number]
        at = data.draw(st.integers(0, len(line)))
        piece = data.draw(
            st.sampled_from([b"", b" ", b"-", b"/", b".", b"0", b"9", b"\\", b"\0", b"=", b"@", b"z", b"\n"])
        )
        lines[number] = line[:at] + piece + line[at + data.draw(st.integers(0, 2)) :]
    native = outcome(lambda: write_dump(lines, format=0, max_format=1))
    pure = outcome(lambda: write_image(parse_dump(lines), format=0, max_format=1, native=False))
    assert native == pure


PIECES = [
    b"a",
    b"=",
    b"\\x41",
    b"\\xfF",
    b"\\x00",
    b"\\n",
    b"\\\\",
    b"\\-",
    b"\\x4",
    b"\\x4g",
    b"\\q",
    b"\\",
    b"\\x",
]


@needs_native
@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=70), st.integers(-1, 1), st.booleans())
def test_both_readers_understand_escapes_in_content_alike(pieces, off, harmless):
    if harmless:
        pieces = [piece for piece in pieces if PIECES.index(piece) < 7]
    size = max(0, len(pieces) + off)
    line = b"/f %d 100644 1 0 0 0 0.0 - %b -\n" % (size, b"".join(pieces))
    lines = [EMPTY, line]
    native = outcome(lambda: write_dump(lines, format=0))
    assert native == outcome(lambda: write_image(parse_dump(lines), format=0, native=False))
    if harmless and pieces and off == 0:
        assert isinstance(native, bytes)


@needs_native
def test_a_refused_line_is_named_whoever_reads_it(monkeypatch):
    lines = [
        EMPTY,
        *[b"/f%d 0 100644 1 0 0 0 0.0 - - -\n" % number for number in range(5)],
        b"/x 0 100644 1 u 0 0 0.0 - - -\n",
    ]
    for native in ("1", "0"):
        monkeypatch.setenv("CFSBUILD_NATIVE", native)
        with pytest.raises(InputError, match="line 7: UID: 'u' is not a number"):
            write_dump(lines, format=0)


@needs_native
def test_the_native_emitter_refuses_what_are_no_entries():
    for junk in ([1], [None], ["x"]):
        with pytest.raises(AttributeError):
            write_image(junk, format=0)
    with pytest.raises(TypeError):
        write_image([entry(b"/", 0o40755, xattrs=[(b"a", b"b")])], format=0)


def test_an_image_depends_on_nothing_but_its_entries():
    dump = random_dump(7)
    assert write_image(dump, format=0) == write_image(iter(tuple(dump)), format=0)
    siblings = [ROOT, *[entry(b"/%d" % number, stat.S_IFIFO | 0o600) for number in range(50)]]
    assert write_image(siblings, format=0) == write_image([ROOT, *reversed(siblings[1:])], format=0)


def test_the_flavour_gives_directories_the_sizes_that_the_image_has():
    for names in (0, 20, 31, 46, 300, 1500):
        tree = from_dump(wide_dump(names, names))
        dump = list(to_dump(tree, epoch=None))
        stored = {item.path: item.size for item in read_image(write_image(dump, format=1)).entries()}
        assert {item.path: item.size for item in dump} == stored


@both
def test_rows_of_columns_make_the_image_that_entries_make(native):
    entries = list(parse_dump_bytes(EXAMPLE))
    columns = [[getattr(entry, name) for entry in entries] for name in DumpEntry.__struct_fields__]
    rows = zip(*columns, strict=True)
    assert write_image(rows, format=0, native=native) == write_image(entries, format=0, native=native)


@pytest.mark.skipif(_emit is None, reason="the native emitter was not built")
def test_a_row_without_all_fields_is_refused():
    with pytest.raises(TypeError, match="fields of an entry"):
        write_image([(b"/", 0, 0o40755)], format=0)
