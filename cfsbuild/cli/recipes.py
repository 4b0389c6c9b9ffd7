"""The recipe that a verb is about: its argument, the options that say what it means, and loading it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cfsbuild.cli.completing import complete_profile
from cfsbuild.cli.settings import Settings
from cfsbuild.cli.verbs import DEFAULT_RECIPE
from cfsbuild.errors import UsageError

if TYPE_CHECKING:
    from cfsbuild.build.job import Plan
    from cfsbuild.build.memo import Request
    from cfsbuild.recipe.model import Recipe

Function = TypeVar("Function", bound=Callable[..., Any])


def recipe_argument(function: Function) -> Function:
    """Add the argument that names a recipe; without it `recipe.toml` in the working directory is meant."""
    return click.argument(
        "recipe", metavar="[RECIPE]", default=DEFAULT_RECIPE, type=click.Path(path_type=Path)
    )(function)


def variable_options(function: Function) -> Function:
    """Add `--profile` and `-o`, as the parameters `profiles` and `overrides`."""
    profile = click.option(
        "-p",
        "--profile",
        "profiles",
        metavar="NAME",
        multiple=True,
        shell_complete=complete_profile,
        help="Apply a profile.",
    )
    override = click.option(
        "-o", "--option", "overrides", metavar="KEY=VALUE", multiple=True, help="Set a variable."
    )
    return profile(override(function))


def recipe_options(function: Function) -> Function:
    """Add the options that say what a recipe means and where its images go."""
    from cfsbuild.build.pipeline import OUTPUT  # noqa: PLC0415 (verbs that build nothing do without)

    output = click.option(
        "--output", metavar="DIR", type=click.Path(path_type=Path), help=f"Where files go [{OUTPUT}]."
    )
    return variable_options(output(function))


def variables(overrides: tuple[str, ...]) -> dict[str, str]:
    """Return the `-o KEY=VALUE` options as a mapping; raises `UsageError` for what is not of that form."""
    result = {}
    for text in overrides:
        name, separator, value = text.partition("=")
        if not separator or not name:
            raise UsageError(
                f"-o {text!r} is not of the form KEY=VALUE", resolution="write -o KEY=VALUE", reason="option"
            )
        result[name] = value
    return result


def request_of(
    settings: Settings,
    recipe: Path,
    output: Path | None,
    profiles: tuple[str, ...],
    overrides: tuple[str, ...],
) -> Request:
    """Return what the command line asks for; raises `UsageError` for what makes no sense."""
    from cfsbuild.build.pipeline import make_request  # noqa: PLC0415 (verbs that build nothing do without)

    if not recipe.is_file():
        raise UsageError(
            f"there is no recipe {recipe}",
            resolution="name a recipe, or write one with cfsbuild init",
            reason="no-recipe",
        )
    return make_request(
        recipe,
        store=settings.store_path,
        output=output,
        profiles=profiles,
        overrides=variables(overrides),
        trusted_uids=settings.trusted_uids,
        shared_store=settings.shared_store,
    )


def plans_of(request: Request, image: str | None) -> list[Plan]:
    """Return the plans of a recipe's images, or of the one called `image`; raises `UsageError` if none is."""
    from cfsbuild.build.pipeline import load_plans  # noqa: PLC0415 (not for help)

    plans = load_plans(request, environ=os.environ)
    chosen = [plan for plan in plans if image in {None, plan.recipe.image_name}]
    if not chosen:
        raise UsageError(
            f"{request.recipe} describes no image {image!r}",
            resolution=f"--image one of: {', '.join(plan.recipe.image_name for plan in plans)}",
        )
    return chosen


def load(recipe: Path, profiles: tuple[str, ...], overrides: tuple[str, ...]) -> list[Recipe]:
    """Return the recipes that a file describes, with every kind that there is. Raises `RecipeError`."""
    from cfsbuild.nodes.registry import NODE_KINDS  # noqa: PLC0415 (not for help)
    from cfsbuild.recipe.load import load_recipes  # noqa: PLC0415
    from cfsbuild.targets.registry import TARGET_KINDS  # noqa: PLC0415

    return load_recipes(
        recipe,
        node_kinds=NODE_KINDS,
        target_kinds=TARGET_KINDS,
        overrides=variables(overrides),
        profiles=profiles,
        environ=os.environ,
    )
