"""Text with variables in it. Jinja2 is imported only for what is more than `{{ NAME }}`."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec

from cfsbuild import limits
from cfsbuild.errors import Origin, Problem, RecipeError
from cfsbuild.recipe.parse import read_text

if TYPE_CHECKING:
    from cfsbuild.recipe.bounded import Progress
    from cfsbuild.recipe.sandbox import Environment

_REFERENCE = re.compile(r"\{\{[ \t]*([A-Za-z_][A-Za-z0-9_]*)[ \t]*\}\}")
_BEGIN = ("{{", "{%", "{#")
_CONSTANTS = frozenset({"true", "false", "none", "True", "False", "None"})
_DEPTH = 16

UNBOUNDED_CHARACTERS = 4 * 2**20
"""Most text that is made in this process, where no limits of the kernel hold."""


class TooMuchText(Exception):  # noqa: N818 (no error: the work moves to a child process)
    """More than UNBOUNDED_CHARACTERS would be made in this process."""


def is_template(text: str) -> bool:
    """Say whether a text has anything in it that rendering could change."""
    return any(begin in text for begin in _BEGIN)


def is_simple(text: str) -> bool:
    """Say whether a template has nothing in it but references to whole variables (`{{ NAME }}`)."""
    if any(other in text for other in ("{%", "{#", "{{{", "}}}")):
        return False
    found = _REFERENCE.findall(text)
    return text.count("{{") == len(found) == text.count("}}") and _CONSTANTS.isdisjoint(found)


class Renderer:
    """Renders templates; imports jinja2 at the first that needs it, remembers the template files read."""

    def __init__(self, progress: Progress | None = None) -> None:
        """Begin; `progress` is told of each template that jinja2 is about to read or render.

        It is given where the kernel keeps limits; without it `text` may raise `TooMuchText`.
        """
        self._progress = progress
        self._made = 0
        self.files: dict[str, None] = {}
        self._sources: dict[str, tuple[str, str]] = {}
        self._environment: Environment | None = None

    @property
    def environment(self) -> Environment:
        """Return the sandbox."""
        if self._environment is None:
            from cfsbuild.recipe.sandbox import Environment  # noqa: PLC0415 (imports jinja2)

            self._environment = Environment(self._sources)
        return self._environment

    def _tell(self, origin: Origin) -> None:
        if self._progress:
            self._progress(origin)

    def references(self, text: str, origin: Origin) -> set[str]:
        """Return the variables that a template reads. Raises `RecipeError` for bad syntax."""
        if is_simple(text):
            return set(_REFERENCE.findall(text))
        from cfsbuild.recipe import sandbox  # noqa: PLC0415 (imports jinja2)

        self._tell(origin)
        return sandbox.references(self.environment, text, origin)

    def text(self, text: str, variables: Mapping[str, Any], origin: Origin) -> str:
        """Return a template of a recipe rendered. Raises `RecipeError` and `TooMuchText`."""
        if is_simple(text) and all(name in variables for name in _REFERENCE.findall(text)):
            return self._substitute(text, variables, origin)
        from cfsbuild.recipe import sandbox  # noqa: PLC0415 (imports jinja2)

        self._tell(origin)
        if sandbox.referenced_files(self.environment, text, origin):
            brief = "a template in a recipe cannot include files"
            raise RecipeError((Problem(brief, "", "make it a template file", origin),))
        return sandbox.render(self.environment, text, variables, origin)

    def _substitute(self, text: str, variables: Mapping[str, Any], origin: Origin) -> str:
        """Fill in references; how long the result will be is known before it is made."""
        names = _REFERENCE.findall(text)
        values = {name: str(variables[name]) for name in set(names)}
        size = len(text) + sum(len(values[name]) for name in names)
        if size > limits.TEMPLATE_OUTPUT_BYTES:
            brief = f"a template gives more than {limits.TEMPLATE_OUTPUT_BYTES >> 20} MiB of text"
            raise RecipeError((Problem(brief, "", "shorten it", origin),))
        self._made += size
        if self._progress is None and self._made > UNBOUNDED_CHARACTERS:
            raise TooMuchText
        self._tell(origin)
        return _REFERENCE.sub(lambda match: values[match[1]], text)

    def file(self, file: str, variables: Mapping[str, Any], origin: Origin, *, root: str) -> str:
        """Return a template file rendered; `origin` is where it is named.

        The files that it includes are named relative to `root`, and lie below it. Raises `RecipeError`.
        """
        from cfsbuild.recipe import sandbox  # noqa: PLC0415 (imports jinja2)

        text = read_text(file, limit=limits.TEMPLATE_OUTPUT_BYTES, used_at=origin)
        self._tell(origin)
        self.files[file] = None
        self._sources.clear()
        self._gather(text, Origin(file, 1, origin.key), root, _DEPTH)
        return sandbox.render(self.environment, text, variables, origin, file=file)

    def _gather(self, text: str, origin: Origin, root: str, depth: int) -> None:
        """Read the files that a template includes, and those that they include."""
        from cfsbuild.recipe import sandbox  # noqa: PLC0415 (imports jinja2)

        for name in sandbox.referenced_files(self.environment, text, origin, file=origin.file):
            if name in self._sources:
                continue
            if depth == 0:
                brief = f"template files include each other more than {_DEPTH} deep"
                raise RecipeError((Problem(brief, "", "flatten them", origin),))
            file = _below(root, name, origin)
            included = read_text(file, used_at=origin)
            self.files[file] = None
            self._sources[name] = (file, included)
            self._gather(included, Origin(file, 1, origin.key), root, depth - 1)


def _below(root: str, name: str, origin: Origin) -> str:
    """Return the path of an included template. Raises `RecipeError` if it lies outside `root`."""
    file = os.path.join(root, name)  # noqa: PTH118 (a text, shown as written)
    real_root = os.path.realpath(root or ".")
    inside = os.path.realpath(file).startswith(real_root.rstrip("/") + "/")
    if "\0" in name or not inside:
        brief = f"template file `{name!r}` lies outside the recipe's directory"
        raise RecipeError((Problem(brief, "", "move it below the recipe", origin),))
    return file


def render(text: str, variables: Mapping[str, Any], *, origin: Origin) -> str:
    """Return a template rendered with plain data, within limits. Raises `RecipeError`."""
    if not is_template(text):
        return text
    if is_simple(text):
        with suppress(TooMuchText):
            return Renderer().text(text, variables, origin)
    return _bounded(lambda renderer: renderer.text(text, variables, origin))


def render_file(file: str, variables: Mapping[str, Any], *, origin: Origin) -> str:
    """Return a template file rendered with plain data, within limits.

    It may include files below its own directory. Raises `RecipeError`.
    """
    root = os.path.dirname(file)  # noqa: PTH120 (a text, shown as written)
    return _bounded(lambda renderer: renderer.file(file, variables, origin, root=root))


class _Rendered(msgspec.Struct):
    text: str = ""
    problems: tuple[Problem, ...] = ()


def _bounded(work: Callable[[Renderer], str]) -> str:
    from cfsbuild.recipe import bounded  # noqa: PLC0415 (few templates need it)

    def attempt(progress: Progress) -> _Rendered:
        try:
            return _Rendered(work(Renderer(progress)))
        except RecipeError as error:
            return _Rendered(problems=error.problems())

    result = bounded.run(attempt, _Rendered)
    if result.problems:
        raise RecipeError(result.problems)
    return result.text
