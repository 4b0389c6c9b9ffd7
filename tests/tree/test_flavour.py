"""The composefs flavour: trees become dumps and come back unchanged."""

import stat

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cfsbuild.errors import InputError
from cfsbuild.tree.dump import DumpEntry, format_entry, parse_dump
from cfsbuild.tree.flavour import directory_size, from_dump, payload_of, to_dump
from cfsbuild.tree.inode import IMPLICIT_DIRECTORY, Inode
from cfsbuild.tree.layer import Tree, canonical_links, in_order

SECOND = 10**9
DIGEST = bytes(range(32))

names = st.sampled_from([b"a", b"b", b"-x", b"!", b"..x", b"z" * 255, b"\xff", b"a b"])
times = st.integers(-(10**12), 10**19)
xattrs = st.dictionaries(st.sampled_from([b"user.a", b"security.selinux"]), st.binary(max_size=5)).map(
    lambda pairs: tuple(sorted(pairs.items()))
)

# A busy machine is no fault of the code: no example has a time limit.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def leaves(draw):
    kind = draw(st.sampled_from([stat.S_IFREG, stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO]))
    size, digest, content, target, rdev = 0, b"", b"", b"", 0
    if kind == stat.S_IFLNK:
        target = draw(st.binary(min_size=1, max_size=9))
        size = len(target)
    elif kind == stat.S_IFCHR:
        rdev = draw(st.integers(0, 2**32 - 1))
    elif kind == stat.S_IFREG:
        choice = draw(st.integers(0, 2))
        if choice == 1:
            content = draw(st.binary(min_size=1, max_size=64))
            size = len(content)
        elif choice == 2:
            digest, size = draw(st.binary(min_size=32, max_size=32)), draw(st.integers(65, 2**40))
    return Inode(
        mode=kind | draw(st.integers(0, 0o7777)),
        uid=draw(st.integers(0, 2**32 - 1)),
        gid=draw(st.integers(0, 9)),
        mtime_ns=draw(times),
        size=size,
        digest=digest,
        content=content,
        target=target,
        rdev=rdev,
        xattrs=draw(xattrs),
    )


@st.composite
def trees(draw):
    inodes = {b"/": Inode(mode=stat.S_IFDIR | 0o755, mtime_ns=draw(times))}
    directories = [b""]
    files = []
    links = {}
    for name in draw(st.lists(names, max_size=12)):
        path = draw(st.sampled_from(directories)) + b"/" + name
        if path in inodes or path in links:
            continue
        choice = draw(st.sampled_from(["directory", "leaf", "leaf", "link"]))
        if choice == "directory":
            inodes[path] = Inode(mode=stat.S_IFDIR | 0o700, mtime_ns=draw(times), xattrs=draw(xattrs))
            directories.append(path)
        elif choice == "link" and files:
            links[path] = draw(st.sampled_from(files))
        else:
            inodes[path] = draw(leaves())
            files.append(path)
    inodes, links = canonical_links(inodes, links)
    return Tree(entries=in_order(inodes), links=in_order(links))


@patient
@given(trees())
def test_a_tree_comes_back_from_its_dump(tree):
    assert from_dump(to_dump(tree, epoch=None)) == tree


@patient
@given(trees())
def test_a_tree_comes_back_from_the_text_of_its_dump(tree):
    lines = [format_entry(entry) for entry in to_dump(tree, epoch=None)]
    assert from_dump(parse_dump(lines)) == tree


@patient
@given(trees(), st.integers(0, 2**31))
def test_an_epoch_clamps_files_to_whole_seconds_and_sets_directories(tree, epoch):
    for entry in to_dump(tree, epoch=epoch):
        inode = tree.entries[tree.links.get(entry.path, entry.path)]
        if inode.is_directory:
            assert (entry.mtime_sec, entry.mtime_nsec) == (epoch, 0)
        else:
            assert entry.mtime_sec == min(epoch, inode.mtime_ns // SECOND)
            assert entry.mtime_nsec == 0


@patient
@given(trees())
def test_a_dump_is_in_depth_first_order_with_real_link_counts(tree):
    dump = list(to_dump(tree, epoch=0))
    assert [entry.path for entry in dump] == sorted(
        [*tree.entries, *tree.links], key=lambda path: path.split(b"/") if path != b"/" else [b""]
    )
    for entry in dump:
        first = entry.hardlink or entry.path
        if stat.S_ISDIR(entry.mode):
            below = [
                other
                for other in dump
                if stat.S_ISDIR(other.mode)
                and other.path != b"/"
                and (other.path.rpartition(b"/")[0] or b"/") == entry.path
            ]
            assert entry.nlink == 2 + len(below)
        else:
            assert entry.nlink == 1 + [*tree.links.values()].count(first)


def test_small_files_are_inline_and_others_are_named_by_digest():
    tree = Tree(
        entries={
            b"/": IMPLICIT_DIRECTORY,
            b"/big": Inode(mode=0o100644, size=65, digest=DIGEST),
            b"/small": Inode(mode=0o100644, size=2, content=b"hi"),
        }
    )
    _, big, small = to_dump(tree, epoch=None)
    assert big.payload == payload_of(DIGEST) == b"00/" + DIGEST.hex()[2:].encode()
    assert big.digest == DIGEST
    assert (small.content, small.payload, small.digest) == (b"hi", None, None)
    with pytest.raises(InputError, match="/small has 2 bytes of inline content"):
        list(to_dump(tree, epoch=None, inline_bytes=1))


def test_directory_sizes_are_those_of_the_image():
    assert directory_size([b".", b".."]) == 27
    assert directory_size([b".", b"..", *[b"n" * 188] * 10]) == 2027
    assert directory_size([b".", b"..", *[b"n" * 191] * 10]) == 4096
    assert directory_size([b".", b"..", *[b"n" * 255] * 16]) == 4096 + 267


def entry(path, mode=0o100644, **fields):
    return DumpEntry(path, fields.pop("size", 0), mode, 1, 0, 0, 0, 0, 0, **fields)


REFUSED = {
    "the dump has no root": [],
    "/a/b comes before its directory": [entry(b"/", 0o40755), entry(b"/a/b")],
    "/a/b comes before its directory, or that is no directory": [
        entry(b"/", 0o40755),
        entry(b"/a"),
        entry(b"/a/b"),
    ],
    "/a appears twice": [entry(b"/", 0o40755), entry(b"/a"), entry(b"/a")],
    "is a hard link to itself": [
        entry(b"/", 0o40755),
        entry(b"/a", hardlink=b"/b"),
        entry(b"/b", hardlink=b"/a"),
    ],
    "which is missing": [entry(b"/", 0o40755), entry(b"/a", hardlink=b"/b")],
    "which is a directory": [entry(b"/", 0o40755), entry(b"/d", 0o40755), entry(b"/a", hardlink=b"/d")],
    "/a has no fs-verity digest": [entry(b"/", 0o40755), entry(b"/a", size=9, payload=b"x")],
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_is_no_tree_is_refused(message):
    with pytest.raises(InputError, match=message):
        from_dump(REFUSED[message])
