"""SELinux labels by path: a `file_contexts` file as selabel_file(5) describes it.

Of the lines that match a path and its type, one without regular-expression characters wins over those with;
among the others the last one wins, as in libselinux before 3.8. Later versions prefer the longest fixed
beginning, which is the same for files in the order in which policy tools write them.

The expressions are Python's, which for all that policies use means what PCRE means. An expression is not run
in bounded time: a policy is trusted as the rest of the recipe is.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterable

import msgspec

from cfsbuild.errors import InputError, Origin

XATTR = b"security.selinux"

_TYPES = {
    "--": stat.S_IFREG,
    "-d": stat.S_IFDIR,
    "-l": stat.S_IFLNK,
    "-c": stat.S_IFCHR,
    "-b": stat.S_IFBLK,
    "-p": stat.S_IFIFO,
    "-s": stat.S_IFSOCK,
}
_META = frozenset(b".^$?*+|[({")
_QUANTIFIERS = frozenset(b"?*+{")
_POSIX_CLASSES = {
    b"[:alpha:]": b"a-zA-Z",
    b"[:digit:]": b"0-9",
    b"[:alnum:]": b"a-zA-Z0-9",
    b"[:lower:]": b"a-z",
    b"[:upper:]": b"A-Z",
    b"[:xdigit:]": b"0-9a-fA-F",
    b"[:space:]": b" \\t-\\r",
    b"[:word:]": b"a-zA-Z0-9_",
}
_NONE = b"<<none>>"


class Spec(msgspec.Struct, frozen=True):
    """One line. `type` is a file type or 0 for all; `label` is None for `<<none>>`; higher `rank` wins."""

    regex: re.Pattern[bytes]
    fixed: bytes
    type: int
    label: bytes | None
    rank: tuple[bool, int]


class FileContexts:
    """Lines of `file_contexts` files, found by the directory that their fixed beginning names."""

    def __init__(self, specs: Iterable[Spec]) -> None:
        self._by_directory: dict[bytes, list[Spec]] = {}
        for spec in sorted(specs, key=lambda spec: spec.rank, reverse=True):
            directory = spec.fixed[: spec.fixed.rfind(b"/") + 1]
            self._by_directory.setdefault(directory, []).append(spec)

    def label(self, path: bytes, mode: int) -> bytes | None:
        """Return the label, without a final NUL, of a path with an st_mode; None if it is to have none."""
        kind = stat.S_IFMT(mode)
        best: Spec | None = None
        end = 0
        while True:
            for spec in self._by_directory.get(path[:end], ()):
                if best is not None and spec.rank < best.rank:
                    break
                if (
                    (not spec.type or spec.type == kind)
                    and path.startswith(spec.fixed)
                    and spec.regex.fullmatch(path)
                ):
                    best = spec
                    break
            end = path.find(b"/", end) + 1
            if not end:
                return best.label if best is not None else None


def parse_file_contexts(data: bytes, file: str, *, first: int = 0) -> list[Spec]:
    """Return the lines of a file; `first` is how many lines went before in other files.

    Raises `InputError`, with the line as origin, for one that is malformed.
    """
    specs: list[Spec] = []
    for number, line in enumerate(data.split(b"\n"), 1):
        fields = line.split()
        if not fields or fields[0].startswith(b"#"):
            continue
        specs.append(_spec(fields, Origin(file, number), first + len(specs)))
    return specs


def _spec(fields: list[bytes], origin: Origin, position: int) -> Spec:
    kind = 0
    if len(fields) == 3:
        kind = _TYPES.get(fields[1].decode("ascii", "replace"), -1)
    if len(fields) not in {2, 3} or kind < 0:
        raise InputError(
            "line is not: expression, file type if any, label",
            details=b" ".join(fields).decode("utf-8", "replace"),
            resolution="file types are " + " ".join(_TYPES),
            origin=origin,
        )
    pattern, label = fields[0], fields[-1]
    try:
        regex = re.compile(_python_regex(pattern), re.DOTALL)
    except re.error as error:
        raise InputError(
            f"regular expression {pattern.decode('utf-8', 'replace')!r}: {error.msg}", origin=origin
        ) from error
    fixed, literal = _fixed(pattern)
    return Spec(regex, fixed, kind, None if label == _NONE else label, (literal, position))


def _python_regex(pattern: bytes) -> bytes:
    """Return `pattern` with what PCRE and Python read differently inside sets written so that both agree."""
    result = bytearray()
    index = 0
    while index < len(pattern):
        byte = pattern[index : index + 1]
        if byte == b"\\":
            result += pattern[index : index + 2]
            index += 2
            continue
        result += byte
        index += 1
        if byte == b"[":
            start = index + (2 if pattern[index : index + 1] == b"^" else 1)
            index = _copy_set(pattern, index, start, result)
    return bytes(result)


def _copy_set(pattern: bytes, index: int, start: int, result: bytearray) -> int:
    """Copy a set's members and its end; a bracket before `start` is a member."""
    while index < len(pattern):
        name = next((name for name in _POSIX_CLASSES if pattern.startswith(name, index)), None)
        if name is not None:
            result += _POSIX_CLASSES[name]
            index += len(name)
            continue
        byte = pattern[index : index + 1]
        width = 2 if byte == b"\\" else 1
        if byte in {b"[", b"&", b"|", b"~"} or (byte == b"]" and index < start):
            result += b"\\"
        result += pattern[index : index + width]
        index += width
        if byte == b"]" and index > start:
            break
    return index


def _fixed(pattern: bytes) -> tuple[bytes, bool]:
    """Return (what every matching path begins with, whether that is the whole expression)."""
    if b"|" in pattern:
        # An alternative at the top level could begin otherwise; policies have it only in brackets.
        depth = 0
        for byte in pattern:
            depth += (byte == 0x28) - (byte == 0x29)
            if byte == 0x7C and not depth:
                return b"", False
    fixed = bytearray()
    index = 0
    while index < len(pattern):
        byte = pattern[index]
        if byte in _META:
            if byte in _QUANTIFIERS:
                del fixed[-1:]
            return bytes(fixed), False
        if byte == 0x5C:
            index += 1
            if index == len(pattern) or chr(pattern[index]).isalnum():
                return bytes(fixed), False
            byte = pattern[index]
        fixed.append(byte)
        index += 1
    return bytes(fixed), True
