"""chmod(1)'s symbolic modes: `u=rwX,go-w`."""

from __future__ import annotations

import stat

from cfsbuild.errors import InputError
from cfsbuild.recipe.types import parse_mode

_WHO = {"u": 0o4700, "g": 0o2070, "o": 0o1007, "a": 0o7777}
_SHIFTS = {"u": 6, "g": 3, "o": 0}
_BITS = {"r": 0o444, "w": 0o222, "x": 0o111, "s": 0o6000, "t": 0o1000}
_OPERATORS = "+-="


def apply_mode(text: str, mode: int) -> int:
    """Return the st_mode that `text` makes of `mode`; raises `InputError` for a malformed text.

    Octal digits set all bits. Symbolic clauses change some, as chmod(1) does with no umask; so `=` leaves the
    setuid and setgid bits of a directory alone unless `s` says otherwise.
    """
    if text[:1].isdecimal():
        try:
            return stat.S_IFMT(mode) | parse_mode(text)
        except ValueError as error:
            raise InputError(f"mode {error}") from error
    bits = stat.S_IMODE(mode)
    for clause in text.split(","):
        start = next((index for index, char in enumerate(clause) if char in _OPERATORS), -1)
        who = clause[: max(start, 0)]
        if start < 0 or set(who) - set(_WHO):
            raise InputError(
                f"mode {text!r} is neither octal nor symbolic", resolution='write "0755" or "u=rwX,go=rX"'
            )
        mask = 0
        for char in who or "a":
            mask |= _WHO[char]
        rest = clause[start:]
        while rest:
            length = next((index for index, char in enumerate(rest[1:], 1) if char in _OPERATORS), len(rest))
            bits = _change(bits, mask, rest[0], rest[1:length], directory=stat.S_ISDIR(mode), text=text)
            rest = rest[length:]
    return stat.S_IFMT(mode) | bits


def _change(bits: int, mask: int, operator: str, what: str, *, directory: bool, text: str) -> int:  # noqa: PLR0913
    value = _value(bits, what, directory=directory, text=text) & mask
    if operator == "+":
        return bits | value
    if operator == "-":
        return bits & ~value
    kept = 0o6000 if directory and "s" not in what else 0
    return bits & (~mask | kept) | value


def _value(bits: int, what: str, *, directory: bool, text: str) -> int:
    if what in _SHIFTS:
        same = bits >> _SHIFTS[what] & 7
        return same << 6 | same << 3 | same
    value = 0
    for char in what:
        if char == "X":
            value |= 0o111 if directory or bits & 0o111 else 0
        elif char in _BITS:
            value |= _BITS[char]
        else:
            raise InputError(f"mode {text!r} has {char!r}, which is none of r, w, x, X, s and t")
    return value
