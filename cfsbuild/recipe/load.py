"""Recipe files to typed recipes: parse, include, merge, choose variables, render, check."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import msgspec

from cfsbuild.errors import Problem
from cfsbuild.recipe import bounded, rendering
from cfsbuild.recipe.assemble import assemble
from cfsbuild.recipe.include import Merged, read_recipe
from cfsbuild.recipe.marked import Marked
from cfsbuild.recipe.model import Recipe
from cfsbuild.recipe.problems import collect
from cfsbuild.recipe.template import Renderer, TooMuchText, is_simple
from cfsbuild.recipe.variables import Combination, check_profiles, combinations


class Schema(Protocol):
    """What loading needs to know about a node kind."""

    @property
    def params(self) -> type[msgspec.Struct]:
        """The struct of its parameters."""

    @property
    def path_keys(self) -> tuple[str, ...]:
        """Parameters that name local paths."""

    @property
    def summary(self) -> str:
        """One line that says what it does."""


class TargetSchema(Protocol):
    """What loading needs to know about a target kind."""

    @property
    def params(self) -> type[msgspec.Struct]:
        """The struct of its parameters."""


def load_recipes(  # noqa: PLR0913 (each is one input of the language)
    path: Path,
    *,
    node_kinds: Mapping[str, Schema],
    target_kinds: Mapping[str, TargetSchema],
    overrides: Mapping[str, str],
    profiles: Sequence[str],
    environ: Mapping[str, str],
) -> list[Recipe]:
    """Return the recipes that a file describes: one for each combination of its matrix, in order.

    `overrides` are variables from the command line; `profiles` are applied in order; of `environ` only
    SOURCE_DATE_EPOCH is read. Raises `RecipeError` with every problem that was found.
    """
    problems: list[Problem] = []
    merged = read_recipe(str(path))
    problems.extend(merged.problems)
    check_profiles(merged.table, problems)
    chosen = combinations(merged.table, profiles=profiles, overrides=overrides, problems=problems)
    outcomes = _render(merged.table, chosen, _template_nodes(merged.table, node_kinds, problems))
    recipes = []
    for combination, outcome in zip(chosen, outcomes, strict=True):
        problems.extend(outcome.problems)
        recipes.append(
            assemble(
                merged,
                combination,
                outcome,
                node_kinds=node_kinds,
                target_kinds=target_kinds,
                environ=environ,
                problems=problems,
            )
        )
    if problems:
        raise collect(problems)
    done = [recipe for recipe in recipes if recipe is not None]
    _refuse_same_names(merged, done, problems)
    if problems:
        raise collect(problems)
    return done


def _render(table: Marked, chosen: list[Combination], template_nodes: list[str]) -> list[rendering.Outcome]:
    """Render every combination: here if it is little work, else in a child process with limits."""

    def work(progress: bounded.Progress | None) -> list[rendering.Outcome]:
        renderer = Renderer(progress)
        return [rendering.render(renderer, table, item, template_nodes) for item in chosen]

    used = [*rendering.templates(table)]
    for item in chosen:
        for value in item.values.values():
            used.extend(rendering.strings(value))
    if not template_nodes and all(is_simple(value.data) for value in used):
        with suppress(TooMuchText):
            return work(None)
    return bounded.run(work, list[rendering.Outcome])


def _template_nodes(table: Marked, node_kinds: Mapping[str, Schema], problems: list[Problem]) -> list[str]:
    """Return the nodes whose content is a template file: those of kinds with both parameters."""
    nodes = table.get("nodes")
    found = []
    for name, node in (nodes.data if nodes and isinstance(nodes.data, dict) else {}).items():
        kind, template, content = node.get("kind"), node.get("template"), node.get("content")
        if not (kind and template and isinstance(kind.data, str) and isinstance(template.data, str)):
            continue
        schema = node_kinds.get(kind.data)
        if schema is None or not {"template", "content"} <= set(schema.params.__struct_fields__):
            continue
        if content:
            brief = f"`{node.origin.key}` has both `content` and `template`"
            problems.append(Problem(brief, "", "remove one of them", content.origin))
        raw = node.get("raw")
        if raw and raw.data is True:
            brief = f"`{raw.origin.key}` contradicts `template`"
            problems.append(Problem(brief, "", "give the file as `source` to take it as it is", raw.origin))
        found.append(name)
    return found


def _refuse_same_names(merged: Merged, recipes: list[Recipe], problems: list[Problem]) -> None:
    seen: dict[str, Recipe] = {}
    for recipe in recipes:
        other = seen.setdefault(recipe.image_name, recipe)
        if other is not recipe:
            values = [
                ", ".join(f"{axis}={value}" for axis, value in r.combination.items()) for r in (other, recipe)
            ]
            matrix = merged.table.get("matrix") or merged.table
            brief = f"two images of the matrix would both be called `{recipe.image_name}`"
            problems.append(Problem(brief, " and ".join(values), "rename the values", matrix.origin))
