"""Unified kernel images: their sections, and what PCR 11 is after one was booted.

systemd-stub measures each section as two events, its name with a NUL and its content, in an order of its own;
systemd then measures a word for each phase of the boot (systemd-stub(7), systemd-pcrphase.service(8)).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from cfsbuild.errors import InputError, UsageError
from cfsbuild.trust import files
from cfsbuild.trust.tpm.numbers import Alg

UKI_BYTES = 1 << 29

MEASURED = (
    ".linux",
    ".osrel",
    ".cmdline",
    ".initrd",
    ".ucode",
    ".splash",
    ".dtb",
    ".uname",
    ".sbat",
    ".pcrpkey",
    ".profile",
    ".hwids",
)
"""In the order in which they are measured. `.pcrsig` is not: it is made of the result."""

PHASES = ("enter-initrd", "leave-initrd", "sysinit", "ready")
"""The words that systemd measures on the way up."""

BANKS = {Alg.SHA1: "sha1", Alg.SHA256: "sha256", Alg.SHA384: "sha384", Alg.SHA512: "sha512"}

_CHOSEN_AT_BOOT = frozenset({".dtbauto", ".efifw"})
_SECTIONS = 96
_DOS_BYTES = 64
_OPTIONAL_MAGIC = frozenset({0x10B, 0x20B})


def predict(
    sections: Mapping[str, bytes | memoryview], phases: Sequence[str], bank: Alg = Alg.SHA256
) -> bytes:
    """Return the value of PCR 11 in a bank, when these sections were booted and these phases were reached.

    Raises `UsageError` (reason `section`, `phase`) for sections that are not measured, and no words.
    """
    unknown = set(sections) - set(MEASURED)
    if unknown:
        raise UsageError(f"the section {min(unknown)!r} is not measured", reason="section")
    if any(not word or not word.isascii() or ":" in word for word in phases):
        raise UsageError("a boot phase is an ASCII word", reason="phase")
    algorithm = BANKS[bank]
    value = bytes(hashlib.new(algorithm).digest_size)
    for name in MEASURED:
        if name in sections:
            for event in (name.encode() + b"\0", sections[name]):
                value = _extend(algorithm, value, event)
    for word in phases:
        value = _extend(algorithm, value, word.encode())
    return value


def read(path: Path) -> bytes:
    """Return a kernel image that can be measured. Raises as `measured_sections`, naming the file."""
    data = files.read_regular(path, limit=UKI_BYTES)
    try:
        measured_sections(data)
    except InputError as error:
        raise InputError(f"{path}: {error.brief}", details=error.details, reason=error.reason) from error
    return data


def measured_sections(data: bytes) -> dict[str, bytes | memoryview]:
    """Return what is measured of a UKI, a PE file: contents of sections by name, as they lie in memory.

    Raises `InputError`, reason `uki-malformed` for what is no such file, `uki-unpredictable` where the
    machine chooses among sections while it boots.
    """
    found: dict[str, bytes | memoryview] = {}
    for name, content in _sections(data):
        if name in _CHOSEN_AT_BOOT or (name in found and name in MEASURED):
            raise InputError(
                "what this kernel image measures is known only when it boots",
                details=f"it has {name} to choose from",
                resolution="build an image for one kind of machine, or seal to the values that you measured",
                reason="uki-unpredictable",
            )
        if name in MEASURED:
            found[name] = content
    if ".linux" not in found:
        raise _malformed("there is no section .linux")
    return found


def _extend(algorithm: str, value: bytes, event: bytes | memoryview) -> bytes:
    return hashlib.new(algorithm, value + hashlib.new(algorithm, event).digest()).digest()


def _sections(data: bytes) -> list[tuple[str, bytes | memoryview]]:
    """Return names and contents of a PE file's sections, in its order (PE format: COFF header and table)."""
    if len(data) > UKI_BYTES:
        raise _malformed(f"more than {UKI_BYTES} bytes")
    if data[:2] != b"MZ" or len(data) < _DOS_BYTES:
        raise _malformed("it is no PE file")
    header = int.from_bytes(data[60:64], "little")
    if data[header : header + 4] != b"PE\0\0" or len(data) < header + 26:
        raise _malformed("it is no PE file")
    count = int.from_bytes(data[header + 6 : header + 8], "little")
    optional = int.from_bytes(data[header + 20 : header + 22], "little")
    if int.from_bytes(data[header + 24 : header + 26], "little") not in _OPTIONAL_MAGIC:
        raise _malformed("it is an object file")
    table = header + 24 + optional
    if count > _SECTIONS or table + 40 * count > len(data):
        raise _malformed(f"its {count} sections are more than {_SECTIONS}, or end behind the file")
    view, budget, sections = memoryview(data), UKI_BYTES, []
    for at in range(table, table + 40 * count, 40):
        name, content = _section(view, at, budget)
        budget -= len(content)
        sections.append((name, content))
    return sections


def _section(data: memoryview, at: int, budget: int) -> tuple[str, bytes | memoryview]:
    """Return the section whose header is at `at`: the bytes of the file, up to or with zeros to its size."""
    raw_name = bytes(data[at : at + 8]).rstrip(b"\0")
    if not raw_name.isascii() or b"\0" in raw_name:
        raise _malformed("the name of a section is not ASCII")
    size, _, in_file, start = (
        int.from_bytes(data[place : place + 4], "little") for place in range(at + 8, at + 24, 4)
    )
    if in_file and start + in_file > len(data):
        raise _malformed(f"section {raw_name.decode()} ends behind the file")
    if size > budget:
        raise _malformed(f"section {raw_name.decode()} has {size} bytes in memory")
    content = data[start : start + min(size, in_file)]
    if size <= in_file:
        return raw_name.decode(), content
    return raw_name.decode(), bytes(content) + bytes(size - in_file)


def _malformed(details: str) -> InputError:
    return InputError("this is no unified kernel image", details=details, reason="uki-malformed")
