import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
import reader_images as images
from hypothesis import given, settings
from hypothesis import strategies as st

from cfsbuild.erofs.format import INODES_OFFSET
from cfsbuild.erofs.reader import read_image
from cfsbuild.erofs.verify import verify_image
from cfsbuild.erofs.writer import write_image
from cfsbuild.errors import InputError, VerificationError
from cfsbuild.tree.dump import DumpEntry

RICH = images.image(
    b"""\
/ 4096 40755 2 0 0 0 1000.5 - - - user.a=1 trusted.overlay.x=1 security.selinux=s
/big 5000 100644 2 0 0 0 1000.5 ab/cd - 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff user.a=1
/dir 0 40755 2 0 0 0 1001.0 - - - security.selinux=s
/dir/hl 0 @100644 1 0 0 0 0.0 /big - -
/dir/white 0 20000 1 0 0 0 0.0 - - - security.selinux=s
/dir/deep 0 40700 2 70000 0 0 1001.0 - - - system.posix_acl_access=xyz
/dir/deep/link 10 120777 1 0 0 0 1000.5 targettarg - -
/null 0 20666 1 0 0 259 1000.5 - - -
/inline 3000 100644 1 0 0 0 1000.5 - """
    + b"i" * 3000
    + b""" -
/small 5 100644 1 0 0 0 1000.5 - hello -
""",
    format=1,
)
METADATA_END = RICH.index(b"hello") + 64
INTERESTING = st.sampled_from(
    [0, 1, 2, 3, 12, 31, 32, 36, 255, 4095, 4096, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF]
)
FIELD = st.tuples(
    st.one_of(
        st.integers(1024, METADATA_END),
        st.integers(0, len(RICH) - 8),
        # Fields of inodes and directory entries are aligned.
        st.integers(INODES_OFFSET // 4, METADATA_END // 4).map(lambda word: word * 4),
        st.integers(images.ROOT_BLOCK // 4, images.ROOT_BLOCK // 4 + 800).map(lambda word: word * 4),
    ),
    st.one_of(
        st.binary(min_size=1, max_size=8),
        st.tuples(INTERESTING, st.sampled_from([1, 2, 4, 8])).map(
            lambda pair: (pair[0] & ((1 << 8 * pair[1]) - 1)).to_bytes(pair[1], "little")
        ),
        st.integers(36, len(RICH) // 32).map(lambda nid: nid.to_bytes(8, "little")),
    ),
)


def read(data):
    """Read as far as possible: entries, or an error with a reason, soon."""
    begin = time.process_time()
    try:
        entries = list(read_image(data).entries())
    except InputError as error:
        assert error.reason  # noqa: PT017
        entries = None
    assert time.process_time() - begin < 1
    return entries


@settings(max_examples=300, deadline=None)
@given(st.lists(FIELD, min_size=1, max_size=4))
def test_a_good_image_with_other_fields_is_read_or_refused(fields):
    data = images.patched(RICH + bytes(8), fields)[: len(RICH)]
    if read(data) is None:
        with pytest.raises(VerificationError):
            verify_image(data)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(RICH)), st.integers(0, len(RICH)), st.integers(1, 600), st.booleans())
def test_a_good_image_with_a_part_elsewhere_is_read_or_refused(source, target, size, grows):
    data = RICH[:target] + RICH[source : source + size] + RICH[target + (0 if grows else size) :]
    blocks = len(data) // 4096
    data = bytearray(data[: 4096 * blocks])
    data[1060:1064] = blocks.to_bytes(4, "little")
    read(bytes(data))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_refused(data):
    assert read(data) is None
    assert read(RICH[:1152] + data) is None


NAMES = st.binary(min_size=1, max_size=12).filter(
    lambda name: name not in {b".", b".."} and not {0, 0x2F} & set(name)
)
XATTRS = st.dictionaries(
    st.sampled_from([b"user.a", b"security.selinux", b"trusted.overlay.x", b"system.posix_acl_access"]),
    st.binary(max_size=8),
    max_size=3,
).map(lambda pairs: tuple(sorted(pairs.items())))


@st.composite
def trees(draw):
    """Draw a small tree as dump entries, in depth-first order, with the sizes that a reader gives."""
    entries = [DumpEntry(b"/", 0, 0o40755, 2, 0, 0, 0, 5, 6, xattrs=draw(XATTRS))]
    for name in sorted(draw(st.sets(NAMES, max_size=6))):
        kind = draw(st.sampled_from([0o100000, 0o40000, 0o120000, 0o60000, 0o10000]))
        mode = kind | draw(st.integers(0, 0o7777))
        common = (1, draw(st.integers(0, 2**32 - 1)), draw(st.integers(0, 70000)))
        sec, nsec = draw(st.integers(-(2**40), 2**40)), draw(st.integers(0, 10**9 - 1))
        xattrs = draw(XATTRS)
        path = b"/" + name
        payload = content = digest = None
        size = rdev = 0
        if kind == 0o100000 and draw(st.booleans()):
            content = draw(st.binary(min_size=1, max_size=200))
            size = len(content)
        elif kind == 0o100000:
            size, payload, digest = (
                draw(st.integers(1, 2**43)),
                b"ab/cd",
                draw(st.binary(min_size=32, max_size=32)),
            )
        elif kind == 0o120000:
            payload = draw(st.binary(min_size=1, max_size=100).filter(lambda target: 0 not in target))
            size = len(payload)
        elif kind == 0o60000:
            rdev = draw(st.integers(1, 2**32 - 1))
        entries.append(
            DumpEntry(path, size, mode, *common, rdev, sec, nsec, payload, content, digest, xattrs)
        )
    return entries


def without_computed(entry):
    """Return what an image keeps of an entry: sizes and link counts of directories are computed."""
    fields = {name: getattr(entry, name) for name in entry.__struct_fields__}
    if entry.mode & 0o170000 == 0o40000:
        fields["size"] = fields["nlink"] = 0
    fields["xattrs"] = dict(entry.xattrs)
    return fields


@settings(max_examples=150, deadline=None)
@given(trees(), st.sampled_from([0, 1]))
def test_a_tree_survives_being_written_and_read(entries, image_format):
    data = bytes(write_image(entries, format=image_format))
    assert [*map(without_computed, read_image(data).entries())] == [*map(without_computed, entries)]
    verify_image(data)


@pytest.mark.slow
def test_atheris_finds_nothing():
    if find_spec("atheris") is None:
        pytest.skip("atheris is not installed")
    target = Path(__file__).with_name("fuzz_reader.py")
    command = [
        sys.executable,
        target,
        "-max_total_time=20",
        "-timeout=2",
        "-rss_limit_mb=512",
        "-verbosity=0",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
