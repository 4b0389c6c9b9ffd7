"""`cfsbuild show`: a recipe as it is after includes, variables and templates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from cfsbuild.cli.output import write_json, write_lines
from cfsbuild.cli.recipes import load, recipe_argument, variable_options
from cfsbuild.cli.settings import Settings, common_options, pass_settings
from cfsbuild.errors import Origin
from cfsbuild.recipe.marked import COMMAND_LINE, ENVIRONMENT

if TYPE_CHECKING:
    from cfsbuild.recipe.model import NodeSpec, Recipe, TargetSpec

SHOW_VERSION = 1
_DEFAULT = "default"


@click.command("show")
@common_options("json")
@recipe_argument
@variable_options
@click.option("--origin", "with_origin", is_flag=True, help="Say where each value was written.")
@click.option("--all", "everything", is_flag=True, help="Show values that nobody wrote, too.")
@pass_settings
def command(  # noqa: PLR0913 (the verb's options)
    settings: Settings,
    recipe: Path,
    profiles: tuple[str, ...],
    overrides: tuple[str, ...],
    *,
    with_origin: bool,
    everything: bool,
) -> None:
    """Show RECIPE (default: recipe.toml) with everything filled in, once for each image of its matrix.

    The text is TOML and reads like a recipe without includes, profiles and templates.
    """
    recipes = load(recipe, profiles, overrides)
    if settings.json:
        documents = [_document(item, everything=everything, with_origin=with_origin) for item in recipes]
        write_json({"version": SHOW_VERSION, "recipes": documents})
        return
    write_lines(_text(recipes, everything=everything, with_origin=with_origin))


def _text(recipes: list[Recipe], *, everything: bool, with_origin: bool) -> Iterator[str]:
    from cfsbuild.recipe.emit import table  # noqa: PLC0415 (not for JSON)

    for number, recipe in enumerate(recipes):
        if number:
            yield ""
        if len(recipes) > 1:
            yield f"# {recipe.image_name}"
            yield ""
        for index, (name, data) in enumerate(_tables(recipe, everything=everything).items()):
            if index:
                yield ""
            notes = _notes(recipe, name, data) if with_origin else {}
            yield from table(name, data, notes)


def _tables(recipe: Recipe, *, everything: bool) -> dict[tuple[str, ...], dict[str, Any]]:
    """Return the recipe's tables, by their names."""
    image = {
        "name": recipe.name,
        "version": recipe.version,
        "epoch": recipe.epoch,
        "digest": recipe.algorithm,
        "format": recipe.format,
    }
    tables: dict[tuple[str, ...], dict[str, Any]] = {("image",): image}
    if recipe.variables:
        tables["vars",] = recipe.variables
    for node in recipe.nodes.values():
        common = {"kind": node.kind, "needs": list(node.needs), "replaces": list(node.replaces)}
        tables["nodes", node.name] = _written(node, common, everything=everything)
    for target in recipe.targets.values():
        tables["targets", target.name] = _written(target, {"kind": target.kind}, everything=everything)
    return tables


def _written(spec: NodeSpec | TargetSpec, common: Mapping[str, Any], *, everything: bool) -> dict[str, Any]:
    """Return the keys of a node or target: those that somebody wrote, or all that have a value."""
    values = {**common, **msgspec.to_builtins(spec.params)}
    written: dict[str, Any] = _pick(values, "", None if everything else spec.origins)
    return written


def _pick(value: Any, place: str, written: Mapping[str, Origin] | None) -> Any:  # noqa: ANN401 (plain data)
    """Leave out what has no value, at any depth, and what is not in `written` unless that is None."""
    if isinstance(value, dict):
        found = {f"{place}.{key}".lstrip("."): (key, item) for key, item in value.items()}
        return {
            key: _pick(item, path, written)
            for path, (key, item) in found.items()
            if item is not None and (written is None or path in written)
        }
    if isinstance(value, list | tuple):
        return [_pick(item, f"{place}.{index}", written) for index, item in enumerate(value)]
    return value


def _notes(recipe: Recipe, name: tuple[str, ...], data: Mapping[str, Any]) -> dict[str, str]:
    """Return where the keys of a table come from, in words."""
    place = ".".join(name)
    notes = {key: _came_from(recipe.origins.get(f"{place}.{key}")) for key in data}
    notes[""] = _came_from(recipe.origins.get(place)) if name != ("vars",) else ""
    return notes


def _came_from(origin: Origin | None) -> str:
    if origin is None:
        return _DEFAULT
    if origin.file in {COMMAND_LINE, ENVIRONMENT}:
        return f"{origin.file} ({origin.key})"
    first, _, rest = origin.key.partition(".")
    if first == "profiles":
        return f"{origin} (profile {rest.partition('.vars.')[0]})"
    return f"{origin} (matrix)" if first == "matrix" else str(origin)


def _document(recipe: Recipe, *, everything: bool, with_origin: bool) -> dict[str, Any]:
    document: dict[str, Any] = {
        "image_name": recipe.image_name,
        "path": str(recipe.path),
        "files": [str(file) for file in recipe.files],
        "combination": recipe.combination,
        "recipe": {},
    }
    for name, data in _tables(recipe, everything=everything).items():
        place = document["recipe"]
        for part in name:
            place = place.setdefault(part, {})
        place.update(data)
    if with_origin:
        document["origins"] = {key: origin for key, origin in recipe.origins.items() if key}
    return document
