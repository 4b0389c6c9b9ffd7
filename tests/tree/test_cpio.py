"""The cpio archive of a tree: what it cannot say is refused, and what it says can be read."""

import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfsbuild.errors import BuildError
from cfsbuild.tree.cpio import write_cpio
from cfsbuild.tree.inode import IMPLICIT_DIRECTORY, Inode
from cfsbuild.tree.layer import Tree

FILE = stat.S_IFREG | 0o644


@pytest.mark.parametrize(
    ("name", "inode", "epoch", "reason"),
    [
        (b"/TRAILER!!!", Inode(mode=FILE), 0, "cpio-name"),
        (b"/large", Inode(mode=FILE, size=1 << 32, digest=b"x"), 0, "cpio-limit"),
        (b"/owner", Inode(mode=FILE, uid=1 << 32), 0, "cpio-limit"),
        (b"/late", Inode(mode=FILE), 1 << 32, "cpio-limit"),
        (b"/early", Inode(mode=FILE), -1, "cpio-limit"),
    ],
)
def test_what_the_archive_cannot_say_is_refused(name, inode, epoch, reason):
    tree = Tree(entries={b"/": IMPLICIT_DIRECTORY, name: inode})
    with pytest.raises(BuildError) as caught:
        list(write_cpio(tree, lambda _: pytest.fail("it was read"), epoch=epoch))
    assert caught.value.reason == reason


names = st.text("abc .é\n", min_size=1, max_size=6).filter(lambda name: name not in {".", ".."})


@given(st.dictionaries(names, st.binary(max_size=70), max_size=8))
def test_any_archive_is_whole_blocks_and_lists_every_name(contents):
    files = {
        b"/" + name.encode(): Inode(mode=FILE, size=len(data), content=data)
        for name, data in contents.items()
    }
    archive = b"".join(write_cpio(Tree(entries={b"/": IMPLICIT_DIRECTORY, **files}), bytes, epoch=1))
    assert len(archive) % 512 == 0
    assert parse(archive) == {b".": b"", **{path[1:]: inode.content for path, inode in files.items()}}


def parse(archive):
    """Read an archive as Linux does."""
    found, position = {}, 0
    while True:
        head = archive[position : position + 110]
        assert head[:6] == b"070701"
        fields = [int(head[6 + 8 * i : 14 + 8 * i], 16) for i in range(13)]
        name = archive[position + 110 : position + 110 + fields[11]]
        position = (position + 110 + fields[11] + 3) & ~3
        assert name.endswith(b"\0")
        if name == b"TRAILER!!!\0":
            assert not archive[position:].strip(b"\0")
            return found
        found[name[:-1]] = archive[position : position + fields[6]]
        position = (position + fields[6] + 3) & ~3
