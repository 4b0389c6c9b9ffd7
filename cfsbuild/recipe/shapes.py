"""msgspec types as a recipe's author sees them: in words, as examples, and which values have their shape."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import inspect

from cfsbuild.recipe.marked import Marked

TABLES = (inspect.StructType, inspect.DictType)
ARRAYS = (inspect.CollectionType, inspect.TupleType)


def bare(wanted: inspect.Type) -> inspect.Type:
    """Return a type without its annotations."""
    return wanted.type if isinstance(wanted, inspect.Metadata) else wanted


def choices(value: Marked, wanted: inspect.UnionType) -> list[inspect.Type]:
    """Return the alternatives of a union whose shape is that of `value`, the likeliest first."""
    found: list[inspect.Type] = []
    for kind in wanted.types:
        if _has_shape(value, bare(kind)):
            # A template's text counts as a number first where both would do.
            found.insert(0 if isinstance(bare(kind), inspect.IntType) else len(found), kind)
    return found


def _has_shape(value: Marked, kind: inspect.Type) -> bool:
    if isinstance(kind, inspect.StructType):
        return isinstance(value.data, dict) and _tag_fits(value, kind)
    if isinstance(kind, inspect.DictType):
        return isinstance(value.data, dict)
    if isinstance(kind, ARRAYS):
        return isinstance(value.data, list)
    data = coerce(value, kind)
    return fits(data, kind) or (isinstance(kind, inspect.LiteralType) and isinstance(data, str))


def _tag_fits(value: Marked, kind: inspect.StructType) -> bool:
    if kind.tag_field is None:
        return True
    tag = value.get(kind.tag_field)
    return tag is None or tag.data == kind.tag


def coerce(value: Marked, wanted: inspect.Type) -> Any:  # noqa: ANN401 (a scalar of TOML)
    """Return a scalar; what a template made counts as a number or boolean where no string is wanted."""
    data = value.data
    if not value.rendered or not isinstance(data, str):
        return data
    text = data.strip()
    if isinstance(wanted, inspect.BoolType):
        return {"true": True, "True": True, "false": False, "False": False}.get(text, data)
    if isinstance(wanted, inspect.IntType) or _wants_integers(wanted):
        digits = text.removeprefix("-")
        return int(text) if digits.isascii() and digits.isdigit() and len(digits) < 20 else data
    if isinstance(wanted, inspect.FloatType):
        try:
            return float(text)
        except ValueError:
            return data
    return data


def _wants_integers(wanted: inspect.Type) -> bool:
    return isinstance(wanted, inspect.LiteralType) and all(isinstance(item, int) for item in wanted.values)


def is_number(data: Any, wanted: inspect.Type) -> bool:  # noqa: ANN401
    """Say whether a scalar is a number, and of a kind that `wanted` takes."""
    if isinstance(data, bool):
        return False
    return isinstance(data, int) or (isinstance(data, float) and isinstance(wanted, inspect.FloatType))


def fits(data: Any, wanted: inspect.Type) -> bool:  # noqa: ANN401
    """Say whether a scalar has the type `wanted`, bounds and formats apart."""
    if isinstance(wanted, inspect.StrType):
        return isinstance(data, str)
    if isinstance(wanted, inspect.BoolType):
        return isinstance(data, bool)
    if isinstance(wanted, inspect.IntType | inspect.FloatType):
        return is_number(data, wanted)
    if isinstance(wanted, inspect.LiteralType):
        return any(data == value and type(data) is type(value) for value in wanted.values)
    if isinstance(wanted, inspect.EnumType):
        return data in {member.value for member in wanted.cls}
    # Types without a TOML form of their own are judged by the final conversion. None cannot be written.
    return not isinstance(wanted, inspect.NoneType)


def name(data: Any) -> str:  # noqa: ANN401
    """Return what to call a value's type."""
    names = {dict: "a table", list: "an array", bool: "a boolean", str: "a string", int: "an integer"}
    return names.get(type(data), "a number")


def _list(values: Any) -> str:  # noqa: ANN401
    return "one of " + ", ".join(msgspec.json.encode(value).decode() for value in values)


def describe(wanted: inspect.Type) -> str:
    """Return a type in words, to follow "must be"."""
    wanted = bare(wanted)
    if isinstance(wanted, inspect.UnionType):
        names = [describe(item) for item in wanted.types if not isinstance(item, inspect.NoneType)]
        return " or ".join(dict.fromkeys(names))
    for kinds, words in _DESCRIPTIONS:
        if isinstance(wanted, kinds):
            return words(wanted)
    return "a string"


_DESCRIPTIONS: tuple[tuple[Any, Callable[[Any], str]], ...] = (
    (inspect.LiteralType, lambda wanted: _list(wanted.values)),
    (inspect.EnumType, lambda wanted: _list(member.value for member in wanted.cls)),
    (TABLES, lambda _: "a table"),
    (ARRAYS, lambda _: "an array"),
    (inspect.BoolType, lambda _: "true or false"),
    (inspect.IntType, lambda _: "an integer"),
    (inspect.FloatType, lambda _: "a number"),
)


def example(wanted: inspect.Type) -> str:
    """Return a value of a type as TOML, to be shown where one is missing."""
    if isinstance(wanted, inspect.Metadata):
        examples = (wanted.extra_json_schema or {}).get("examples")
        if isinstance(examples, list) and examples and not isinstance(examples[0], dict):
            return msgspec.json.encode(examples[0]).decode()
        return example(wanted.type)
    if isinstance(wanted, inspect.UnionType):
        return example(wanted.types[0])
    for kinds, words in _EXAMPLES:
        if isinstance(wanted, kinds):
            return words(wanted)
    return '"…"'


_EXAMPLES: tuple[tuple[Any, Callable[[Any], str]], ...] = (
    (ARRAYS, lambda _: "[…]"),
    (TABLES, lambda _: "{ … }"),
    (inspect.LiteralType, lambda wanted: msgspec.json.encode(wanted.values[0]).decode()),
    (inspect.BoolType, lambda _: "true"),
    ((inspect.IntType, inspect.FloatType), lambda _: "0"),
)


def bounds(wanted: inspect.IntType | inspect.FloatType) -> tuple[float | None, float | None]:
    """Return the least and the greatest number allowed (integers: exclusive bounds are made inclusive)."""
    low = wanted.ge if wanted.gt is None else wanted.gt + 1
    high = wanted.le if wanted.lt is None else wanted.lt - 1
    return low, high


def quote_hint(data: Any, wanted: inspect.Type) -> str:  # noqa: ANN401
    """Return advice about quotes where they are what is wrong."""
    if isinstance(wanted, inspect.StrType):
        return "put it in quotes"
    if isinstance(data, str) and isinstance(wanted, inspect.IntType | inspect.BoolType | inspect.FloatType):
        return "write it without quotes"
    return ""
