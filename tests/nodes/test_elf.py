"""What an ELF file says of what it loads, as readelf reads it; damaged ones are refused."""

import contextlib
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfsbuild.errors import InputError
from cfsbuild.nodes.elf import read_elf


def elf(path):
    with path.open("rb") as file:
        return read_elf(file.fileno())


def test_what_an_elf_file_says_is_what_readelf_says():
    if shutil.which("readelf") is None:
        pytest.skip("readelf is not installed")
    for program in (Path(sys.executable).resolve(), Path("/bin/bash"), Path("/bin/busybox")):
        told = subprocess.run(["readelf", "-dlW", program], capture_output=True, text=True, check=True).stdout
        found = elf(program)
        assert list(found.needed) == re.findall(r"\(NEEDED\).*\[(.*)\]", told)
        assert ":".join(found.runpath) == "".join(re.findall(r"\(RUNPATH\).*\[(.*)\]", told))
        assert found.interpreter == "".join(re.findall(r"interpreter: (.*)\]", told))


def test_what_is_no_elf_file_is_none(tmp_path):
    (tmp_path / "text").write_text("#!/bin/sh\n")
    assert elf(tmp_path / "text") is None


HEAD = (
    b"\x7fELF\x02\x01\x01"
    + bytes(9)
    + struct.pack("<HHI", 3, 62, 1)
    + bytes(8)
    + struct.pack("<QQIHHHHHH", 64, 0, 0, 64, 56, 1, 64, 0, 0)
)


@pytest.mark.parametrize(
    "data",
    [
        b"\x7fELF",
        b"\x7fELF\x09\x01" + bytes(80),
        HEAD,
        HEAD + struct.pack("<IIQQQQQQ", 2, 0, 1 << 63, 0, 0, 16, 16, 8),
        HEAD + struct.pack("<IIQQQQQQ", 2, 0, 64, 0, 0, 1 << 40, 1 << 40, 8),
        HEAD + struct.pack("<IIQQQQQQ", 3, 0, 0, 0, 0, 4, 4, 1),
        HEAD + struct.pack("<IIQQQQQQ", 2, 0, 120, 0, 0, 32, 32, 8) + struct.pack("<QQQQ", 5, 9, 0, 0),
    ],
    ids=["head", "class", "segments", "offset", "size", "endless-name", "strings-nowhere"],
)
def test_a_damaged_elf_file_is_refused(tmp_path, data):
    (tmp_path / "bad").write_bytes(data)
    with pytest.raises(InputError, match="ELF file is damaged"):
        elf(tmp_path / "bad")


@given(st.data())
def test_no_damage_does_more_than_be_refused(tmp_path_factory, data):
    original = Path("/usr/bin/fsverity") if Path("/usr/bin/fsverity").exists() else Path("/bin/sh")
    content = bytearray(original.read_bytes()[: 1 << 14])
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(4, 1023))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(content[: data.draw(st.integers(4, len(content)))])
    with contextlib.suppress(InputError):
        elf(path)
