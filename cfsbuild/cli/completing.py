"""What shells offer for arguments: names in the store and in a recipe.

There is no place to complain, so whatever goes wrong, nothing is offered.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cfsbuild.cli.settings import Settings, resolve
from cfsbuild.cli.stores import open_store
from cfsbuild.cli.verbs import DEFAULT_RECIPE
from cfsbuild.errors import CfsError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


def complete_image(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return references of the store that begin with `incomplete`, and files."""
    del parameter
    return _with_files(context, _references(context), incomplete)


def complete_recipe_or_node(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return files, and the jobs of the default recipe: for a first argument that may be either."""
    del parameter
    return _with_files(context, _jobs(_directory(context) / DEFAULT_RECIPE), incomplete)


def complete_node(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return jobs of the recipe that begin with `incomplete` and were not given yet."""
    first = str(context.params.get("recipe"))
    jobs = [name for name in _jobs(_recipe(context)) if name != first]
    return _not_given(jobs, context, parameter, incomplete)


def complete_profile(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return profiles of the recipe that begin with `incomplete` and were not given yet."""
    return _not_given(_tables(_recipe(context), "profiles"), context, parameter, incomplete)


def complete_reference(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return references of the store that begin with `incomplete` and were not given yet."""
    return _not_given(_references(context), context, parameter, incomplete)


def _not_given(
    names: list[str], context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[str]:
    given = context.params.get(parameter.name or "") or ()
    return [name for name in names if name.startswith(incomplete) and name not in given]


def _with_files(context: click.Context, names: list[str], incomplete: str) -> list[CompletionItem]:
    """Return `names` and files that begin with `incomplete`.

    A shell that is told to take files forgets everything else, so files beside names are named here.
    """
    from click.shell_completion import CompletionItem  # noqa: PLC0415 (only when completing)

    found = [name for name in names if name.startswith(incomplete)]
    if not found:
        return [CompletionItem(incomplete, type="file")]
    beside = () if "/" in incomplete else _directory(context).iterdir()
    files = (path.name for path in beside if path.name.startswith(incomplete))
    return [CompletionItem(name) for name in sorted({*found, *files})]


def _references(context: click.Context) -> list[str]:
    """Return the names of references; none if there is no store, or none that can be read."""
    given = context.obj if isinstance(context.obj, Settings) else Settings()
    try:
        with contextlib.closing(open_store(resolve(given))) as store:
            return sorted(store.refs())
    except (CfsError, OSError):
        return []


def _recipe(context: click.Context) -> Path:
    """Return the recipe that was given, or the default one: `why` takes a node in its place.

    While an option waits for its value, click has not told arguments apart yet: they are all in `args`.
    """
    here = _directory(context)
    given = (*context.args, context.params.get("recipe") or DEFAULT_RECIPE)
    with contextlib.suppress(OSError):
        return next((here / path for path in given if (here / path).is_file()), here / DEFAULT_RECIPE)
    return here / DEFAULT_RECIPE


def _directory(context: click.Context) -> Path:
    """Return where -C points: while completing, nobody has gone there."""
    given = context.obj.directory if isinstance(context.obj, Settings) else None
    return given or Path()


def _jobs(recipe: Path) -> list[str]:
    """Return the names of nodes, then those of targets as `why` takes them."""
    from cfsbuild.build.job import TARGET_PREFIX  # noqa: PLC0415 (only when completing)

    targets = dict.fromkeys(["image", *_tables(recipe, "targets")])
    nodes = _tables(recipe, "nodes")
    return [*nodes, *(f"{TARGET_PREFIX}{name}" for name in targets)] if nodes else []


def _tables(recipe: Path, section: str) -> list[str]:
    """Return what the recipe, which may have mistakes, and its includes have in a section."""
    from cfsbuild.recipe.include import read_recipe  # noqa: PLC0415 (only when completing)

    try:
        found = read_recipe(str(recipe)).table.get(section) if recipe.is_file() else None
    except (CfsError, OSError):
        return []
    return list(found.data) if found is not None and isinstance(found.data, dict) else []
