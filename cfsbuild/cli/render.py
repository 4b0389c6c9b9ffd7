"""Plain text for terminals: columns, sizes, times, colour, trees.

Nothing here depends on the locale or the clock.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from cfsbuild.tree import paths

RESET = "\x1b[0m"
STYLES: Mapping[str, str] = {
    "bold": "\x1b[1m",
    "dim": "\x1b[2m",
    "red": "\x1b[31m",
    "green": "\x1b[32m",
    "yellow": "\x1b[33m",
    "directory": "\x1b[1;34m",
    "symlink": "\x1b[1;36m",
    "executable": "\x1b[1;32m",
    "device": "\x1b[1;33m",
    "fifo": "\x1b[33m",
    "socket": "\x1b[1;35m",
    "setuid": "\x1b[37;41m",
}

_UNITS = "KMGTPE"


def paint(text: str, style: str, *, color: bool) -> str:
    """Return `text` in one of `STYLES`, or as it is."""
    return f"{STYLES[style]}{text}{RESET}" if color and style in STYLES and text else text


def human_size(size: int) -> str:
    """Return `size` as `ls -h` writes it: powers of 1024, rounded up, one decimal below ten."""
    if size < 1024:
        return str(size)
    scale, unit = 1024, 0
    while size > 1023 * scale and unit < len(_UNITS) - 1:
        scale *= 1024
        unit += 1
    tenths = -(-size * 10 // scale)
    if tenths < 100:
        return f"{tenths // 10}.{tenths % 10}{_UNITS[unit]}"
    return f"{-(-size // scale)}{_UNITS[unit]}"


def size_text(size: int) -> str:
    """Return `size` with its unit, for a sentence."""
    return count(size, "byte") if size < 1024 else f"{human_size(size)[:-1]} {human_size(size)[-1]}iB"


def count(number: int, noun: str, plural: str = "") -> str:
    """Return `number` and `noun`, in the plural (default: with an s) where that is right."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {plural or noun + 's'}"


def utc_time(seconds: int) -> str:
    """Return a time as `ls --time-style=long-iso` does, in UTC; outside the years 1-9999 as `@SECONDS`."""
    days, rest = divmod(seconds, 86400)
    if not -719162 <= days <= 2932896:
        return f"@{seconds}"
    year, month, day = _civil(days)
    return f"{year:04d}-{month:02d}-{day:02d} {rest // 3600:02d}:{rest // 60 % 60:02d}"


def _civil(days: int) -> tuple[int, int, int]:
    """Return the proleptic Gregorian date `days` after 1970-01-01 (datetime costs start-up time)."""
    era, day_of_era = divmod(days + 719468, 146097)
    year_of_era = (day_of_era - day_of_era // 1460 + day_of_era // 36524 - day_of_era // 146096) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    shifted = (5 * day_of_year + 2) // 153
    month = shifted + 3 if shifted < 10 else shifted - 9
    return year_of_era + era * 400 + (month <= 2), month, day_of_year - (153 * shifted + 2) // 5 + 1


def columns(rows: Sequence[Sequence[str]], *, right: Iterable[int] = (), gap: str = " ") -> list[str]:
    """Return `rows` as lines with aligned columns; those in `right` are flushed right, the last is ragged."""
    if not rows:
        return []
    flushed = frozenset(right)
    count = max(map(len, rows))
    widths = [max((len(row[i]) for row in rows if i < len(row)), default=0) for i in range(count)]
    return [gap.join(_padded(row, widths, flushed)).rstrip() for row in rows]


def _padded(row: Sequence[str], widths: Sequence[int], flushed: frozenset[int]) -> Iterator[str]:
    for index, cell in enumerate(row):
        if index in flushed:
            yield cell.rjust(widths[index])
        elif index + 1 < len(row):
            yield cell.ljust(widths[index])
        else:
            yield cell


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, right: Iterable[int] = ()) -> list[str]:
    """Return a table with a heading line, columns two spaces apart."""
    return columns([headings, *rows], right=right, gap="  ")


def branches(depths: Sequence[int]) -> list[str]:
    """Return the line art before each row of a tree, given the depths of rows in depth-first order."""
    result = [""] * len(depths)
    open_below: set[int] = set()
    for index in range(len(depths) - 1, -1, -1):
        depth = depths[index]
        if depth > 0:
            stems = "".join("│   " if level in open_below else "    " for level in range(1, depth))
            result[index] = stems + ("├── " if depth in open_below else "└── ")
        open_below = {level for level in open_below if level < depth} | {depth}
    return result


def json_path(key: str, path: bytes) -> dict[str, str]:
    """Return `path` for a JSON object: as text, and as hex in `KEY_hex` if the text does not say it all."""
    shown = paths.show(path)
    return {key: shown} if os.fsencode(shown) == path else {key: shown, f"{key}_hex": path.hex()}


def json_line(document: Any) -> bytes:  # noqa: ANN401 (anything that msgspec can encode)
    """Return `document` as one line of JSON."""
    return msgspec.json.encode(document) + b"\n"
