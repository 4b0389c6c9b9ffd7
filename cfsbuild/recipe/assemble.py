"""A rendered table as a typed recipe."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from cfsbuild.errors import Origin, Problem
from cfsbuild.recipe import needs, rendering
from cfsbuild.recipe.document import EPOCH_MAX, SECTIONS, ImageTable, NodeTable, TargetTable
from cfsbuild.recipe.include import Merged
from cfsbuild.recipe.marked import ENVIRONMENT, Marked, key_text, origins, scalar_text
from cfsbuild.recipe.model import NodeSpec, Recipe, TargetSpec
from cfsbuild.recipe.problems import MOST_PROBLEMS, suggestion
from cfsbuild.recipe.validate import convert
from cfsbuild.recipe.variables import Combination

if TYPE_CHECKING:
    from cfsbuild.recipe.load import Schema, TargetSchema

_NAME_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-+~")
_NAME_LENGTH = 64
_IMAGE_TARGET = "image"


def assemble(  # noqa: PLR0913 (what is known about one combination)
    merged: Merged,
    combination: Combination,
    outcome: rendering.Outcome,
    *,
    node_kinds: Mapping[str, Schema],
    target_kinds: Mapping[str, TargetSchema],
    environ: Mapping[str, str],
    problems: list[Problem],
) -> Recipe | None:
    """Return the recipe of one combination; None, and appended problems, if something is wrong with it."""
    table = rendering.apply(merged.table, outcome)
    before = len(problems)
    _check_sections(table, problems)
    image = _image(table, problems)
    nodes = _nodes(table, node_kinds, problems)
    targets = _targets(table, target_kinds, problems)
    axes = {name: _axis(value, problems) for name, value in combination.axes.items()}
    placed = origins(table)
    epoch = _epoch(image, environ, placed, problems)
    if image is None or len(problems) > before or outcome.problems:
        return None
    for name, value in combination.values.items():
        placed.update({f"vars.{name}{'.' * bool(key)}{key}": at for key, at in origins(value).items()})
    return Recipe(
        path=Path(merged.files[0]),
        name=image.name,
        version=image.version,
        epoch=epoch,
        algorithm=image.digest,
        format=image.format,
        variables=outcome.variables,
        combination=axes,
        nodes=nodes,
        targets=targets,
        files=tuple(Path(file) for file in dict.fromkeys((*merged.files, *outcome.files))),
        origins=placed,
    )


def _check_sections(table: Marked, problems: list[Problem]) -> None:
    for key, value in table.data.items():
        if key not in SECTIONS and len(problems) < MOST_PROBLEMS:
            brief = f"unknown key `{key_text((key,))}`"
            problems.append(Problem(brief, "", suggestion(key, SECTIONS, what="keys"), value.origin))


def _image(table: Marked, problems: list[Problem]) -> ImageTable | None:
    value = table.get("image")
    if value is None:
        problems.append(
            Problem("the recipe has no [image] table", "", 'add [image] with name = "…"', table.origin)
        )
        return None
    for key in ("name", "version"):
        text = value.get(key)
        if text and isinstance(text.data, str) and (text.data or key == "name"):
            _check_file_name(text.data, f"`image.{key}`", text.origin, problems)
    return convert(value, ImageTable, problems)


def _origin(table: Marked, key: str) -> Origin:
    value = table.get(key)
    return value.origin if value else table.origin


def _check_file_name(text: str, what: str, origin: Origin, problems: list[Problem]) -> None:
    """Note a problem unless `text` can be part of a file name everywhere."""
    if not text or len(text) > _NAME_LENGTH or not _NAME_CHARACTERS.issuperset(text) or text[0] in "._-+~":
        shown = msgspec.json.encode(text[:80]).decode()
        details = f"it is {shown}"
        resolution = f"use 1 to {_NAME_LENGTH} of A-Z a-z 0-9 . _ - + ~, beginning with a letter or digit"
        problems.append(Problem(f"{what} cannot be part of a file name", details, resolution, origin))


def _axis(value: Marked, problems: list[Problem]) -> str:
    if not isinstance(value.data, str | int):
        return ""  # a problem already
    text = scalar_text(value.data)
    _check_file_name(text, f"`{value.origin.key}`", value.origin, problems)
    return text


def _epoch(
    image: ImageTable | None, environ: Mapping[str, str], placed: dict[str, Origin], problems: list[Problem]
) -> int:
    """Return the epoch, and note in `placed` if it comes from the environment."""
    if image and image.epoch is not None:
        return image.epoch
    text = environ.get("SOURCE_DATE_EPOCH", "")
    if not text:
        return 0
    if text.isascii() and text.isdigit() and len(text) < 16 and int(text) <= EPOCH_MAX:
        placed["image.epoch"] = Origin(ENVIRONMENT, 0, "SOURCE_DATE_EPOCH")
        return int(text)
    problems.append(
        Problem(
            "SOURCE_DATE_EPOCH in the environment is not a number of seconds",
            f"it is {msgspec.json.encode(text[:80]).decode()}",
            "unset it, or write image.epoch in the recipe",
        )
    )
    return 0


def _section(table: Marked, key: str, problems: list[Problem]) -> dict[str, Marked]:
    value = table.get(key)
    if value is None:
        return {}
    if not isinstance(value.data, dict):
        problems.append(Problem(f"`{key}` must be a table", "", f"write [{key}.NAME]", value.origin))
        return {}
    entries: dict[str, Marked] = value.data
    for name, entry in entries.items():
        _check_file_name(name, f"the name of `{entry.origin.key}`", entry.origin, problems)
    return entries


def _nodes(table: Marked, kinds: Mapping[str, Schema], problems: list[Problem]) -> dict[str, NodeSpec]:
    entries = _section(table, "nodes", problems)
    wanted = {name: needs.needs_of(entry) for name, entry in entries.items()}
    problems.extend(needs.check(wanted, known=entries))
    result = {}
    for name, entry in entries.items():
        if len(problems) > MOST_PROBLEMS:
            break
        common = _common(entry, NodeTable, problems)
        if common is None or not _known(entry, common.kind, kinds, "node", problems):
            continue
        params = convert(entry, kinds[common.kind].params, problems, ignore=NodeTable.__struct_fields__)
        if params is not None:
            result[name] = NodeSpec(
                name=name,
                kind=common.kind,
                params=params,
                needs=tuple(dict.fromkeys(common.needs)),
                replaces=common.replaces,
                origins=origins(entry),
            )
    return result


def _common(entry: Marked, struct: type[Any], problems: list[Problem]) -> Any:  # noqa: ANN401 (as struct)
    """Return the keys of a node or target that do not depend on its kind."""
    if not isinstance(entry.data, dict):
        return convert(entry, struct, problems)
    fields = struct.__struct_fields__
    own = {key: value for key, value in entry.data.items() if key in fields}
    return convert(Marked(entry.origin, own), struct, problems)


def _known(entry: Marked, kind: str, kinds: Mapping[str, object], what: str, problems: list[Problem]) -> bool:
    if kind in kinds:
        return True
    brief = f"unknown {what} kind `{kind}`"
    resolution = suggestion(kind, kinds, what=f"{what} kinds")
    problems.append(Problem(brief, "", resolution, _origin(entry, "kind")))
    return False


def _targets(
    table: Marked, kinds: Mapping[str, TargetSchema], problems: list[Problem]
) -> dict[str, TargetSpec]:
    entries = dict(_section(table, "targets", problems))
    if _IMAGE_TARGET not in entries:
        entries = {_IMAGE_TARGET: Marked(table.origin, {}), **entries}
    result = {}
    for name, entry in entries.items():
        if len(problems) > MOST_PROBLEMS:
            break
        common = _common(entry, TargetTable, problems)
        if common is None:
            continue
        kind = common.kind or name
        if not _known(entry, kind, kinds, "target", problems):
            continue
        params = convert(entry, kinds[kind].params, problems, ignore=TargetTable.__struct_fields__)
        if params is not None:
            result[name] = TargetSpec(name=name, kind=kind, params=params, origins=origins(entry))
    return result
