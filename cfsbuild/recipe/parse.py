"""One TOML file as marked data, within limits."""

from __future__ import annotations

import math
import os
from typing import Any, NoReturn

from cfsbuild import limits
from cfsbuild.errors import Origin, Problem, RecipeError
from cfsbuild.recipe.lines import find_lines
from cfsbuild.recipe.marked import Key, Marked, key_text


def read_text(file: str, *, limit: int = limits.TOML_BYTES, used_at: Origin | None = None) -> str:
    """Return the text of a local file of at most `limit` bytes: UTF-8, a byte order mark dropped.

    `used_at` is where the file is named. Raises `RecipeError`.
    """
    try:
        data = _read_bytes(file, limit + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        _refuse(f"cannot read {file}", details=reason or str(error), origin=used_at or Origin(file))
    if len(data) > limit:
        _refuse(f"{file} is larger than {limit >> 10} KiB", origin=used_at or Origin(file))
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        _refuse(
            f"{file} is not UTF-8 text",
            details=f"byte 0x{data[error.start]:02x} at offset {error.start} begins no character",
            origin=Origin(file, line),
        )


def _read_bytes(file: str, count: int) -> bytes:
    # O_NONBLOCK: a fifo must not hang us. Devices and fifos then give nothing or an error.
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(descriptor, "rb") as stream:  # noqa: PTH123 (a descriptor, not a path)
        return stream.read(count) or b""


def parse(text: str, file: str) -> Marked:
    """Return a TOML document as marked data whose origins name `file`.

    Raises `RecipeError` for what is not TOML or exceeds a limit: size, parts of a key, nesting; for NUL
    characters, for numbers that are not finite or do not fit 64 bits, and for dates (recipes have no use for
    them).
    """
    import tomli  # noqa: PLC0415 (a warm build parses nothing)

    if len(text) > limits.TOML_BYTES:
        _refuse(f"{file} is larger than {limits.TOML_BYTES >> 10} KiB", origin=Origin(file))
    lines = find_lines(text)
    if lines.refused:
        _refuse(lines.refused, resolution="split it up", origin=Origin(file, lines.refused_line))
    try:
        table = tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        _refuse(f"not valid TOML: {_lower_first(error.msg)}", origin=Origin(file, error.lineno))
    except RecursionError:
        _refuse("not valid TOML: values are nested too deeply", origin=Origin(file))
    except ValueError as error:  # int() refuses numbers of thousands of digits
        _refuse("not valid TOML: a number is out of range", details=str(error), origin=Origin(file))
    problems: list[Problem] = []
    marked = _mark(table, (), Origin(file, 1), lines.found, problems)
    if problems:
        raise RecipeError(tuple(problems))
    return marked


def _mark(value: Any, key: Key, above: Origin, lines: dict[Key, int], problems: list[Problem]) -> Marked:  # noqa: ANN401
    line = lines.get(key, above.line) if key else 1
    origin = Origin(above.file, line, key_text(key))
    if isinstance(value, dict):
        problems.extend(_nul(origin) for name in value if "\0" in name)
        return Marked(
            origin,
            {name: _mark(item, (*key, name), origin, lines, problems) for name, item in value.items()},
        )
    if isinstance(value, list):
        return Marked(
            origin, [_mark(item, (*key, index), origin, lines, problems) for index, item in enumerate(value)]
        )
    problem = _check_scalar(value, origin)
    if problem:
        problems.append(problem)
    return Marked(origin, value)


def _check_scalar(value: Any, origin: Origin) -> Problem | None:  # noqa: ANN401
    if isinstance(value, str):
        return _nul(origin) if "\0" in value else None
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return Problem(f"`{origin.key}` is out of range", "", "write a number of at most 64 bits", origin)
    if isinstance(value, float) and not math.isfinite(value):
        return Problem(f"`{origin.key}` is not a finite number", "", "write a plain number", origin)
    if not isinstance(value, bool | int | float):
        return Problem(f"`{origin.key}` is a date or time", "", "write it as a string, in quotes", origin)
    return None


def _nul(origin: Origin) -> Problem:
    return Problem(f"`{origin.key}` contains a NUL character", "", "remove it", origin)


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]


def _refuse(brief: str, *, details: str = "", resolution: str = "", origin: Origin) -> NoReturn:
    raise RecipeError((Problem(brief, details, resolution, origin),))
