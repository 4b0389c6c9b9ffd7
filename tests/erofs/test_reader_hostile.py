"""Damaged and hostile images: each is refused for its reason, quickly, and without much memory."""

import struct
import time
import tracemalloc

import pytest
import reader_images as images

from cfsbuild import limits
from cfsbuild.erofs import extents, reader_xattrs
from cfsbuild.erofs.reader import read_image
from cfsbuild.errors import InputError

GOOD = images.example()
DIRENTS = images.DIRECTORY + 64
HL = images.dirent(GOOD, b"hl", group=DIRENTS, end=DIRENTS + 41)
PARENT = images.dirent(GOOD, b"..", group=DIRENTS, end=DIRENTS + 41)
SELF = images.dirent(GOOD, b".", group=DIRENTS, end=DIRENTS + 41)
ROOT_BIG = images.dirent(GOOD, b"big")
ROOT_SMALL = images.dirent(GOOD, b"small")
BIG_XATTRS = images.BIG + 32
METACOPY = BIG_XATTRS + 16
REDIRECT = METACOPY + 4 + 16 + 36
CHUNKS = GOOD.index(b"\xff" * 4, REDIRECT)
HUGE = 2**40


def read(data):
    return list(read_image(data).entries())


def refusal(data):
    with pytest.raises(InputError) as caught:
        read(data)
    assert caught.value.brief
    assert caught.value.resolution
    return caught.value.reason


HOSTILE = {
    "the header has another magic number": ("magic", [(0, b"\0")]),
    "the superblock has another magic number": ("magic", [(1024, b"\0")]),
    "the header version is unknown": ("version", [(4, b"\x02")]),
    "the format is unknown": ("version", [(12, b"\x03")]),
    "blocks have another size": ("version", [(1036, b"\x09")]),
    "an incompatible feature is asked for": ("version", [(1104, b"\x01")]),
    "the superblock says more blocks than there are": ("truncated", [(1060, images.u32(5))]),
    "the superblock says fewer blocks than there are": ("size", [(1060, images.u32(3))]),
    "the build time has too many nanoseconds": ("bounds", [(1056, images.u32(10**9))]),
    "the root lies before the inodes": ("bounds", [(1038, images.u16(0))]),
    "the root lies behind the end": ("bounds", [(1038, images.u16(512))]),
    "the root is a file": ("type", [(1038, images.u16(images.BIG_NID))]),
    "the root is a symbolic link": ("type", [(1038, images.u16(images.SYMLINK // 32))]),
    "the number of inodes is wrong": ("count", [(1040, images.u64(262))]),
    "a directory entry leads out of the image": ("bounds", [(HL, images.u64(HUGE))]),
    "a directory entry leads to the superblock": ("bounds", [(HL, images.u64(32))]),
    "a directory entry leads into another inode": ("bounds", [(ROOT_BIG, images.u64(images.BIG_NID + 1))]),
    "a directory entry leads into a data block": ("type", [(HL, images.u64(images.ROOT_BLOCK // 32))]),
    "a directory contains itself as a file": ("loop", [(HL, images.u64(images.DIRECTORY_NID))]),
    "a directory contains itself": (
        "loop",
        [(HL, images.u64(images.DIRECTORY_NID)), (HL + 10, b"\x02")],
    ),
    "a directory contains the root": ("loop", [(HL, images.u64(36)), (HL + 10, b"\x02")]),
    "a directory has two names": (
        "loop",
        [(ROOT_SMALL, images.u64(images.DIRECTORY_NID)), (ROOT_SMALL + 10, b"\x02")],
    ),
    "the parent entry leads elsewhere": ("loop", [(PARENT, images.u64(images.BIG_NID))]),
    "the parent entry is no directory": ("loop", [(PARENT + 10, b"\x01")]),
    "the self entry leads elsewhere": ("loop", [(SELF, images.u64(36))]),
    "the self entry has another name": ("loop", [(images.name_offset(GOOD, SELF, group=DIRENTS), b"-")]),
    "a file type is a lie": ("type", [(HL + 10, b"\x07")]),
    "a file type is unknown": ("type", [(HL + 10, b"\x08")]),
    "names are not in order": ("order", [(images.name_offset(GOOD, ROOT_BIG), b"zzz")]),
    "two names are equal": (
        "order",
        [(images.name_offset(GOOD, images.dirent(GOOD, b"01")), b"00")],
    ),
    "a name contains a slash": ("name", [(images.name_offset(GOOD, ROOT_BIG), b"b/g")]),
    "a name contains NUL": ("name", [(images.name_offset(GOOD, ROOT_BIG), b"b\0g")]),
    "a name is dot dot once more": ("order", [(images.name_offset(GOOD, images.dirent(GOOD, b"00")), b"..")]),
    "the first name begins inside of the entries": ("bounds", [(images.ROOT_BLOCK + 8, images.u16(13))]),
    "the first name begins nowhere": ("bounds", [(images.ROOT_BLOCK + 8, images.u16(0))]),
    "the first name begins behind the block": ("bounds", [(images.ROOT_BLOCK + 8, images.u16(4104))]),
    "a name begins behind its block": ("name", [(ROOT_BIG + 8, images.u16(5000))]),
    "a name begins before the previous one": ("name", [(ROOT_BIG + 8, images.u16(0))]),
    "a directory's block lies outside": ("bounds", [(images.ROOT + 16, images.u32(4))]),
    "a directory's block is in the inodes": ("bounds", [(images.ROOT + 16, images.u32(1))]),
    "a directory is empty": ("size", [(images.DIRECTORY + 8, images.u64(0))]),
    "a directory is cut off": ("bounds", [(images.DIRECTORY + 8, images.u64(11))]),
    "a directory has a size beyond measure": ("bounds", [(images.DIRECTORY + 8, images.u64(2**62))]),
    "a data layout is unknown": ("type", [(images.SMALL, b"\x02")]),
    "reserved bits of the format are set": ("type", [(images.SMALL, b"\x14")]),
    "a mode has no file type": ("type", [(images.SMALL + 4, images.u16(0o644))]),
    "a device has a size": ("size", [(images.SMALL + 4, images.u16(0o020644))]),
    "a symbolic link has chunks": ("type", [(images.BIG + 4, images.u16(0o120777))]),
    "a chunk format has unknown flags": ("type", [(images.BIG + 16, b"\x21")]),
    "a file has more chunks than there is room for": ("size", [(images.BIG + 8, images.u32(0xFFFFFFFF))]),
    "a chunk points into the image": ("type", [(DIRECTORY_END := images.DIRECTORY - 32, b"\0" * 32)]),
    "inline content is too long": ("limit", [(images.SMALL + 8, images.u32(5001))]),
    "inline content crosses its block": ("bounds", [(images.SMALL + 8, images.u32(4000))]),
    "a symbolic link is too long": ("limit", [(images.SYMLINK + 8, images.u32(4096))]),
    "a symbolic link is empty": ("size", [(images.SYMLINK + 8, images.u32(0))]),
    "a symbolic link contains NUL": ("name", [(images.SYMLINK + 32, b"\0")]),
    "an extended time has too many nanoseconds": ("bounds", [(images.DIRECTORY + 40, images.u32(10**9))]),
    "attributes end outside of the image": ("bounds", [(images.DIRECTORY + 2, images.u16(65535))]),
    "more shared attributes than there is room for": ("xattr", [(BIG_XATTRS + 4, b"\xff")]),
    "a shared attribute lies outside of the image": ("bounds", [(BIG_XATTRS + 12, images.u32(0xFFFFFFFF))]),
    "a shared attribute lies before the inodes": (
        "bounds",
        [(1068, images.u32(0)), (images.ROOT + 32 + 12, images.u32(3))],
    ),
    "a shared attribute is longer than the image": ("bounds", [(images.SHARED + 2, images.u16(65535))]),
    "an attribute is longer than its inode has room for": ("xattr", [(METACOPY + 2, images.u16(400))]),
    "an attribute's prefix is unknown": ("xattr", [(METACOPY + 1, b"\x07")]),
    "an attribute has lustre's prefix": ("xattr", [(METACOPY + 1, b"\x05")]),
    "an attribute's name contains NUL": ("xattr", [(images.SHARED + 4, b"\0")]),
    "an overlay attribute is not escaped": ("overlay", [(METACOPY + 4, b"overlay.metacopx")]),
    "an attribute is there twice": ("xattr", [(REDIRECT + 4, b"overlay.metacopy")]),
    "a digest is of an unknown form": ("digest", [(METACOPY + 20, b"\x01")]),
    "a digest's algorithm does not fit its length": ("digest", [(METACOPY + 23, b"\x02")]),
    "a chunk of an external file has an address": ("type", [(CHUNKS, images.u32(1))]),
    "a backing path is not absolute": ("overlay", [(REDIRECT + 20, b"x")]),
    "a backing path contains dot dot": ("overlay", [(REDIRECT + 20, b"/../cd")]),
    "a backing path contains NUL": ("overlay", [(REDIRECT + 22, b"\0")]),
    "a root that is opaque in another way": ("overlay", [(images.ROOT + 32 + 16 + 4 + 14, b"x")]),
}


@pytest.mark.parametrize("shared", [False, True])
def test_an_attribute_of_the_owner_that_is_there_twice_is_refused(shared):
    text = b"/ 0 40755 2 0 0 0 0.0 - - -\n"
    for name in (b"f", b"g") if shared else (b"f",):
        text += b"/%s 0 100644 1 0 0 0 0.0 - - - user.aa=1 user.ab=2\n" % name
    image = images.image(text)
    assert image.count(b"ab2") == 1
    assert refusal(image.replace(b"ab2", b"aa2")) == "xattr"


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_image_is_refused(case):
    reason, patches = HOSTILE[case]
    assert refusal(images.patched(GOOD, patches)) == reason


@pytest.mark.parametrize("size", [0, 1, 3, 4, 31, 32, 1023, 1024, 1151, 1152, 4096, 8192, 12288, 16383])
def test_a_truncated_image_is_refused(size):
    assert refusal(GOOD[:size]) == "truncated"


def test_an_image_with_something_behind_it_is_refused():
    assert refusal(GOOD + b"\0" * 4096) == "size"
    assert refusal(GOOD + b"\0") == "size"


def test_something_else_is_no_image():
    assert refusal(b"#!/bin/sh\necho\n") == "magic"
    assert refusal(bytes(16384)) == "magic"


def test_no_more_is_read_than_the_limit(monkeypatch):
    monkeypatch.setattr(limits, "IMAGE_BYTES", len(GOOD))
    assert read(GOOD)
    monkeypatch.setattr(limits, "IMAGE_BYTES", len(GOOD) - 1)
    assert refusal(GOOD) == "limit"


@pytest.mark.parametrize(("name", "value", "good"), [("TREE_ENTRIES", 5, 5), ("PATH_BYTES", 6, 6)])
def test_names_are_counted(monkeypatch, name, value, good):
    monkeypatch.setattr(limits, name, good)
    assert read(GOOD)
    monkeypatch.setattr(limits, name, 4)
    assert refusal(GOOD) == "limit"


def nested(depth):
    lines = [b"/ 4096 40755 2 0 0 0 1.0 - - -"]
    lines += [b"%s 0 40755 2 0 0 0 1.0 - - -" % (b"/d" * level) for level in range(1, depth + 1)]
    return b"\n".join(lines) + b"\n"


def test_depth_is_limited(monkeypatch):
    deep = images.image(nested(20))
    monkeypatch.setattr(limits, "PATH_DEPTH", 20)
    assert len(read(deep)) == 21
    monkeypatch.setattr(limits, "PATH_DEPTH", 19)
    assert refusal(deep) == "limit"


def test_shared_attributes_that_overlap_do_not_multiply_in_memory():
    # 100 small shared attributes pose as large ones that lie over each other.
    names = b"".join(b" user.%03d=%s" % (index, b"v" * 250) for index in range(100))
    dump = b"/ 4096 40755 2 0 0 0 1.0 - - -\n"
    dump += b"".join(b"/f%d 0 100644 1 0 0 0 1.0 - - -%s\n" % (index, names) for index in range(2))
    data = bytearray(images.image(dump))
    head = b"\x03\x01\xfa\x00"
    assert data.count(head) == 100
    data = data.replace(head, b"\x03\x01\x40\x1f")
    before = time.process_time()
    tracemalloc.start()
    try:
        assert refusal(bytes(data)) in {"overlap", "bounds"}
        assert tracemalloc.get_traced_memory()[1] < 16 * 2**20
    finally:
        tracemalloc.stop()
    assert time.process_time() - before < 1


def test_long_paths_do_not_multiply_in_memory(monkeypatch):
    monkeypatch.setattr("cfsbuild.erofs.reader.PATHS_BYTES_FREE", 2**16)
    monkeypatch.setattr("cfsbuild.erofs.reader.PATHS_BYTES_RATIO", 1)
    lines = [b"/ 4096 40755 2 0 0 0 1.0 - - -"]
    path = b""
    for _ in range(15):
        path += b"/" + b"d" * 250
        lines.append(path + b" 0 40755 2 0 0 0 1.0 - - -")
    lines.append(path + b"/x 0 100644 1 0 0 0 1.0 - - -")
    lines += [b"%s/%04d 0 @100644 1 0 0 0 1.0 %s/x - -" % (path, index, path) for index in range(500)]
    assert refusal(images.image(b"\n".join(lines) + b"\n")) == "limit"


def test_many_names_of_one_inode_with_many_attributes_stay_cheap():
    attributes = b"".join(b" user.%04d=%s" % (index, b"v" * 4) for index in range(1500))
    lines = [b"/ 4096 40755 2 0 0 0 1.0 - - -", b"/a 0 100644 1 0 0 0 1.0 - - -" + attributes]
    lines += [b"/b%05d 0 @100644 1 0 0 0 1.0 /a - -" % index for index in range(20000)]
    data = images.image(b"\n".join(lines) + b"\n")
    before = time.process_time()
    assert sum(1 for _ in read_image(data).entries()) == 20002
    assert time.process_time() - before < 1


def test_an_inode_inside_of_a_files_content_is_refused():
    fake = struct.pack("<HHHHI", 0, 0, 0o100644, 1, 0) + bytes(20)
    text = b"".join(b"\\x%02x" % byte for byte in fake)
    data = images.image(
        b"/ 4096 40755 2 0 0 0 1.0 - - -\n/a 0 100644 1 0 0 0 1.0 - - -\n/b 32 100644 1 0 0 0 1.0 - %s -\n"
        % text
    )
    nid = (data.index(fake, images.ROOT + 32) + 31) // 32
    assert data[32 * nid : 32 * nid + 32] == fake
    inside = (data.rindex(fake, 0, images.ROOT_BLOCK)) // 32
    assert refusal(images.patched(data, [(images.dirent(data, b"a"), images.u64(inside))])) == "overlap"


def test_claims_are_exact():
    claims = extents.Extents(8192)
    claims.claim(2000, 3000)
    claims.claim(3000, 3001)
    claims.check()
    claims.claim(2999, 3000)
    with pytest.raises(InputError, match="share"):
        claims.check()
    with pytest.raises(InputError, match="more bytes"):
        claims.claim(0, 8192)


def test_attributes_of_one_inode_are_bounded():
    assert reader_xattrs.INODE_BYTES_MAX == 2 * limits.XATTR_INODE_BYTES


def attribute(index, suffix, value):
    entry = struct.pack("<BBH", len(suffix), index, len(value)) + suffix + value
    return entry + bytes(-len(entry) % 4)


def test_digests_of_two_algorithms_do_not_mix():
    data = images.image(
        b"/ 4096 40755 2 0 0 0 1.0 - - -\n"
        b"/a 100 100644 1 0 0 0 1.0 ab/cd - " + b"0f" * 32 + b"\n"
        b"/b 100 100644 1 0 0 0 1.0 ab/ef - - user.pad=" + b"p" * 100 + b"\n"
    )
    redirect = attribute(4, b"overlay.redirect", b"/ab/ef")
    before = attribute(4, b"overlay.metacopy", b"") + redirect + attribute(1, b"pad", b"p" * 100)
    digest = b"\x00\x44\x00\x02" + bytes(64)
    after = attribute(4, b"overlay.metacopy", digest) + redirect + attribute(1, b"pad", b"p" * 32)
    assert data.count(before) == 1
    assert len(before) == len(after)
    assert len(read(data)) == 3
    assert refusal(data.replace(before, after)) == "digest"
