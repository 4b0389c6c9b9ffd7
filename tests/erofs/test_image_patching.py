"""An image whose files are given other contents in place is what the writer makes of the changed tree."""

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cfsbuild.erofs.patching import patch_image
from cfsbuild.erofs.writer import write_image
from cfsbuild.errors import InputError
from cfsbuild.fsverity.algorithm import Algorithm
from cfsbuild.tree.dump import DumpEntry
from cfsbuild.tree.flavour import payload_of

LABEL = ((b"security.selinux", b"label"),)


def digest(number, algorithm=Algorithm.SHA256):
    return bytes([number]) * algorithm.digest_size


def directory(path, mtime=9):
    return DumpEntry(path, 0, 0o40755, 2, 0, 0, 0, mtime, 0)


def file(path, number=1, *, size=100, mtime=9, uid=0, mode=0o644, xattrs=(), algorithm=Algorithm.SHA256):
    raw = digest(number, algorithm)
    return DumpEntry(path, size, 0o100000 | mode, 1, uid, 0, 0, mtime, 0, payload_of(raw), None, raw, xattrs)


def tree(*files, mtime=9):
    return [directory(b"/", mtime), *files]


def patched(entries, changes, *, version=1, algorithm=Algorithm.SHA256):
    """Say whether the image was patched; it is checked to be the written one then, else what it was."""
    old = {entry.path: entry for entry in entries}
    pairs = [(old[new.path], new) for new in changes]
    image = write_image(entries, format=version, algorithm=algorithm)
    new = {entry.path: entry for entry in changes}
    wanted = write_image(
        [new.get(entry.path, entry) for entry in entries], format=version, algorithm=algorithm
    )
    changed = bytearray(image)
    found = patch_image(changed, pairs, algorithm=algorithm)
    assert changed == (wanted if found else image)
    return found


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_a_file_gets_another_object_time_mode_and_size(version, algorithm):
    before = tree(file(b"/a", 1, algorithm=algorithm), file(b"/b", 2, mtime=10, algorithm=algorithm))
    after = file(b"/b", 3, mtime=11, mode=0o4755, size=4096, algorithm=algorithm)
    assert patched(before, [after], version=version, algorithm=algorithm)


def test_several_files_are_patched_at_once():
    before = tree(*(file(b"/%d" % number, number) for number in range(5)))
    assert patched(before, [file(b"/1", 11), file(b"/3", 13)])


def test_a_file_of_many_chunks_is_patched():
    size = (1 << 43) * 5
    assert patched(tree(file(b"/a", 1, size=size)), [file(b"/a", 2, size=size - 7)])


def test_a_file_keeps_its_own_attributes_when_no_other_has_them():
    before = tree(file(b"/a", 1, xattrs=LABEL))
    assert patched(before, [file(b"/a", 2, xattrs=LABEL)])


NOT_IN_PLACE = {
    "another file has the old object": (tree(file(b"/a", 1), file(b"/b", 1)), [file(b"/a", 2)]),
    "another file has the new object": (tree(file(b"/a", 1), file(b"/b", 2)), [file(b"/a", 2)]),
    "two files get the same object": (
        tree(file(b"/a", 1), file(b"/b", 2)),
        [file(b"/a", 3), file(b"/b", 3)],
    ),
    "it becomes the oldest": (tree(file(b"/a", mtime=9)), [file(b"/a", 2, mtime=8)]),
    "it was the oldest": (tree(file(b"/a", mtime=8)), [file(b"/a", 2, mtime=9)]),
    "it becomes as old as the oldest": (tree(file(b"/a", mtime=10)), [file(b"/a", 2, mtime=9)]),
    "it needs another form": (tree(file(b"/a", uid=0)), [file(b"/a", 2, uid=70000)]),
    "it is too large for its form": (tree(file(b"/a")), [file(b"/a", 2, size=1 << 32)]),
    "it has more chunks": (
        tree(file(b"/a", size=1 << 43)),
        [file(b"/a", 2, size=(1 << 43) + 1)],
    ),
    "it gets an attribute": (tree(file(b"/a")), [file(b"/a", 2, xattrs=LABEL)]),
    "it loses an attribute that others have": (
        tree(file(b"/a", xattrs=LABEL), file(b"/b", 3, xattrs=LABEL), file(b"/c", 4, xattrs=LABEL)),
        [file(b"/a", 2)],
    ),
    "an attribute of it stands elsewhere": (
        tree(file(b"/a", xattrs=LABEL), file(b"/b", 3, xattrs=LABEL)),
        [file(b"/a", 2, xattrs=LABEL)],
    ),
}


@pytest.mark.parametrize("case", NOT_IN_PLACE)
def test_nothing_is_patched_when(case):
    assert not patched(*NOT_IN_PLACE[case])


def test_what_is_not_in_the_image_is_not_replaced():
    image = bytearray(write_image(tree(file(b"/a", 1)), format=1))
    for wrong in (file(b"/a", 1, size=101), file(b"/a", 5)):
        assert not patch_image(image, [(wrong, file(b"/a", 2))], algorithm=Algorithm.SHA256)


def test_content_in_the_image_is_not_patched():
    inline = msgspec.structs.replace(file(b"/a"), digest=None, payload=None, content=b"x" * 100)
    image = bytearray(write_image(tree(inline), format=1))
    assert not patch_image(image, [(inline, file(b"/a", 2))], algorithm=Algorithm.SHA256)
    image = bytearray(write_image(tree(file(b"/a")), format=1))
    assert not patch_image(image, [(file(b"/a"), inline)], algorithm=Algorithm.SHA256)


def test_a_backing_path_of_ones_own_is_not_patched():
    odd = msgspec.structs.replace(file(b"/a"), payload=b"else/where")
    other = msgspec.structs.replace(file(b"/b", 3), payload=b"else/where")
    image = bytearray(write_image(tree(odd, other), format=1))
    assert not patch_image(image, [(odd, file(b"/a", 2))], algorithm=Algorithm.SHA256)


def test_what_is_no_image_is_refused():
    with pytest.raises(InputError, match="magic"):
        patch_image(bytearray(4096), [], algorithm=Algorithm.SHA256)


FILES = st.builds(
    file,
    st.just(b""),
    st.integers(1, 6),
    size=st.sampled_from([1, 100, 4097, 1 << 31, 1 << 32, 1 << 44]),
    mtime=st.integers(7, 10),
    uid=st.sampled_from([0, 0, 70000]),
    mode=st.sampled_from([0o644, 0o755]),
    xattrs=st.sampled_from([(), (), LABEL]),
)


@given(
    st.lists(FILES, min_size=1, max_size=6),
    st.dictionaries(st.integers(0, 5), FILES, min_size=1, max_size=3),
    st.sampled_from([0, 1]),
)
@example([file(b"")], {0: file(b"", 2)}, 1)
def test_a_patched_image_is_the_written_one_or_there_is_none(files, changes, version):
    files = [msgspec.structs.replace(one, path=b"/%d" % number) for number, one in enumerate(files)]
    new = [
        msgspec.structs.replace(one, path=b"/%d" % number)
        for number, one in sorted(changes.items())
        if number < len(files)
    ]
    patched(tree(*files), new, version=version)
