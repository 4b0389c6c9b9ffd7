"""Marked data against a msgspec type: every problem, each at its line, instead of the first."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from cfsbuild.errors import Problem
from cfsbuild.recipe import formats, shapes
from cfsbuild.recipe.marked import Marked, key_text, plain
from cfsbuild.recipe.problems import MOST_PROBLEMS, suggestion

Params = TypeVar("Params", bound=msgspec.Struct)

_BAD = object()
"""What a check returns for a value that does not fit; problems have been noted then."""


def convert(
    table: Marked, params: type[Params], problems: list[Problem], *, ignore: Iterable[str] = ()
) -> Params | None:
    """Return `table` as an instance of `params`; None if something is wrong with it.

    Everything that is wrong is appended to `problems`. Keys in `ignore` are somebody else's.
    """
    if not isinstance(table.data, dict):
        problems.append(_wrong(table, "must be a table", f"write [{table.origin.key}]"))
        return None
    ignored = frozenset(ignore)
    kept = {key: value for key, value in table.data.items() if key not in ignored}
    checker = _Checker(problems, ignored)
    data = checker.value(Marked(table.origin, kept), _type_info(params))
    if data is _BAD:
        return None
    try:
        return msgspec.convert(data, params)
    except msgspec.ValidationError as error:
        text = str(error).partition(" - at `$")[0]
        problems.append(Problem(f"`{table.origin.key}`: {text}", "", "see `cfsbuild schema`", table.origin))
        return None


@functools.cache
def _type_info(params: type[msgspec.Struct]) -> inspect.Type:
    """Return msgspec's description of a struct, which takes about as long to make as a node to check."""
    return inspect.type_info(params)


class _Checker:
    """Walks values and types side by side, and notes problems."""

    def __init__(self, problems: list[Problem], also_known: frozenset[str] = frozenset()) -> None:
        self.problems = problems
        self._also_known = also_known

    def value(self, value: Marked, wanted: inspect.Type) -> Any:  # noqa: ANN401 (any plain data)
        """Return `value` as plain data that fits `wanted`, or `_BAD`."""
        if value.data is None:  # a template that failed, which is a problem already
            return _BAD
        for kinds, check in _CHECKS:
            if isinstance(wanted, kinds):
                return check(self, value, wanted)
        return self._scalar(value, wanted)

    def _bad(self, value: Marked, says: str, resolution: str = "") -> Any:  # noqa: ANN401
        self.problems.append(_wrong(value, says, resolution))
        return _BAD

    def _formatted(self, value: Marked, wanted: inspect.Metadata) -> Any:  # noqa: ANN401
        before = len(self.problems)
        data = self.value(value, wanted.type)
        schema = wanted.extra_json_schema or {}
        name = schema.get("format")
        if data is not _BAD and isinstance(name, str) and isinstance(data, str | int):
            says = formats.check(name, data)
            data = self._bad(value, says, formats.remedy(name, data)) if says else data
        if data is _BAD:
            self._explain(value, str(schema.get("description", "")), before)
        return data

    def _explain(self, value: Marked, description: str, before: int) -> None:
        """Let the parameter's description be the hint of problems that have none."""
        for index in range(before, len(self.problems)):
            problem = self.problems[index]
            if not problem.resolution and problem.origin == value.origin:
                self.problems[index] = msgspec.structs.replace(problem, resolution=description)

    def _union(self, value: Marked, wanted: inspect.UnionType) -> Any:  # noqa: ANN401
        choices = shapes.choices(value, wanted)
        if not choices:
            return self._bad(value, f"must be {shapes.describe(wanted)}, not {shapes.name(value.data)}")
        trials = []
        for choice in choices:
            trial = _Checker([], self._also_known)
            data = trial.value(value, choice)
            if data is not _BAD:
                return data
            trials.append(trial)
        best = min(trials, key=lambda trial: len(trial.problems))
        self.problems.extend(best.problems)
        return _BAD

    def _struct(self, value: Marked, wanted: inspect.StructType) -> Any:  # noqa: ANN401
        if not isinstance(value.data, dict):
            return self._bad(
                value, f"must be a table, not {shapes.name(value.data)}", "write { KEY = VALUE, … }"
            )
        fields = {field.encode_name: field for field in wanted.fields}
        result: dict[str, Any] = {}
        good = True
        for key, item in value.data.items():
            if key == wanted.tag_field:
                result[key] = item.data
            elif key not in fields:
                good = False
                if len(self.problems) > MOST_PROBLEMS:
                    continue
                self._unknown(key, value, item, [*fields, *self._also_known])
            else:
                result[key] = _Checker(self.problems).value(item, fields[key].type)
                good = good and result[key] is not _BAD
        for key, field in fields.items():
            if field.required and key not in value.data:
                good = False
                self._missing(key, value, field)
        return result if good else _BAD

    def _unknown(self, key: str, table: Marked, item: Marked, known: Iterable[str]) -> None:
        brief = f"unknown key `{key_text((key,))}` in `{table.origin.key}`"
        self.problems.append(Problem(brief, "", suggestion(key, known, what="keys"), item.origin))

    def _missing(self, key: str, table: Marked, field: inspect.Field) -> None:
        brief = f"`{table.origin.key}` lacks the key `{key}`"
        resolution = f"add it, such as {key} = {shapes.example(field.type)}"
        self.problems.append(Problem(brief, "", resolution, table.origin))

    def _dict(self, value: Marked, wanted: inspect.DictType) -> Any:  # noqa: ANN401
        if not isinstance(value.data, dict):
            return self._bad(
                value, f"must be a table, not {shapes.name(value.data)}", "write { KEY = VALUE, … }"
            )
        checker = _Checker(self.problems)
        result = {
            checker.value(Marked(item.origin, key), wanted.key_type): checker.value(item, wanted.value_type)
            for key, item in value.data.items()
        }
        return _BAD if _BAD in result or _BAD in result.values() else result

    def _array(self, value: Marked, wanted: inspect.CollectionType) -> Any:  # noqa: ANN401
        if not isinstance(value.data, list):
            return self._bad(value, f"must be an array, not {shapes.name(value.data)}", "write [ … ]")
        checker = _Checker(self.problems)
        result = [checker.value(item, wanted.item_type) for item in value.data]
        if any(item is _BAD for item in result):
            return _BAD
        return self._within(value, result, len(result), (wanted.min_length, wanted.max_length), "items")

    def _tuple(self, value: Marked, wanted: inspect.TupleType) -> Any:  # noqa: ANN401
        if not isinstance(value.data, list) or len(value.data) != len(wanted.item_types):
            return self._bad(value, f"must be an array of {len(wanted.item_types)} items")
        checker = _Checker(self.problems)
        result = [checker.value(*pair) for pair in zip(value.data, wanted.item_types, strict=True)]
        return _BAD if any(item is _BAD for item in result) else result

    def _within(
        self,
        value: Marked,
        data: Any,  # noqa: ANN401
        size: float,
        bounds: tuple[float | None, float | None],
        unit: str,
    ) -> Any:  # noqa: ANN401
        verb, end = ("have", f" {unit}") if unit else ("be", "")
        low, high = bounds
        if low == 1 and size == 0 and unit:
            return self._bad(value, "must not be empty")
        if low is not None and size < low:
            return self._bad(value, f"must {verb} at least {low}{end}")
        if high is not None and size > high:
            return self._bad(value, f"must {verb} at most {high}{end}")
        return data

    def _scalar(self, value: Marked, wanted: inspect.Type) -> Any:  # noqa: ANN401
        if isinstance(value.data, dict | list):
            if isinstance(wanted, inspect.AnyType):
                return plain(value)
            return self._bad(value, f"must be {shapes.describe(wanted)}, not {shapes.name(value.data)}")
        data = shapes.coerce(value, wanted)
        if isinstance(wanted, inspect.StrType) and isinstance(data, str):
            return self._string(value, data, wanted)
        if isinstance(wanted, inspect.IntType | inspect.FloatType) and shapes.is_number(data, wanted):
            return self._within(value, data, data, shapes.bounds(wanted), "")
        if shapes.fits(data, wanted):
            return data
        return self._bad(
            value,
            f"must be {shapes.describe(wanted)}, not {shapes.name(data)}",
            shapes.quote_hint(data, wanted),
        )

    def _string(self, value: Marked, data: str, wanted: inspect.StrType) -> Any:  # noqa: ANN401
        if wanted.pattern is not None:
            import re  # noqa: PLC0415 (few parameters have a pattern)

            if not re.search(wanted.pattern, data):
                return self._bad(value, f"must match {wanted.pattern}")
        return self._within(value, data, len(data), (wanted.min_length, wanted.max_length), "characters")


def _wrong(value: Marked, says: str, resolution: str = "") -> Problem:
    shown = ""
    if isinstance(value.data, str | int | float):
        text = msgspec.json.encode(value.data).decode("utf-8", "replace")
        shown = f"it is {text[:80]}{'…' if len(text) > 80 else ''}"
    return Problem(f"`{value.origin.key}` {says}", shown, resolution, value.origin)


_CHECKS: tuple[tuple[Any, Callable[[_Checker, Marked, Any], Any]], ...] = (
    (inspect.Metadata, _Checker._formatted),  # noqa: SLF001 (the class's own table)
    (inspect.UnionType, _Checker._union),  # noqa: SLF001
    (inspect.StructType, _Checker._struct),  # noqa: SLF001
    (inspect.DictType, _Checker._dict),  # noqa: SLF001
    (inspect.CollectionType, _Checker._array),  # noqa: SLF001
    (inspect.TupleType, _Checker._tuple),  # noqa: SLF001
)
