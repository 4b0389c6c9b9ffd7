"""Archives that must be refused, that must be harmless, and that must stay accepted.

Programs that read tar disagree on many of these; docs/adr/0031-archive-members.md says what we decided.
"""

import stat

import pytest
import tar_building as tar
from node_helpers import Objects
from tar_building import END, GNU, V7, header, long_name, member, pax, record

from cfsbuild.errors import CfsError, InputError
from cfsbuild.nodes.tar import members as limits_of_members
from cfsbuild.nodes.tar import pax as pax_module


def base256(number, size):
    return bytes([0x80]) + number.to_bytes(size - 1, "big")


BIG = b"x" * 100
REFUSED = {
    # Names.
    "a name climbs out": ("name", member(b"../etc/passwd")),
    "a name climbs out in the middle": ("name", member(b"a/../../etc/passwd")),
    "a name climbs within": ("name", member(b"a/../b")),
    "a prefix climbs out": ("name", member(b"passwd", prefix=b"../etc")),
    "a pax name climbs out": ("name", pax(record(b"path", b"../x")) + member()),
    "a GNU long name climbs out": ("name", long_name(b"../x") + member(magic=GNU)),
    "a name is empty": ("name", member(b"")),
    "a pax name contains NUL": ("name", pax(record(b"path", b"a\0b")) + member()),
    "a GNU long name contains NUL": ("name", long_name(b"a\0b") + member(magic=GNU)),
    "a GNU long name is empty": ("name", long_name(b"") + member(magic=GNU)),
    "a name component is too long": ("", pax(record(b"path", b"n" * 256)) + member()),
    "a name is too long": ("", pax(record(b"path", b"d/" * 2048)) + header(kind=b"5")),
    "a name is too deep": ("", pax(record(b"path", b"d/" * 257)) + header(kind=b"5")),
    "a file is named like a directory": ("name", member(b"a/")),
    "the root is a file": ("member-type", member(b".")),
    "the root is a symbolic link": ("name", member(b"./", kind=b"2", link=b"/tmp")),
    # Links.
    "a member goes through a symbolic link": (
        "name",
        member(b"d", kind=b"2", link=b"/etc") + member(b"d/passwd"),
    ),
    "a member goes through a symbolic link further up": (
        "name",
        member(b"d", kind=b"2", link=b"/etc") + member(b"d/x/y/passwd"),
    ),
    "a member goes through a file": ("name", member(b"d") + member(b"d/passwd")),
    "a hard link goes through a symbolic link": (
        "name",
        member(b"f") + member(b"d", kind=b"2", link=b".") + member(b"d/g", kind=b"1", link=b"f"),
    ),
    "a hard link's target goes through a symbolic link": (
        "link",
        member(b"e/f") + member(b"d", kind=b"2", link=b"e") + member(b"g", kind=b"1", link=b"d/f"),
    ),
    "a hard link leads to nothing": ("link", member(b"l", kind=b"1", link=b"/etc/shadow")),
    "a hard link leads to something later": ("link", member(b"l", kind=b"1", link=b"f") + member(b"f")),
    "a hard link leads out": ("name", member(b"l", kind=b"1", link=b"../../etc/shadow")),
    "a hard link leads to itself": ("link", member(b"f") + member(b"f", kind=b"1", link=b"f")),
    "a hard link leads to a directory": (
        "link",
        member(b"d", kind=b"5") + member(b"l", kind=b"1", link=b"d"),
    ),
    "a hard link leads to an implicit directory": (
        "link",
        member(b"d/f") + member(b"l", kind=b"1", link=b"d"),
    ),
    "a hard link has no target": ("name", member(b"l", kind=b"1")),
    "a symbolic link has no target": ("name", member(b"l", kind=b"2")),
    "a symbolic link's target contains NUL": ("name", pax(record(b"linkpath", b"a\0b")) + member(kind=b"2")),
    "a symbolic link's target is too long": (
        "name",
        pax(record(b"linkpath", b"t" * 4096)) + member(kind=b"2"),
    ),
    # Type confusion.
    "a file replaces a directory": ("member-type", member(b"d", kind=b"5") + member(b"d")),
    "a symbolic link replaces a directory": (
        "member-type",
        member(b"d", kind=b"5") + member(b"d", kind=b"2", link=b"/"),
    ),
    "a symbolic link replaces an implicit directory": (
        "member-type",
        member(b"d/f") + member(b"d", kind=b"2", link=b"/"),
    ),
    "a hard link replaces a directory": (
        "member-type",
        member(b"f") + member(b"d", kind=b"5") + member(b"d", kind=b"1", link=b"f"),
    ),
    "a directory replaces a symbolic link": (
        "member-type",
        member(b"d", kind=b"2", link=b"/etc") + member(b"d", kind=b"5"),
    ),
    "a directory has data": ("member-type", member(b"d", b"data", kind=b"5")),
    "a symbolic link has data": ("member-type", member(b"d", b"data", kind=b"2", link=b"x")),
    "a hard link has data": ("member-type", member(b"f") + member(b"l", b"data", kind=b"1", link=b"f")),
    "a device has data": ("member-type", member(b"d", b"data", kind=b"3")),
    "a directory has data by pax": ("member-type", pax(record(b"size", b"1024")) + member(b"d", kind=b"5")),
    "a member type is unknown": ("member-type", member(kind=b"Z")),
    "a member continues another volume": ("member-type", member(kind=b"M")),
    "a member is a GNU dump directory": ("member-type", member(kind=b"D")),
    # Headers.
    "the checksum is wrong": ("checksum", header(checksum=b"000000\0 ")),
    "the checksum is signed": (
        "checksum",
        header(b"\xff" * 5, checksum=b"%06o\0 " % (sum(header(b"\xff" * 5)) - 5 * 256)),
    ),
    "the magic is unknown": ("member-type", member(magic=b"ustaR\x0000")),
    "a number has a sign": ("number", member(fields=[(108, b"-000001\0")])),
    "a number has an underscore": ("number", member(fields=[(108, b"0000_01\0")])),
    "a number is decimal": ("number", member(fields=[(108, b"0000009\0")])),
    "a number is hexadecimal": ("number", member(fields=[(108, b"0x00001\0")])),
    "a number has something behind its end": ("number", member(fields=[(108, b"1\0002222\0")])),
    "a number has two words": ("number", member(fields=[(108, b"1 2\0\0\0\0\0")])),
    "a size is negative": ("number", member(size=b"\xff" * 12)),
    "a size is beyond measure": ("number", member(size=base256(2**80, 12))),
    "a uid is negative": ("number", member(fields=[(108, b"\xff" * 8)])),
    "a uid means nobody": ("number", member(fields=[(108, base256(2**32 - 1, 8))])),
    "a binary number is of unknown form": ("number", member(fields=[(108, b"\xc0" + bytes(7))])),
    "a time is beyond measure": ("number", member(mtime=base256(2**62, 12))),
    "a device number is too large": ("number", member(kind=b"3", fields=[(329, base256(4096, 8))])),
    # pax.
    "a pax record is too long": ("extension-header", member(b"p", b"99 path=x\n", kind=b"x") + member()),
    "a pax record is too short": ("extension-header", member(b"p", b"5 path=x\n", kind=b"x") + member()),
    "a pax record has no length": ("extension-header", member(b"p", b"path=x\n", kind=b"x") + member()),
    "a pax record has length zero": ("extension-header", member(b"p", b"0 path=x\n", kind=b"x") + member()),
    "a pax record has no key": ("extension-header", member(b"p", b"5 =x\n", kind=b"x") + member()),
    "a pax record has no equals sign": ("extension-header", member(b"p", b"8 pathx\n", kind=b"x") + member()),
    "a pax record has no newline": ("extension-header", member(b"p", b"9 path=xy", kind=b"x") + member()),
    "a pax length has endless digits": (
        "extension-header",
        member(b"p", b"9" * 100000, kind=b"x") + member(),
    ),
    "a pax header is padded with NUL": (
        "extension-header",
        member(b"p", b"9 path=x\n\0\0", kind=b"x") + member(),
    ),
    "a pax header is too large": ("limit", header(b"p", b"x", 2**20 + 1)),
    "a GNU long name is too large": ("limit", header(b"p", b"L", 2**17, magic=GNU)),
    "a pax header describes nothing": ("extension-header", pax(record(b"path", b"x"))),
    "two pax headers describe one member": ("extension-header", pax(record(b"path", b"x")) * 2 + member()),
    "pax and GNU headers disagree": (
        "extension-header",
        pax(record(b"path", b"x")) + long_name(b"y") + member(magic=GNU),
    ),
    "a pax size is no number": ("number", pax(record(b"size", b"1e3")) + member()),
    "a pax size is negative": ("number", pax(record(b"size", b"-1")) + member()),
    "a pax size has endless digits": ("number", pax(record(b"size", b"0" * 100000 + b"1")) + member()),
    "a pax time has endless digits": ("number", pax(record(b"mtime", b"1." + b"0" * 100000)) + member()),
    "a pax time is no number": ("number", pax(record(b"mtime", b"nan")) + member()),
    "a pax time is infinite": ("number", pax(record(b"mtime", b"inf")) + member()),
    "a pax time is beyond measure": ("number", pax(record(b"mtime", b"99999999999")) + member()),
    "a pax uid is a name": ("number", pax(record(b"uid", b"root")) + member()),
    "a global header sets a path": ("extension-header", pax(record(b"path", b"x"), kind=b"g") + member()),
    "a global header sets a size": ("extension-header", pax(record(b"size", b"512"), kind=b"g") + member()),
    # Attributes.
    "an attribute steers overlayfs": (
        "xattr",
        pax(record(b"SCHILY.xattr.trusted.overlay.redirect", b"/etc/shadow")) + member(),
    ),
    "an attribute of a rootless overlay steers it": (
        "xattr",
        pax(record(b"SCHILY.xattr.user.overlay.metacopy", b"")) + member(),
    ),
    "an attribute steers overlayfs in libarchive's form": (
        "xattr",
        pax(record(b"LIBARCHIVE.xattr.trusted%2Eoverlay.opaque", b"eQ==")) + member(),
    ),
    "an attribute is not base64": ("xattr", pax(record(b"LIBARCHIVE.xattr.user.x", b"!!!")) + member()),
    "an attribute has two values": (
        "xattr",
        pax(record(b"LIBARCHIVE.xattr.user.x", b"eQ=="), record(b"SCHILY.xattr.user.x", b"z")) + member(),
    ),
    "an attribute's name is too long": (
        "xattr",
        pax(record(b"SCHILY.xattr.user." + b"n" * 251, b"")) + member(),
    ),
    "an attribute's name contains NUL": ("xattr", pax(record(b"SCHILY.xattr.user.\0", b"")) + member()),
    "attributes take too much room": ("limit", pax(record(b"SCHILY.xattr.user.x", b"v" * 32767)) + member()),
    # Sparse files.
    "sparse extents overlap": (
        "sparse",
        pax(record(b"GNU.sparse.size", b"20"), record(b"GNU.sparse.map", b"0,4,2,4"))
        + member(content=b"12345678"),
    ),
    "a sparse extent lies outside": (
        "sparse",
        pax(record(b"GNU.sparse.size", b"5"), record(b"GNU.sparse.map", b"0,8"))
        + member(content=b"12345678"),
    ),
    "a sparse map promises more data": (
        "sparse",
        pax(record(b"GNU.sparse.size", b"9"), record(b"GNU.sparse.map", b"0,9"))
        + member(content=b"12345678"),
    ),
    "a sparse map is cut off": (
        "sparse",
        pax(record(b"GNU.sparse.size", b"9"), record(b"GNU.sparse.map", b"0,4,5")) + member(content=b"1234"),
    ),
    "a sparse file is far larger than the archive": (
        "limit",
        pax(record(b"GNU.sparse.size", b"1000000000000"), record(b"GNU.sparse.map", b"")) + member(),
    ),
    "a sparse form is unknown": (
        "sparse",
        pax(record(b"GNU.sparse.major", b"2"), record(b"GNU.sparse.minor", b"0")) + member(),
    ),
    "a sparse map has no length": (
        "sparse",
        pax(
            record(b"GNU.sparse.major", b"1"),
            record(b"GNU.sparse.minor", b"0"),
            record(b"GNU.sparse.realsize", b"9"),
        )
        + member(content=b"1" * 512),
    ),
    "a sparse map is longer than its member": (
        "sparse",
        pax(
            record(b"GNU.sparse.major", b"1"),
            record(b"GNU.sparse.minor", b"0"),
            record(b"GNU.sparse.realsize", b"9"),
        )
        + member(content=b"50\n" + b"0\n0\n" * 100),
    ),
    "sparse offsets and lengths do not alternate": (
        "sparse",
        pax(
            record(b"GNU.sparse.size", b"9"),
            record(b"GNU.sparse.offset", b"0"),
            record(b"GNU.sparse.offset", b"0"),
        )
        + member(content=b"1234"),
    ),
    "a sparse directory": ("sparse", pax(record(b"GNU.sparse.size", b"0")) + member(b"d", kind=b"5")),
    "a star sparse file": ("sparse", pax(record(b"SCHILY.realsize", b"9")) + member()),
    # The end.
    "there is nothing behind the members": ("truncated", None),
    "a single zero block stands among the members": ("trailing-data", bytes(512) + member()),
    "another archive follows": ("trailing-data", END + member()),
    "something follows": ("trailing-data", END + b"x"),
}


def refused(tmp_path, data, **options):
    path = tmp_path / "a.tar"
    path.write_bytes(data)
    with pytest.raises(CfsError) as caught:
        tar.read_archive(path, **options)
    error = caught.value
    assert isinstance(error, InputError)
    assert error.brief
    assert str(path) in error.details
    return error


@pytest.mark.parametrize("case", REFUSED)
def test_is_refused(tmp_path, case):
    reason, data = REFUSED[case]
    data = member(b"first", BIG) if data is None else data + END
    error = refused(tmp_path, data)
    assert error.reason == reason


@pytest.mark.parametrize("size", [0, 1, 511, 512, 700, 1024, 1535])
def test_a_truncated_archive_is_refused(tmp_path, size):
    assert refused(tmp_path, (member(b"f", BIG) + END)[:size]).reason == "truncated"


def test_an_error_tells_the_member_before_it(tmp_path):
    error = refused(tmp_path, member(b"etc/good") + header(checksum=b"000000\0 "))
    assert "after member etc/good" in error.details


def test_too_many_pax_records_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(pax_module, "RECORDS", 3)
    assert tar_of(tmp_path, pax(*[record(b"comment", b"x")] * 3) + member())
    assert refused(tmp_path, pax(*[record(b"comment", b"x")] * 4) + member() + END).reason == "limit"


def test_too_many_global_records_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(limits_of_members, "GLOBAL_RECORDS", 2)
    many = [record(b"k%d" % index, b"x") for index in range(3)]
    assert refused(tmp_path, pax(*many, kind=b"g") + member() + END).reason == "limit"


def test_members_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr("cfsbuild.limits.TREE_ENTRIES", 3)
    assert len(tar_of(tmp_path, b"".join(member(b"f%d" % index) for index in range(3)))) == 3
    assert refused(tmp_path, b"".join(member(b"f%d" % index) for index in range(4)) + END).reason == "limit"


def test_what_stays_in_memory_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr("cfsbuild.nodes.tar.model.METADATA_BYTES", 10_000)
    deep = b"/".join([b"d" * 30] * 20)
    assert tar_of(tmp_path, pax(record(b"path", deep)) + member())
    # Each name is short; the directories that it implies are not.
    data = b"".join(pax(record(b"path", b"%d/" % index + deep)) + member() for index in range(2))
    assert refused(tmp_path, data + END).reason == "limit"


def tar_of(tmp_path, data, sink=None, **options):
    path = tmp_path / "a.tar"
    path.write_bytes(data + END)
    return tar.read_archive(path, sink, **options).entries


ACCEPTED = {
    "an empty archive": (b"", {}),
    "padding to a record": (member(b"f") + bytes(9000), {b"/f"}),
    "an absolute name": (member(b"/etc/passwd"), {b"/etc/passwd"}),
    "an absolute name with several slashes": (member(b"//etc///passwd"), {b"/etc/passwd"}),
    "a name with dots": (member(b"./a/./b"), {b"/a/b"}),
    "a name that only looks like climbing": (member(b"..a/b..") + member(b"..."), {b"/..a/b..", b"/..."}),
    "the root": (member(b"./", kind=b"5"), {b"/"}),
    "the root by its short name": (member(b".", kind=b"5"), {b"/"}),
    "a name with a newline": (member(b"a\nb"), {b"/a\nb"}),
    "a name that is not UTF-8": (member(b"\xff\xfe"), {b"/\xff\xfe"}),
    "a name with a backslash": (member(b"..\\x"), {b"/..\\x"}),
    "a name of 100 bytes": (member(b"n" * 100), {b"/" + b"n" * 100}),
    "a prefix": (member(b"f", prefix=b"a/b"), {b"/a/b/f"}),
    "a GNU header whose prefix is none": (member(b"f", magic=GNU, prefix=b"12345670123"), {b"/f"}),
    "a version 7 header": (member(b"f", magic=V7, kind=b"\0"), {b"/f"}),
    "a version 7 directory": (member(b"d/", magic=V7, kind=b"\0"), {b"/d"}),
    "a contiguous file": (member(b"f", kind=b"7"), {b"/f"}),
    "a volume label": (member(b"label", kind=b"V", magic=GNU) + member(b"f"), {b"/f"}),
    "numbers with spaces": (member(fields=[(108, b"     1 \0")]), {b"/f"}),
    "numbers without an end": (member(fields=[(100, b"00000644")]), {b"/f"}),
    "empty numbers": (member(fields=[(108, bytes(8)), (116, b" " * 8)]), {b"/f"}),
    "a mode with a file type": (member(mode=0o100644), {b"/f"}),
    "a global comment": (pax(record(b"comment", b"0123abcd"), kind=b"g") + member(b"f"), {b"/f"}),
    "a global comment alone": (pax(record(b"comment", b"0123abcd"), kind=b"g"), {}),
    "an unknown pax key": (pax(record(b"VENDOR.key", b"\xff\0")) + member(b"f"), {b"/f"}),
    "an empty pax value": (pax(record(b"path", b"")) + member(b"f"), {b"/f"}),
    "an empty pax header": (pax() + member(b"f"), {b"/f"}),
    "the same name by pax and GNU": (
        pax(record(b"path", b"x")) + long_name(b"x") + member(magic=GNU),
        {b"/x"},
    ),
    "the same member twice": (member(b"f", b"1") + member(b"f", b"2"), {b"/f"}),
    "the same directory twice": (member(b"d", kind=b"5") + member(b"d/", kind=b"5"), {b"/d"}),
    "an implicit directory declared later": (member(b"d/f") + member(b"d", kind=b"5"), {b"/d", b"/d/f"}),
    "a symbolic link that leads out": (member(b"l", kind=b"2", link=b"../../../etc/shadow"), {b"/l"}),
    "a symbolic link to itself": (member(b"l", kind=b"2", link=b"l"), {b"/l"}),
    "a container whiteout is a file": (
        member(b"d/.wh.f") + member(b"d/.wh..wh..opq"),
        {b"/d/.wh.f", b"/d/.wh..wh..opq"},
    ),
    "an overlay whiteout is a device": (member(b"w", kind=b"3"), {b"/w"}),
    "a FIFO": (member(b"p", kind=b"6"), {b"/p"}),
    "an attribute without a value": (pax(record(b"SCHILY.xattr.user.x", b"")) + member(b"f"), {b"/f"}),
    "the size in pax and nothing in the header": (
        pax(record(b"size", b"3")) + header(b"f", size=0) + tar.padded(b"abc") + member(b"g"),
        {b"/f", b"/g"},
    ),
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_is_accepted(tmp_path, case):
    data, names = ACCEPTED[case]
    assert set(tar_of(tmp_path, data)) == set(names)


def test_the_size_in_pax_wins_over_the_header(tmp_path):
    # Readers that take the header's size here see another archive inside of the file.
    inner = member(b"smuggled", b"")
    data = pax(record(b"size", b"%d" % len(inner))) + header(b"f", size=0) + inner
    sink = Objects()
    entries = tar_of(tmp_path, data, sink)
    assert set(entries) == {b"/f"}
    assert sink.contents[entries[b"/f"].digest] == inner


def test_the_last_of_two_members_wins(tmp_path):
    assert tar_of(tmp_path, member(b"f", b"1") + member(b"f", b"2"))[b"/f"].content == b"2"
    entries = tar_of(tmp_path, member(b"d", kind=b"5", mode=0o700) + member(b"d/", kind=b"5", mode=0o711))
    assert entries[b"/d"].mode == stat.S_IFDIR | 0o711


def test_a_link_keeps_the_file_that_its_target_was(tmp_path):
    data = member(b"f", b"old") + member(b"l", kind=b"1", link=b"/f") + member(b"f", b"new")
    entries = tar_of(tmp_path, data)
    assert (entries[b"/f"].content, entries[b"/l"].content) == (b"new", b"old")


def test_setuid_and_sticky_bits_and_devices_are_data(tmp_path):
    data = member(b"su", mode=0o4755) + member(b"t", kind=b"5", mode=0o1777)
    data += member(b"sda1", kind=b"4", device=(8, 1)) + member(b"big", kind=b"3", device=(300, 70000))
    entries = tar_of(tmp_path, data)
    assert entries[b"/su"].mode == stat.S_IFREG | 0o4755
    assert entries[b"/t"].mode == stat.S_IFDIR | 0o1777
    assert entries[b"/sda1"].mode == stat.S_IFBLK | 0o644
    assert entries[b"/sda1"].rdev == 0x801
    assert entries[b"/big"].rdev == (70000 & 0xFF) | 300 << 8 | (70000 >> 8) << 20


def test_numbers_from_pax_and_binary_fields(tmp_path):
    data = pax(record(b"uid", b"4000000000"), record(b"mtime", b"-1.5")) + member(b"a", uid=1)
    data += member(b"b", fields=[(116, base256(3_000_000, 8)), (136, b"\xff" * 11 + b"\xfe")])
    entries = tar_of(tmp_path, data)
    assert (entries[b"/a"].uid, entries[b"/a"].mtime_ns) == (4_000_000_000, -1_500_000_000)
    assert (entries[b"/b"].gid, entries[b"/b"].mtime_ns) == (3_000_000, -2_000_000_000)


def test_global_records_reach_all_later_members_until_overridden(tmp_path):
    data = member(b"a") + pax(record(b"uid", b"7"), kind=b"g") + member(b"b")
    data += pax(record(b"uid", b"8")) + member(b"c") + pax(record(b"gid", b"9")) + member(b"d")
    entries = tar_of(tmp_path, data)
    assert [entries[b"/" + name].uid for name in (b"a", b"b", b"c", b"d")] == [0, 7, 8, 7]


def test_attributes_of_all_forms(tmp_path):
    records = [
        record(b"SCHILY.xattr.user.a%3Db%25", b"\0\xff"),
        record(b"LIBARCHIVE.xattr.user.c%20d", b"AAE"),
        record(b"RHT.security.selinux", b"system_u:object_r:etc_t:s0"),
        record(b"SCHILY.xattr.user.overlayx", b"1"),
    ]
    entries = tar_of(tmp_path, pax(*records) + member(b"f"))
    assert dict(entries[b"/f"].xattrs) == {
        b"user.a=b%": b"\0\xff",
        b"user.c d": b"\0\1",
        b"security.selinux": b"system_u:object_r:etc_t:s0\0",
        b"user.overlayx": b"1",
    }


SPARSE = b"aaaa" + bytes(60) + b"bbbb" + bytes(32)
SPARSE_FORMS = {
    "0.0": pax(
        record(b"GNU.sparse.size", b"100"),
        record(b"GNU.sparse.numblocks", b"2"),
        *(
            record(b"GNU.sparse." + key, value)
            for key, value in (
                (b"offset", b"0"),
                (b"numbytes", b"4"),
                (b"offset", b"64"),
                (b"numbytes", b"4"),
            )
        ),
    )
    + member(b"s", b"aaaabbbb"),
    "0.1": pax(
        record(b"GNU.sparse.size", b"100"),
        record(b"GNU.sparse.numblocks", b"3"),
        record(b"GNU.sparse.map", b"0,4,64,4,100,0"),
        record(b"GNU.sparse.name", b"s"),
    )
    + member(b"GNUSparseFile.0/s", b"aaaabbbb"),
    "1.0": pax(
        record(b"GNU.sparse.major", b"1"),
        record(b"GNU.sparse.minor", b"0"),
        record(b"GNU.sparse.name", b"s"),
        record(b"GNU.sparse.realsize", b"100"),
    )
    + member(b"GNUSparseFile.0/s", tar.padded(b"2\n0\n4\n64\n4\n") + b"aaaabbbb"),
    "old GNU": member(
        b"s",
        b"aaaabbbb",
        kind=b"S",
        magic=GNU,
        fields=[
            (386, tar.octal(0, 12) + tar.octal(4, 12) + tar.octal(64, 12) + tar.octal(4, 12)),
            (483, tar.octal(100, 12)),
        ],
    ),
}


@pytest.mark.parametrize("form", SPARSE_FORMS)
def test_sparse_files_of_every_form(tmp_path, form):
    sink = Objects()
    entries = tar_of(tmp_path, SPARSE_FORMS[form] + member(b"after", b"x"), sink)
    assert set(entries) == {b"/s", b"/after"}
    assert entries[b"/s"].size == 100
    assert sink.contents[entries[b"/s"].digest] == SPARSE
