"""`cfsbuild check`: validation without a build."""

from __future__ import annotations

import os
from pathlib import Path

import click

from cfsbuild.cli.output import write_json, write_lines
from cfsbuild.cli.recipes import recipe_argument, variable_options, variables
from cfsbuild.cli.render import count
from cfsbuild.cli.settings import Settings, common_options, pass_settings

CHECK_VERSION = 1


@click.command("check")
@common_options("json", "quiet", "jobs", "store")
@recipe_argument
@variable_options
@pass_settings
def command(settings: Settings, recipe: Path, profiles: tuple[str, ...], overrides: tuple[str, ...]) -> None:
    """Check RECIPE (default: recipe.toml) and whatever it takes in, without building anything.

    Finds what is wrong with keys, types, variables, templates, needs, owners and local sources, and tells
    all of it; then, which stored images it takes in that are not there, and which nodes provide the same
    path and differ, as far as local files tell. Exit status 2 if there is anything.
    """
    from cfsbuild.build.pipeline import check_conflicts, load_plans, make_request  # noqa: PLC0415 (not for help)
    from cfsbuild.build.stored_images import check_stored_images  # noqa: PLC0415

    request = make_request(
        recipe,
        store=settings.store_path,
        profiles=profiles,
        overrides=variables(overrides),
        trusted_uids=settings.trusted_uids,
        shared_store=settings.shared_store,
    )
    plans = load_plans(request, environ=os.environ)
    check_stored_images(plans, request)
    check_conflicts(plans, request, jobs=settings.job_count)
    recipes = [plan.recipe for plan in plans]
    if settings.json:
        images = [
            {"image_name": item.image_name, "nodes": list(item.nodes), "targets": list(item.targets)}
            for item in recipes
        ]
        write_json({"version": CHECK_VERSION, "images": images})
    elif not settings.quiet:
        write_lines(
            f"ok: {item.image_name} ({count(len(item.nodes), 'node')}, {count(len(item.targets), 'target')})"
            for item in recipes
        )
