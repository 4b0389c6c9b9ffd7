"""Plain data as TOML text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cfsbuild.recipe.marked import escaped, key_text, quoted

_LONG = 100


def value(data: Any) -> str:  # noqa: ANN401 (any plain data)
    """Return a value as TOML on one line, or as a multi-line string or array where that reads better.

    None has no form in TOML: raises `TypeError` for it, as for everything else that is no plain data.
    """
    if isinstance(data, bool):
        return "true" if data else "false"
    if isinstance(data, str):
        return _lines(data) if "\n" in data.rstrip("\n") else quoted(data)
    if isinstance(data, int | float):
        return repr(data)
    if isinstance(data, list | tuple):
        return _array([_inline(item) for item in data])
    return _inline(data)


def _inline(data: Any) -> str:  # noqa: ANN401
    if isinstance(data, Mapping):
        pairs = ", ".join(f"{key_text((key,))} = {_inline(item)}" for key, item in data.items())
        return f"{{ {pairs} }}" if pairs else "{}"
    if isinstance(data, list | tuple):
        return f"[{', '.join(_inline(item) for item in data)}]"
    if isinstance(data, str):
        return quoted(data)
    if isinstance(data, bool | int | float):
        return value(data)
    raise TypeError(f"{type(data).__name__} has no form in TOML")


def _array(items: list[str]) -> str:
    line = f"[{', '.join(items)}]"
    if len(line) <= _LONG or len(items) < 2:
        return line
    return "[\n" + "".join(f"    {item},\n" for item in items) + "]"


def _lines(text: str) -> str:
    """Return a string of several lines as a multi-line string, whose first newline does not count."""
    *lines, last = text.split("\n")
    ending = escaped(last) if last.endswith('"') else _line(last)
    return '"""\n' + "".join(_line(line) + "\n" for line in lines) + ending + '"""'


def _line(text: str) -> str:
    """Return one line of a multi-line string: quotes may stand there as they are, unless they end it."""
    return escaped(text) if '"""' in text else escaped(text).replace('\\"', '"')


def table(name: tuple[str, ...], data: Mapping[str, Any], notes: Mapping[str, str]) -> Iterator[str]:
    """Yield the lines of a table; `notes` are comments for keys, and for the table itself under ``."""
    yield f"[{key_text(name)}]{_comment(notes.get('', ''))}"
    for key, item in data.items():
        text = value(item)
        first, *rest = text.split("\n")
        comment = _comment(notes.get(key, ""))
        if rest and comment:
            # Inside of a string there is no room for a comment.
            yield comment.strip()
            comment = ""
        yield f"{key_text((key,))} = {first}{comment}"
        yield from rest


def _comment(text: str) -> str:
    return f"  # {text}" if text else ""
