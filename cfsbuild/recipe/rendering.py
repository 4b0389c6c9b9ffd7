"""A recipe's strings with its variables in them."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from typing import Any

import msgspec

from cfsbuild.errors import Origin, Problem, RecipeError
from cfsbuild.recipe.marked import Marked, children
from cfsbuild.recipe.template import Renderer, is_template
from cfsbuild.recipe.variables import Combination

_DEPTH = 100
"""Longest chain of variables that refer to each other."""


class Outcome(msgspec.Struct, frozen=True):
    """What rendering one combination gave, as plain data.

    `texts` are the rendered templates in the order of `templates`, None where one failed; `contents` is, for
    each node with a template file, that file's name and its text.
    """

    variables: dict[str, Any]
    texts: list[str | None]
    contents: dict[str, tuple[str, str]]
    files: list[str]
    problems: list[Problem]


def templates(table: Marked) -> Iterator[Marked]:
    """Yield the strings of a recipe's `image`, `nodes` and `targets` that are templates, in a fixed order."""
    for section in ("image", "nodes", "targets"):
        value = table.get(section)
        if value is None:
            continue
        for _, entry in children(value):
            raw = _raw_keys(entry) if section == "nodes" else frozenset()
            if isinstance(entry.data, str) and is_template(entry.data):
                yield entry
            for key, child in children(entry):
                if key not in raw:
                    yield from strings(child)


def _raw_keys(node: Marked) -> frozenset[str]:
    """Return the keys of a node that are never rendered."""
    raw = node.get("raw")
    return frozenset({"script", "content"}) if raw and raw.data is True else frozenset({"script"})


def strings(value: Marked) -> Iterator[Marked]:
    """Yield the strings in a value that are templates and not rendered yet, in a fixed order."""
    if isinstance(value.data, str) and not value.rendered and is_template(value.data):
        yield value
    for _, child in children(value):
        yield from strings(child)


def render(
    renderer: Renderer, table: Marked, combination: Combination, template_nodes: Collection[str]
) -> Outcome:
    """Render one combination; `template_nodes` are the nodes whose `template` names a file."""
    renderer.files.clear()
    problems: list[Problem] = []
    variables = _resolve(combination.values, renderer, problems)
    texts: list[str | None] = []
    rendered: dict[int, str | None] = {}
    for value in templates(table):
        # Without variables every template would seem wrong, and what is wrong with them is noted already.
        text = None if variables is None else _render_one(renderer, value, variables, problems)
        texts.append(text)
        rendered[id(value)] = text
    contents = {}
    for name in template_nodes:
        content = _render_file(table, name, renderer, variables, rendered, problems)
        if content:
            contents[name] = content
    return Outcome(variables or {}, texts, contents, list(renderer.files), problems)


def _render_one(
    renderer: Renderer, value: Marked, variables: dict[str, Any], problems: list[Problem]
) -> str | None:
    try:
        return renderer.text(value.data, variables, value.origin)
    except RecipeError as error:
        problems.extend(error.problems())
        return None


def _render_file(  # noqa: PLR0913, PLR0917
    table: Marked,
    name: str,
    renderer: Renderer,
    variables: dict[str, Any] | None,
    rendered: dict[int, str | None],
    problems: list[Problem],
) -> tuple[str, str] | None:
    template = table.data["nodes"].data[name].data["template"]
    file = rendered.get(id(template), template.data)
    if not isinstance(file, str) or not file or variables is None:
        return None
    root = os.path.dirname(template.origin.file)  # noqa: PTH120 (a text, shown as written)
    path = os.path.join(root, file)  # noqa: PTH118
    try:
        return path, renderer.file(path, variables, template.origin, root=root)
    except RecipeError as error:
        problems.extend(error.problems())
        return None


def _resolve(values: dict[str, Marked], renderer: Renderer, problems: list[Problem]) -> dict[str, Any] | None:
    """Return the variables with their own templates rendered, each after those that it refers to."""
    resolver = _Resolver(values, renderer)
    for name in values:
        try:
            resolver.resolve(name, ())
        except RecipeError as error:
            problems.extend(error.problems())
    return None if problems else {name: resolver.done[name] for name in values}


class _Resolver:
    """Variables that are rendered so far."""

    def __init__(self, values: dict[str, Marked], renderer: Renderer) -> None:
        self.done: dict[str, Any] = {}
        self._values = values
        self._renderer = renderer
        self._failed: set[str] = set()

    def resolve(self, name: str, chain: tuple[str, ...]) -> bool:
        """Render variable `name`; `chain` are the variables that led to it. Say whether it is there."""
        if name in self.done or name in self._failed:
            return name in self.done
        if name in chain:
            raise self._circle(chain[chain.index(name) :])
        if len(chain) > _DEPTH:
            brief = f"variables refer to each other more than {_DEPTH} deep"
            raise RecipeError((Problem(brief, "", "flatten them", self._values[name].origin),))
        try:
            found = [self.resolve(other, (*chain, name)) for other in self._references(name)]
            good = all(found)
            if good:
                self.done[name] = self._render(self._values[name])
        finally:
            if name not in self.done:
                self._failed.add(name)
        return good

    def _references(self, name: str) -> list[str]:
        """Return the variables that variable `name` refers to."""
        found: set[str] = set()
        for string in strings(self._values[name]):
            found |= self._renderer.references(string.data, string.origin)
        return sorted(found & self._values.keys())

    def _render(self, value: Marked) -> Any:  # noqa: ANN401
        if isinstance(value.data, dict):
            return {key: self._render(item) for key, item in value.data.items()}
        if isinstance(value.data, list):
            return [self._render(item) for item in value.data]
        if isinstance(value.data, str) and not value.rendered and is_template(value.data):
            return self._renderer.text(value.data, self.done, value.origin)
        return value.data

    def _circle(self, names: tuple[str, ...]) -> RecipeError:
        links = list(zip(names, (*names[1:], names[0]), strict=True))
        steps = "\n".join(
            f"{self._values[name].origin}: `{name}` refers to `{other}`" for name, other in links
        )
        brief = f"variables refer to each other in a circle: {' → '.join((*names, names[0]))}"
        origin = self._values[names[0]].origin
        return RecipeError((Problem(brief, steps, "remove one of these references", origin),))


def apply(table: Marked, outcome: Outcome) -> Marked:
    """Return the recipe's table with `outcome`'s texts in the place of its templates."""
    texts = dict(zip((id(value) for value in templates(table)), outcome.texts, strict=True))
    result = _replace(table, texts)
    for name, (file, text) in outcome.contents.items():
        nodes = result.data["nodes"].data
        node = nodes[name]
        origin = Origin(file, 1, f"{node.origin.key}.content")
        data = {key: value for key, value in node.data.items() if key != "template"}
        nodes[name] = Marked(node.origin, {**data, "content": Marked(origin, text)})
    return result


def _replace(value: Marked, texts: dict[int, str | None]) -> Marked:
    if isinstance(value.data, dict):
        return Marked(value.origin, {key: _replace(item, texts) for key, item in value.data.items()})
    if isinstance(value.data, list):
        return Marked(value.origin, [_replace(item, texts) for item in value.data])
    if id(value) in texts:
        return Marked(value.origin, texts[id(value)], rendered=True)
    return value
