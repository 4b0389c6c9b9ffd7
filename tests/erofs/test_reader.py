import struct

import pytest
import reader_images as images

from cfsbuild.erofs.reader import read_image
from cfsbuild.erofs.verify import verify_image
from cfsbuild.erofs.writer import write_image
from cfsbuild.errors import InputError, VerificationError
from cfsbuild.fsverity.algorithm import Algorithm
from cfsbuild.tree.dump import DumpEntry, format_entry, parse_dump_bytes


def dump_of(data, **options):
    return b"".join(
        format_entry(entry).rstrip(b"\n") + b"\n" for entry in read_image(data, **options).entries()
    )


def round_trip(dump, *, format=1):  # noqa: A002
    return dump_of(images.image(dump, format=format))


def test_the_worked_example_reads_back_as_its_dump():
    assert dump_of(images.example()) == images.EXAMPLE_DUMP


def test_an_image_tells_format_algorithm_and_acls():
    info = read_image(images.example())
    assert (info.format, info.algorithm, info.has_acl, info.inodes, info.size) == (
        0,
        Algorithm.SHA256,
        False,
        261,
        16384,
    )
    acl = images.image(b"/ 0 40755 2 0 0 0 1.0 - - - system.posix_acl_access=x\n", format=1)
    assert read_image(acl).has_acl
    assert read_image(acl).format == 1


def test_sha512_digests_are_recognised_by_their_length():
    entries = [
        DumpEntry(b"/", 0, 0o40755, 2, 0, 0, 0, 1, 0),
        DumpEntry(b"/f", 100, 0o100644, 1, 0, 0, 0, 1, 0, b"ab/c", None, bytes(range(64))),
    ]
    data = bytes(write_image(entries, format=1, algorithm=Algorithm.SHA512))
    info = read_image(data)
    assert info.algorithm is Algorithm.SHA512
    assert [entry.digest for entry in info.entries()] == [None, bytes(range(64))]


def test_any_bytes_like_object_can_be_read():
    data = images.example()
    for form in (bytearray(data), memoryview(data)):
        assert dump_of(form) == images.EXAMPLE_DUMP


def test_reading_twice_gives_the_same():
    info = read_image(images.example())
    assert list(info.entries()) == list(info.entries())


@pytest.mark.parametrize("format", [0, 1])
def test_whiteouts_come_back_and_their_markers_go(format):  # noqa: A002
    dump = b"""\
/ 4096 40755 3 0 0 0 1.0 - - -
/d 0 40755 2 0 0 0 1.0 - - - user.k=v
/d/white 0 20600 1 5 6 0 2.0 - - - user.x=y
/e 0 40755 2 0 0 0 1.0 - - -
"""
    lines = round_trip(dump, format=format).splitlines()
    assert lines[2] == b"/d/white 0 20600 1 5 6 0 2.0 - - - user.x=y"
    # composefs-info shows the opaque pair of format 1 too; it is escaped again when it is written.
    marks = [b"trusted.overlay.opaque=x", b"user.overlay.opaque=x"] if format else []
    assert sorted(lines[1].split(b" ")[11:]) == sorted([*marks, b"user.k=v"])
    assert images.image(b"\n".join(lines) + b"\n", format=format) == images.image(dump, format=format)


@pytest.mark.parametrize("format", [0, 1])
@pytest.mark.parametrize(
    "line",
    [
        b"/d/a 0 100644 1 0 0 0 1.0 - - - user.overlay.whiteout=",
        b"/d/a 0 100644 1 0 0 0 1.0 - - - trusted.overlay.whiteout= user.overlay.whiteout=",
        b"/d/a 0 100644 1 0 0 0 1.0 - - - trusted.overlay.whiteout=x user.overlay.whiteout=y",
        b"/d/a 0 10644 1 0 0 0 1.0 - - - trusted.overlay.whiteout= user.overlay.whiteout=",
        b"/d/a 0 40755 2 0 0 0 1.0 - - - trusted.overlay.whiteouts= user.overlay.whiteouts=",
        b"/d/a 27 40755 2 0 0 0 1.0 - - - trusted.overlay.metacopy=1 trusted.overlay.redirect=/etc",
        b"/d/a 0 40755 2 0 0 0 1.0 - - - trusted.overlay.overlay.opaque=y",
        b"/d/a 70 100644 1 0 0 0 1.0 /ab/cd - - trusted.overlay.metacopy=x user.overlay.metacopy=xx",
        b"/d/a 70 100644 1 0 0 0 1.0 ab/cd - -",
        b"/d/a 4096 100644 1 0 0 0 -5.999999999 - " + b"c" * 4096 + b" -",
        b"/d/a 5000 100644 1 0 0 0 1.0 - " + b"c" * 5000 + b" -",
        b"/d/a 4000 120777 1 0 0 0 1.0 " + b"t" * 4000 + b" - -",
        b"/d/a 4095 120777 1 0 0 0 1.0 " + b"t" * 4095 + b" - -",
        b"/d/a 0 60600 1 0 0 2049 1.0 - - -",
        b"/d/a 0 140600 70000 4294967295 4294967295 0 1.0 - - -",
        b"/d/a 9007199254740992 100644 1 0 0 0 1.0 ab/cd - -",
        b"/d/a 0 100644 1 0 0 0 1.0 - - - user.=1 lustre.lov=2 odd=3 system.posix_acl_default=4",
    ],
)
def test_nothing_that_a_dump_can_say_is_lost(line, format):  # noqa: A002
    dump = b"/ 4096 40755 3 0 0 0 1.0 - - -\n/d 0 40755 2 0 0 0 1.0 - - -\n" + line + b"\n"
    data = images.image(dump, format=format)
    assert images.image(dump_of(data), format=format) == data


def test_names_that_the_root_has_itself_stay_apart_from_generated_ones():
    dump = b"""\
/ 4096 40755 4 1 2 0 1.0 - - - security.selinux=s
/00 0 20644 1 1 2 0 1.0 - - - security.selinux=s
/01 0 100644 1 0 0 0 1.0 - - -
/ff 0 40755 2 0 0 0 1.0 - - -
/ff/00 0 40755 2 0 0 0 1.0 - - -
"""
    paths = [entry.path for entry in read_image(images.image(dump, format=1)).entries()]
    assert paths == [b"/", b"/00", b"/01", b"/ff", b"/ff/00"]


def test_only_the_wanted_children_of_the_root_are_read():
    data = images.example()
    assert [e.path for e in read_image(data, top_level=[b"d", b"l"]).entries()] == [
        b"/",
        b"/d",
        b"/d/hl",
        b"/l",
    ]
    # The first name that is left is the file itself.
    assert (
        next(e for e in read_image(data, top_level=[b"d"]).entries() if e.path == b"/d/hl").hardlink is None
    )
    assert [e.path for e in read_image(data, top_level=[b"none"]).entries()] == [b"/"]


def test_a_large_directory_reads_back_in_order():
    names = sorted(b"n%d-%s" % (index, b"x" * (index % 200)) for index in range(3000))
    dump = b"/ 4096 40755 2 0 0 0 1.0 - - -\n" + b"".join(
        b"/%s 0 100644 1 0 0 0 1.0 - - -\n" % name for name in names
    )
    assert [entry.path for entry in read_image(images.image(dump)).entries()] == [
        b"/",
        *(b"/" + name for name in names),
    ]


def test_attributes_beyond_the_sharing_limit_read_back():
    attributes = b" ".join(b"user.%03d=v" % index for index in range(200))
    lines = [b"/ 4096 40755 2 0 0 0 1.0 - - -"]
    lines += [b"/f%d 0 100644 1 0 0 0 1.0 - - - %s" % (index, attributes) for index in range(2)]
    entries = list(read_image(images.image(b"\n".join(lines) + b"\n")).entries())
    expected = dict(entry.split(b"=") for entry in attributes.split(b" "))
    assert [dict(entry.xattrs) for entry in entries[1:]] == [expected, expected]


def test_an_error_says_where_and_what_to_do():
    data = images.example()
    entry = images.dirent(data, b"hl", group=images.DIRECTORY + 64, end=images.DIRECTORY + 64 + 41)
    with pytest.raises(InputError) as caught:
        list(read_image(images.patched(data, [(entry + 10, b"\x07")])).entries())
    assert caught.value.reason == "type"
    assert "/d/hl" in caught.value.details
    assert caught.value.resolution


def test_dump_text_and_entries_agree():
    parsed = {entry.path: entry for entry in parse_dump_bytes(images.EXAMPLE_DUMP)}
    read = {entry.path: entry for entry in read_image(images.example()).entries()}
    assert parsed.keys() == read.keys()
    assert parsed[b"/big"] == read[b"/big"]
    assert parsed[b"/d/hl"].hardlink == read[b"/d/hl"].hardlink == b"/big"


def older_image(*, digest=bytes(range(64))):
    """Return an image of format 2, put together by hand: all inodes extended, depth first, nothing added."""

    def attribute(index, suffix, value):
        entry = struct.pack("<BBH", len(suffix), index, len(value)) + suffix + value
        return entry + bytes(-len(entry) % 4)

    def inode(layout, mode, size, union, position, *, nlink=1, attributes=b"", tail=b"", shared=()):
        area = attributes
        if attributes or shared:
            area = struct.pack(f"<IB7x{len(shared)}I", 0, len(shared), *shared) + attributes
        icount = (len(area) - 12) // 4 + 1 if area else 0
        fields = (layout << 1 | 1, icount, mode, 0, size, union, position // 32, 7, 8, -3, 0, nlink)
        packed = struct.pack("<HHHHQIIIIqII16x", *fields) + area + tail
        return packed + bytes(-len(packed) % 32)

    root_at, file_at = 1152, 1152 + 128
    metacopy = {32: b"\0\x24\0\1", 64: b"\0\x44\0\2"}[len(digest)] + digest
    attributes = attribute(4, b"overlay.metacopy", metacopy) + attribute(4, b"overlay.redirect", b"/ab/cd")
    file = inode(4, 0o100644, 5000, 31, file_at, attributes=attributes, tail=b"\xff" * 4, shared=(3584 // 4,))
    white_at = file_at + len(file)
    names = [(b".", root_at, 2), (b"..", root_at, 2), (b"f", file_at, 1), (b"w", white_at, 3)]
    dirents, offset = b"", 12 * len(names)
    for name, at, kind in names:
        dirents += struct.pack("<QHBB", at // 32, offset, kind, 0)
        offset += len(name)
    dirents += b"".join(name for name, _, _ in names)
    root = inode(2, 0o40755, len(dirents), 0, root_at, nlink=2, tail=dirents)
    assert len(root) == file_at - root_at
    image = bytearray(4096)
    image[:16] = struct.pack("<IIII", 0xD078629A, 1, 0, 2)
    struct.pack_into("<IIIBBHQQIIII", image, 1024, 0xE0F5E1E2, 0, 6, 12, 0, root_at // 32, 3, 0, 0, 1, 0, 0)
    body = root + file + inode(0, 0o20000, 0, 0, white_at)
    image[1152 : 1152 + len(body)] = body
    shared = attribute(5, b"lov", b"x")
    image[3584 : 3584 + len(shared)] = shared
    return bytes(image)


def test_the_older_format_of_composefs_rs_is_read_but_not_verified():
    data = older_image()
    info = read_image(data)
    assert (info.format, info.algorithm) == (2, Algorithm.SHA512)
    digest = bytes(range(64)).hex().encode()
    assert dump_of(data) == (
        b"/ 53 40755 2 7 8 0 -3.0 - - -\n"
        b"/f 5000 100644 1 7 8 0 -3.0 ab/cd - " + digest + b" lustre.lov=x\n"
        b"/w 0 20000 1 7 8 0 -3.0 - - -\n"
    )
    with pytest.raises(VerificationError) as caught:
        verify_image(data)
    assert caught.value.reason == "foreign"


def test_the_older_format_has_either_algorithm():
    data = older_image(digest=bytes(32))
    assert read_image(data).algorithm is Algorithm.SHA256
