"""Labels by path against libselinux itself, called through ctypes."""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import stat

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cfsbuild.errors import InputError
from cfsbuild.tree.selinux import FileContexts, parse_file_contexts


class Option(ctypes.Structure):
    _fields_ = [("type", ctypes.c_int), ("value", ctypes.c_char_p)]


def library():
    name = ctypes.util.find_library("selinux")
    if name is None:
        return None
    found = ctypes.CDLL(name, use_errno=True)
    found.selabel_open.restype = ctypes.c_void_p
    found.selabel_lookup_raw.argtypes = [
        ctypes.c_void_p,
        ctypes.POINTER(ctypes.c_char_p),
        ctypes.c_char_p,
        ctypes.c_int,
    ]
    found.selabel_close.argtypes = [ctypes.c_void_p]
    return found


LIBRARY = library()
needs_library = pytest.mark.skipif(LIBRARY is None, reason="libselinux is not installed")


def theirs(file, queries):
    option = Option(3, os.fsencode(file))  # SELABEL_OPT_PATH
    handle = LIBRARY.selabel_open(0, ctypes.byref(option), 1)
    assert handle, os.strerror(ctypes.get_errno())
    answers = []
    for path, mode in queries:
        label = ctypes.c_char_p()
        failed = LIBRARY.selabel_lookup_raw(handle, ctypes.byref(label), path, mode)
        answers.append(None if failed else label.value)
    LIBRARY.selabel_close(handle)
    return answers


POLICY = rb"""
# a comment
/.*                                 system_u:object_r:default_t:s0
/                           -d      system_u:object_r:root_t:s0
/a|/b                               system_u:object_r:either_t:s0
/usr(/.*)?                          system_u:object_r:usr_t:s0
/usr/bin(/.*)?                      system_u:object_r:bin_t:s0
/usr/bin/su                 --      system_u:object_r:su_exec_t:s0
/usr/bin/s.*                -l      system_u:object_r:link_t:s0
/usr/lib(64)?/x\.so(\.[0-9]+)*      system_u:object_r:lib_t:s0
/dev/[^/]*                  -c      system_u:object_r:device_t:s0
/dev/tty[[:digit:]]+        -c      system_u:object_r:tty_t:s0
/dev/sd[a-z&|~[]?           -b      system_u:object_r:disk_t:s0
/run/.*                             <<none>>
/var/run/.*\.pid            --      system_u:object_r:pid_t:s0
/home/[^/]+                 -d      system_u:object_r:home_t:s0
/home/[^/]+/.+                      system_u:object_r:user_home_t:s0
/usr/b?in/exact                     system_u:object_r:exact_t:s0
"""
PATHS = [
    b"/", b"/a", b"/b", b"/c", b"/usr", b"/usrx", b"/usr/bin", b"/usr/bin/su", b"/usr/bin/sudo", b"/usr/lib/x.so",
    b"/usr/lib64/x.so.1.2", b"/usr/lib/xyso", b"/dev/null", b"/dev/tty1", b"/dev/tty", b"/dev/sda", b"/dev/sd[",
    b"/dev/sd", b"/dev/sdA", b"/run/x", b"/run", b"/var/run/x.pid", b"/home/me", b"/home/me/x/y", b"/usr/in/exact",
    b"/usr/bin/exact", b"/new\nline",
]  # fmt: skip
TYPES = [stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK]


@needs_library
def test_labels_are_those_of_libselinux_for_every_path_and_type(tmp_path):
    file = tmp_path / "file_contexts"
    file.write_bytes(POLICY)
    queries = [(path, kind | 0o644) for path in PATHS for kind in TYPES]
    ours = FileContexts(parse_file_contexts(POLICY, "f"))
    assert [ours.label(*query) for query in queries] == theirs(file, queries)


atoms = st.sampled_from(["a", "b", "/", "a", "b", ".*", "(/.*)?", "[ab]", "b?", "a+", r"\.", "[^/]*"])
lines = st.builds(
    "/{} {} t{}".format,
    st.lists(atoms, max_size=5).map("".join),
    st.sampled_from(["", "--", "-d"]),
    st.integers(0, 9),
)


@needs_library
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lines=st.lists(lines, min_size=1, max_size=8, unique_by=lambda line: tuple(line.split()[:-1])),
    names=st.lists(st.text("ab./", max_size=6).map(lambda text: "/" + text), min_size=1, max_size=20),
)
def test_random_files_agree_with_libselinux(tmp_path, lines, names):
    text = "".join(line + "\n" for line in lines).encode()
    file = tmp_path / "file_contexts"
    file.write_bytes(text)
    queries = [
        (name.encode(), kind)
        for name in names
        if name == "/" or ("//" not in name and not name.endswith("/"))
        for kind in (stat.S_IFREG, stat.S_IFDIR)
    ]
    ours = FileContexts(parse_file_contexts(text, "f"))
    assert [ours.label(*query) for query in queries] == theirs(file, queries)


@pytest.mark.parametrize("line", ["/a", "/a -x l", "/a -- l more", "/a[ l", "/a( l"])
def test_a_malformed_line_is_named(line):
    with pytest.raises(InputError) as caught:
        parse_file_contexts(b"/x t\n" + line.encode() + b"\n", "policy/file_contexts")
    assert str(caught.value.origin) == "policy/file_contexts:2"
