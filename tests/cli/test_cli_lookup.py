"""Finding names in an image, against the kernel's own path resolution; comparing bytes."""

import ctypes
import errno
import os
import stat
import struct
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cfsbuild.cli import facts, lookup
from cfsbuild.errors import CfsError, InputError, UsageError
from cfsbuild.tree.dump import DumpEntry

links = st.dictionaries(
    st.sampled_from(["a/x", "a/y", "b/x", "b/c/x", "x", "y"]),
    st.builds(
        str.__add__,
        st.sampled_from(["", "/"]),
        st.lists(st.sampled_from(["a", "b", "c", "x", "y", "..", "."]), min_size=1, max_size=4).map("/".join),
    ),
    max_size=6,
)


def entry(path, mode, target=None):
    return DumpEntry(path, 0, mode, 1, 0, 0, 0, 0, 0, target)


OPENAT2 = 437
RESOLVE_IN_ROOT = 0x10


def kernel_answer(root, path):
    """Return where the kernel gets by `path` if `root` were the root directory (openat2); None if nowhere."""
    how = struct.pack("=QQQ", os.O_PATH | os.O_CLOEXEC, 0, RESOLVE_IN_ROOT)
    libc = ctypes.CDLL(None, use_errno=True)
    directory = os.open(root, os.O_PATH | os.O_DIRECTORY)
    try:
        error = errno.EAGAIN  # a rename anywhere on the machine, while `..` is resolved
        while error == errno.EAGAIN:
            fd = libc.syscall(OPENAT2, directory, os.fsencode(path), how, len(how))
            error = ctypes.get_errno() if fd < 0 else 0
        if error:
            if error == errno.ENOSYS:
                pytest.skip("this kernel has no openat2")
            assert error in {errno.ENOENT, errno.ELOOP}, os.strerror(error)
            return None
        try:
            found = Path(f"/proc/self/fd/{fd}").readlink()
        finally:
            os.close(fd)
    finally:
        os.close(directory)
    return "/" if found == root else "/" + str(found.relative_to(root))


@given(links=links, asked=st.lists(st.sampled_from(["a", "b", "c", "x", "y", ".."]), min_size=1, max_size=5))
@settings(max_examples=100, deadline=None)
def test_names_are_found_as_the_kernel_finds_them(links, asked):
    directories = ("a", "b", "b/c")
    entries = lookup.by_path(
        [
            entry(b"/", stat.S_IFDIR | 0o755),
            *(entry(b"/" + os.fsencode(path), stat.S_IFDIR | 0o755) for path in directories),
            *(
                entry(b"/" + os.fsencode(at), stat.S_IFLNK | 0o777, os.fsencode(to))
                for at, to in links.items()
            ),
        ]
    )
    path = "/" + "/".join(asked)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary).resolve()
        for name in directories:
            (root / name).mkdir()
        for at, to in links.items():
            (root / at).symlink_to(to)
        expected = kernel_answer(root, path)
    try:
        found = lookup.locate(entries, path.encode(), image="i", follow=True).path.decode()
    except CfsError:
        found = None
    assert found == expected


def test_absolute_links_start_at_the_image_and_parents_of_the_root_are_the_root():
    entries = lookup.by_path(
        [
            entry(b"/", stat.S_IFDIR | 0o755),
            entry(b"/etc", stat.S_IFDIR | 0o755),
            entry(b"/etc/l", stat.S_IFLNK | 0o777, b"/../../etc/f"),
            entry(b"/etc/f", stat.S_IFREG | 0o644),
        ]
    )
    assert lookup.locate(entries, b"/etc/l", image="i", follow=True).path == b"/etc/f"
    assert lookup.locate(entries, b"/etc/l", image="i", follow=False).path == b"/etc/l"


def test_as_many_links_are_followed_as_by_linux_and_no_more():
    chain = [entry(b"/%d" % number, stat.S_IFLNK | 0o777, b"%d" % (number + 1)) for number in range(41)]
    entries = lookup.by_path([entry(b"/", stat.S_IFDIR | 0o755), *chain, entry(b"/41", stat.S_IFREG | 0o644)])
    assert lookup.locate(entries, b"/1", image="i", follow=True).path == b"/41"
    with pytest.raises(UsageError, match="too many levels"):
        lookup.locate(entries, b"/0", image="i", follow=True)


@pytest.mark.parametrize("target", [b"/h", b"/gone", b"/g"])
def test_hard_links_that_lead_nowhere_are_refused(target):
    loop = [
        entry(b"/", stat.S_IFDIR | 0o755),
        DumpEntry(b"/g", 0, stat.S_IFREG | 0o644, 1, 0, 0, 0, 0, 0, hardlink=b"/h"),
        DumpEntry(b"/h", 0, stat.S_IFREG | 0o644, 1, 0, 0, 0, 0, 0, hardlink=target),
    ]
    with pytest.raises(InputError, match="leads nowhere"):
        lookup.by_path(loop)


def test_a_name_that_comes_twice_is_refused():
    with pytest.raises(InputError, match="appears twice"):
        lookup.by_path([entry(b"/", stat.S_IFDIR | 0o755)] * 2)


@pytest.mark.parametrize(
    ("text", "path"),
    [("etc", b"/etc"), ("/etc//x/", b"/etc/x"), ("./a/../b", b"/a/../b"), ("../..", b"/../.."), ("", b"/")],
)
def test_arguments_are_paths_from_the_root(text, path):
    assert lookup.argument_path(text) == path


@given(a=st.binary(max_size=300), b=st.binary(max_size=300), same=st.binary(max_size=300))
def test_the_first_different_byte_is_the_first(a, b, same):
    a, b = same + a, same + b
    offset = facts.first_different_byte(a, b)
    if offset is None:
        assert a == b
        return
    assert a[:offset] == b[:offset]
    assert a[offset : offset + 1] != b[offset : offset + 1]
