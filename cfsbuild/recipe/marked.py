"""Recipe values that know where they were written."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from cfsbuild.errors import Origin

Key = tuple[str | int, ...]
"""A key path: names of tables and keys, indexes of arrays."""

COMMAND_LINE = "command line"
"""Stands for the file in the origin of a variable given with `-o KEY=VALUE`."""

ENVIRONMENT = "environment"
"""Stands for the file in the origin of a value that an environment variable gave."""

_BARE = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")


class Marked(msgspec.Struct, frozen=True):
    """A TOML value with its origin.

    `data` is `dict[str, Marked]` for a table, `list[Marked]` for an array, else the plain scalar.
    `rendered` says that a template made the string, so it may stand for a number or a boolean; `data` is None
    when that template failed.
    """

    origin: Origin
    data: Any
    rendered: bool = False

    def get(self, key: str) -> Marked | None:
        """Return the value at `key` of a table; None when there is none or this is no table."""
        return self.data.get(key) if isinstance(self.data, dict) else None


def mark(value: Any, origin: Origin) -> Marked:  # noqa: ANN401 (any plain data)
    """Return plain data as marked data, all of it written at `origin`."""
    if isinstance(value, dict):
        return Marked(origin, {key: mark(item, origin) for key, item in value.items()})
    if isinstance(value, list):
        return Marked(origin, [mark(item, origin) for item in value])
    return Marked(origin, value)


def plain(value: Marked) -> Any:  # noqa: ANN401 (any plain data)
    """Return the value without its origins: a fresh copy made of dict, list, str, int, float and bool."""
    if isinstance(value.data, dict):
        return {key: plain(item) for key, item in value.data.items()}
    if isinstance(value.data, list):
        return [plain(item) for item in value.data]
    return value.data


def scalar_text(data: str | float) -> str:
    """Return a scalar as text, booleans as TOML writes them; strings stay as they are."""
    return str(data).lower() if isinstance(data, bool) else str(data)


def children(value: Marked) -> Iterator[tuple[str | int, Marked]]:
    """Yield the entries of a table or array; nothing for a scalar."""
    if isinstance(value.data, dict):
        yield from value.data.items()
    elif isinstance(value.data, list):
        yield from enumerate(value.data)


def origins(value: Marked) -> dict[str, Origin]:
    """Return the origin of every key path in `value`, paths joined by dots; `` is the value itself."""
    result: dict[str, Origin] = {}
    _collect(value, "", result)
    return result


def _collect(value: Marked, path: str, result: dict[str, Origin]) -> None:
    result[path] = value.origin
    for key, child in children(value):
        _collect(child, f"{path}.{key}" if path else str(key), result)


def key_text(key: Key) -> str:
    """Return a key path as TOML writes it: parts that are not bare are quoted, indexes are plain numbers."""
    return ".".join(
        part if isinstance(part, str) and part and _BARE.issuperset(part) else _part(part) for part in key
    )


def _part(part: str | int) -> str:
    return str(part) if isinstance(part, int) else quoted(part)


def quoted(text: str) -> str:
    """Return a string as TOML's basic string."""
    return f'"{escaped(text)}"'


def escaped(text: str) -> str:
    """Return what stands between the quotes of a basic string: JSON's escapes are TOML's; DEL is one more."""
    return msgspec.json.encode(text).decode()[1:-1].replace("\x7f", "\\u007f")
