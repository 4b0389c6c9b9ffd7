"""Kernel images: what of them is measured, and what is no such file. Whether it is right, the lab says."""

import contextlib
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_images import portable_executable

from cfsbuild.errors import CfsError, InputError, UsageError
from cfsbuild.trust import uki
from cfsbuild.trust.tpm.numbers import Alg

IMAGE = portable_executable(
    (".text", b"code", None), (".initrd", b"i", None), (".linux", b"kernel", None), (".pcrsig", b"{}", None)
)


def extended(value, *events):
    for event in events:
        value = hashlib.sha256(value + hashlib.sha256(event).digest()).digest()
    return value


def test_names_and_contents_are_measured_in_the_order_of_the_stub():
    sections = uki.measured_sections(IMAGE)
    assert {name: bytes(content) for name, content in sections.items()} == {
        ".initrd": b"i",
        ".linux": b"kernel",
    }
    booted = extended(bytes(32), b".linux\0", b"kernel", b".initrd\0", b"i")
    assert uki.predict(sections, []) == booted
    assert uki.predict(sections, ["enter-initrd"]) == extended(booted, b"enter-initrd")
    assert len(uki.predict(sections, [], Alg.SHA384)) == 48


@pytest.mark.parametrize(("size", "measured"), [(2, b"ke"), (8, b"kernel\0\0"), (0, b"")])
def test_a_section_is_as_long_as_it_is_in_memory(size, measured):
    image = portable_executable((".linux", b"kernel", size))
    assert uki.predict(uki.measured_sections(image), []) == extended(bytes(32), b".linux\0", measured)


@pytest.mark.parametrize("name", [".dtbauto", ".efifw", ".linux", ".profile"])
def test_what_is_chosen_while_booting_is_not_predicted(name):
    twice = [(name, b"x", None)] * 2
    with pytest.raises(InputError, match="only when it boots") as caught:
        uki.measured_sections(portable_executable((".linux", b"k", None), *twice))
    assert caught.value.reason == "uki-unpredictable"


WRONG = {
    "nothing": b"",
    "no PE file": b"\x7fELF" + bytes(200),
    "header behind the end": b"MZ" + bytes(58) + b"\xff\xff\xff\x7f",
    "no kernel": portable_executable((".text", b"code", None)),
    "too many sections": portable_executable(*[(".x", b"", None)] * 97),
    "section behind the end": portable_executable((".linux", b"kernel", None))[:-1],
    "huge in memory": portable_executable((".linux", b"kernel", 0xFFFFFFFF)),
    "huge together": portable_executable((".linux", b"", 1 << 28), (".a", b"", 1 << 28), (".b", b"", 1)),
    "name with a NUL": portable_executable((".linux", b"kernel", None), ("a\0b", b"", None)),
    "name that is no ASCII": portable_executable((".linux", b"kernel", None), ("é", b"", None)),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_kernel_image_is_refused(case):
    with pytest.raises(InputError) as caught:
        uki.measured_sections(WRONG[case])
    assert caught.value.reason == "uki-malformed"


def test_every_shorter_file_is_refused():
    for length in range(len(IMAGE)):
        with pytest.raises(InputError):
            uki.measured_sections(IMAGE[:length])


def test_sections_and_phases_that_are_none_are_refused():
    with pytest.raises(UsageError, match=r"\.pcrsig"):
        uki.predict({".pcrsig": b""}, [])
    for word in ("", "enter-initrd:leave-initrd", "é"):
        with pytest.raises(UsageError, match="phase"):
            uki.predict({".linux": b""}, [word])


@given(data=st.data())
def test_damage_anywhere_is_an_expected_error(data):
    at = data.draw(st.integers(0, len(IMAGE)))
    end = data.draw(st.integers(at, len(IMAGE)))
    with contextlib.suppress(CfsError):
        uki.measured_sections(IMAGE[:at] + data.draw(st.binary(max_size=20)) + IMAGE[end:])
