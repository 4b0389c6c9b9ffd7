"""Which variables a recipe's templates see: `[vars]`, profiles, the matrix and the command line."""

from __future__ import annotations

import itertools
import keyword
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from cfsbuild.errors import Origin, Problem, RecipeError
from cfsbuild.recipe.marked import COMMAND_LINE, Marked, mark, plain, scalar_text
from cfsbuild.recipe.parse import parse
from cfsbuild.recipe.problems import suggestion

MOST_COMBINATIONS = 1024
"""Most images that one matrix may ask for."""

_RESERVED = frozenset(
    ["true", "false", "none", "loop", "self", "super", "caller", "varargs", "kwargs", "range", "dict"]
)


class Combination(msgspec.Struct, frozen=True):
    """One image's variables, not yet rendered, and the values of its matrix axes."""

    values: dict[str, Marked]
    axes: dict[str, Marked]


def combinations(
    table: Marked, *, profiles: Sequence[str], overrides: Mapping[str, str], problems: list[Problem]
) -> list[Combination]:
    """Return the variables of every image that the recipe describes, later layers over earlier ones.

    What is wrong is appended to `problems`; the result is then good enough to look for more.
    """
    values = _table(table, "vars", problems)
    for profile in profiles:
        values |= _profile(table, profile, problems)
    axes = _matrix(table, problems)
    for name, text in overrides.items():
        _override(name, text, values, axes, problems)
    for name, value in [*values.items(), *axes.items()]:
        _check_name(name, value.origin, problems)
    count = 1
    for axis in axes.values():
        count *= len(axis.data)
    if count > MOST_COMBINATIONS:
        origin = next(iter(axes.values())).origin
        brief = f"the matrix has {count} combinations, at most {MOST_COMBINATIONS} are allowed"
        raise RecipeError((Problem(brief, "", "remove values or axes", origin),))
    chosen = itertools.product(*(axis.data for axis in axes.values()))
    points = (dict(zip(axes, choice, strict=True)) for choice in chosen)
    return [Combination({**values, **point}, point) for point in points]


def _table(table: Marked, key: str, problems: list[Problem]) -> dict[str, Marked]:
    """Return the entries of the table at `key`; none when there is no such table."""
    value = table.get(key)
    return {} if value is None else _entries(value, problems)


def _entries(value: Marked, problems: list[Problem]) -> dict[str, Marked]:
    if not isinstance(value.data, dict):
        brief = f"`{value.origin.key}` must be a table"
        problems.append(Problem(brief, "", f"write [{value.origin.key}]", value.origin))
        return {}
    return dict(value.data)


def _profile(table: Marked, name: str, problems: list[Problem]) -> dict[str, Marked]:
    known = _table(table, "profiles", [])
    if name not in known:
        resolution = suggestion(name, known, what="profiles")
        origin = Origin(COMMAND_LINE, 0, f"--profile {name}")
        problems.append(Problem(f"the recipe has no profile `{name}`", "", resolution, origin))
        return {}
    return _table(known[name], "vars", [])


def check_profiles(table: Marked, problems: list[Problem]) -> None:
    """Find what is wrong with the `[profiles.NAME]` tables, chosen or not."""
    for profile in _table(table, "profiles", problems).values():
        for key, value in _entries(profile, problems).items():
            if key != "vars":
                brief = f"unknown key `{key}` in `{profile.origin.key}`"
                problems.append(Problem(brief, "", "a profile has only `vars`", value.origin))
        for name, value in _table(profile, "vars", problems).items():
            _check_name(name, value.origin, problems)


def _matrix(table: Marked, problems: list[Problem]) -> dict[str, Marked]:
    axes = {}
    for name, axis in _table(table, "matrix", problems).items():
        items = axis.data if isinstance(axis.data, list) else []
        if not items:
            brief = f"`{axis.origin.key}` must be an array of at least one value"
            problems.append(Problem(brief, "", f'write {name} = ["…", …]', axis.origin))
            continue
        good = [item for item in items if isinstance(item.data, str | int)]
        for item in items:
            if not isinstance(item.data, str | int) or "{{" in str(item.data) or "{%" in str(item.data):
                brief = f"`{item.origin.key}` must be a plain string or integer"
                problems.append(Problem(brief, "", "put the value in quotes", item.origin))
        axes[name] = Marked(axis.origin, good or items[:1])
    return axes


def _override(
    name: str, text: str, values: dict[str, Marked], axes: dict[str, Marked], problems: list[Problem]
) -> None:
    origin = Origin(COMMAND_LINE, 0, f"-o {name}")
    if name in axes:
        chosen = [item for item in axes[name].data if scalar_text(item.data) == text]
        if chosen:
            axes[name] = Marked(origin, chosen[:1])
            return
        known = [scalar_text(item.data) for item in axes[name].data]
        brief = f"`{text}` is not a value of the matrix axis `{name}`"
        problems.append(Problem(brief, "", suggestion(text, known, what="values"), origin))
    elif name in values:
        value = mark(_typed(name, text, values[name].data, origin, problems), origin)
        # What the command line says is taken as it is, even if it looks like a template.
        values[name] = Marked(origin, value.data, rendered=True) if isinstance(value.data, str) else value
    else:
        known = [*values, *axes]
        brief = f"-o {name}: the recipe has no variable `{name}`"
        problems.append(Problem(brief, "", suggestion(name, known, what="variables"), origin))


def _typed(name: str, text: str, old: Any, origin: Origin, problems: list[Problem]) -> Any:  # noqa: ANN401
    """Return the text of an override in the type of the value that it replaces; strings stay as they are."""
    if isinstance(old, str):
        return text
    wanted = (int, float) if isinstance(old, float) else (type(old),)
    try:
        value = parse(f"value = {text}", COMMAND_LINE).data
    except RecipeError:
        value = {}
    found = value.get("value")
    if len(value) == 1 and type(found.data) in wanted:
        return plain(found)
    names = {bool: "true or false", int: "an integer", float: "a number", list: "an array", dict: "a table"}
    brief = f"-o {name}: `{text}` is not {names[wanted[-1]]}"
    problems.append(Problem(brief, "", "write it as TOML, of the type that the recipe declares", origin))
    return None


def _check_name(name: str, origin: Origin, problems: list[Problem]) -> None:
    if not (name.isidentifier() and name.isascii()) or keyword.iskeyword(name) or name in _RESERVED:
        brief = f"`{name}` cannot be the name of a variable"
        resolution = "use letters, digits and underscores, and no word of the template language"
        problems.append(Problem(brief, "", resolution, origin))
