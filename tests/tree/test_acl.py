"""POSIX ACLs against setfacl on real files."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cfsbuild.errors import InputError
from cfsbuild.tree.acl import complete_acl, decode_acl, encode_acl, is_minimal, names_in, parse_acl, with_mode


def number(what, name):
    return int(name)


def ours(text, mode):
    acl, mode = complete_acl(parse_acl(text, number), mode)
    return (None if is_minimal(acl) else encode_acl(acl)), mode


def xattr(path, name="system.posix_acl_access"):
    try:
        return os.getxattr(path, name)
    except OSError:
        return None


def theirs(path, text, *options):
    answer = subprocess.run(["setfacl", *options, text, path], capture_output=True, text=True, check=False)
    if "not supported" in answer.stderr:
        pytest.skip(f"this file system has no ACLs: {answer.stderr}")
    assert answer.returncode == 0, answer.stderr


permissions = st.sampled_from(["r--", "-w-", "rwx", "r-x", "---", "rx", "7", "4"])
entries = st.one_of(
    st.builds("u:{}:{}".format, st.integers(0, 5), permissions),
    st.builds("group:{}:{}".format, st.integers(0, 5), permissions),
    st.builds("{}::{}".format, st.sampled_from(["u", "g", "o", "user"]), permissions),
    st.builds("m::{}".format, permissions),
)
texts = (
    st.lists(entries, min_size=1, max_size=6, unique_by=lambda e: (e[0], e.split(":")[1]))
    .filter(lambda found: any(e.split(":")[1] for e in found) or not any(e[0] == "m" for e in found))
    .map(",".join)
)


@pytest.mark.skipif(shutil.which("setfacl") is None, reason="setfacl is not installed")
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=texts, mode=st.sampled_from([0o644, 0o750, 0o4711, 0o600]))
def test_bytes_and_mode_are_those_that_setfacl_makes(tmp_path, text, mode):
    path = tmp_path / "file"
    path.write_bytes(b"")
    path.chmod(mode)
    theirs(path, text, "-m")
    value, changed = ours(text, stat.S_IFREG | mode)
    assert (value, changed) == (xattr(path), path.stat().st_mode)
    path.unlink()


@pytest.mark.skipif(shutil.which("setfacl") is None, reason="setfacl is not installed")
def test_a_default_acl_is_what_setfacl_makes(tmp_path):
    tmp_path.chmod(0o750)
    theirs(tmp_path, "u:5:rwx,g:7:r-x", "-d", "-m")
    acl, _ = complete_acl(parse_acl("u:5:rwx,g:7:r-x", number), tmp_path.stat().st_mode)
    assert encode_acl(acl) == xattr(tmp_path, "system.posix_acl_default")


@pytest.mark.skipif(shutil.which("setfacl") is None, reason="setfacl is not installed")
@pytest.mark.parametrize("mode", [0o600, 0o777, 0o751])
def test_a_later_mode_changes_the_acl_as_chmod_does(tmp_path, mode):
    path = tmp_path / "file"
    path.write_bytes(b"")
    theirs(path, "u:5:rwx", "-m")
    before = xattr(path)
    path.chmod(mode)
    assert with_mode(before, mode) == xattr(path)
    assert path.stat().st_mode & 0o777 == mode


def test_names_are_listed_so_that_they_can_be_resolved():
    assert names_in("u:app:rwx, group:adm:r,u:5:r,u::rw") == [("user", "app"), ("group", "adm")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "malformed"),
        ("u:5", "malformed"),
        ("x:5:r", "malformed"),
        ("u:5:rq", "other than r, w, x"),
        ("u:5:", "other than r, w, x"),
        ("o:5:r", "name where none can be"),
        ("u:5:r,user:5:w", "two entries"),
    ],
)
def test_what_makes_no_sense_is_refused(text, message):
    with pytest.raises(InputError, match=message):
        parse_acl(text, number)


@pytest.mark.parametrize("value", [b"", b"\2\0\0\0\1", b"\1\0\0\0"])
def test_a_damaged_value_is_refused(value):
    with pytest.raises(InputError, match="malformed"):
        decode_acl(value)
