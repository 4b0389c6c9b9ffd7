"""File capabilities against setcap on real files."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cfsbuild.errors import InputError
from cfsbuild.tree.capabilities import NAMES, encode_capabilities

needs_setcap = pytest.mark.skipif(
    shutil.which("setcap") is None or os.geteuid() != 0, reason="setcap is not installed, or we are not root"
)


def theirs(directory, text, *options):
    """Return what setcap writes; None if it refuses."""
    path = directory / "file"
    path.write_bytes(b"")
    answer = subprocess.run(["setcap", *options, text, path], capture_output=True, text=True, check=False)
    if "not supported" in answer.stderr:
        pytest.skip(f"this file system has no capabilities: {answer.stderr}")
    value = os.getxattr(path, "security.capability") if answer.returncode == 0 else None
    path.unlink()
    return value


@needs_setcap
@pytest.mark.parametrize(
    "text",
    [
        "cap_net_raw+ep",
        "cap_net_raw,cap_net_admin+ep",
        "cap_net_raw=ep cap_chown+ep",
        "all=p",
        "=p",
        "all=eip cap_sys_admin-eip",
        "cap_bpf,cap_checkpoint_restore+i",
        "CAP_NET_RAW+p",
        "cap_chown=p+i",
    ],
)
def test_the_bytes_are_those_that_setcap_writes(tmp_path, text):
    assert encode_capabilities(text) == theirs(tmp_path, text)


@needs_setcap
def test_a_root_id_gives_revision_3(tmp_path):
    value = theirs(tmp_path, "cap_net_raw+ep", "-n", "100000")
    assert encode_capabilities("cap_net_raw+ep", rootid=100000) == value
    assert len(value) == 24


clauses = st.builds(
    lambda names, op, flags: f"{names}{op}{flags}",
    st.one_of(
        st.just("all"),
        st.lists(st.sampled_from(["cap_" + name for name in NAMES]), min_size=1, max_size=3).map(",".join),
    ),
    st.sampled_from("=+-"),
    st.sampled_from(["e", "i", "p", "ep", "eip", "ip"]),
)


@needs_setcap
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.lists(clauses, min_size=1, max_size=3).map(" ".join))
def test_random_clauses_agree_with_setcap(tmp_path, text):
    try:
        ours = encode_capabilities(text)
    except InputError:
        ours = None
    expected = theirs(tmp_path, text)
    if ours is None and expected is not None:
        # setcap accepts a grant of nothing; a recipe that says so is mistaken.
        assert not any(expected[4:])
        return
    assert ours == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "grant nothing"),
        ("cap_net_raw", "none of = + -"),
        ("cap_net_rw+ep", "no capability 'cap_net_rw'"),
        ("cap_net_raw+x", "other than e, i and p"),
        ("+ep", "names no capability"),
        ("cap_net_raw+", "no flag after"),
        ("cap_net_raw+ep cap_chown+p", "only some of them effective"),
        ("cap_net_raw-p", "grant nothing"),
        ("cap_net_raw,+p", "no capability ''"),
    ],
)
def test_what_makes_no_sense_is_refused(text, message):
    with pytest.raises(InputError, match=message.replace("+", r"\+")):
        encode_capabilities(text)


def test_a_near_miss_is_suggested():
    with pytest.raises(InputError) as caught:
        encode_capabilities("cap_net_rw+ep")
    assert caught.value.resolution == "did you mean cap_net_raw?"
