"""`cfsbuild watch`: build again whenever a source changes, until Ctrl-C."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

import click

from cfsbuild.build.pipeline import Options
from cfsbuild.build.watch import Round, watch
from cfsbuild.cli.build import show_results
from cfsbuild.cli.errors_text import error_text
from cfsbuild.cli.listeners import listening, write_line
from cfsbuild.cli.recipes import recipe_argument, recipe_options, request_of
from cfsbuild.cli.settings import Settings, common_options, pass_settings


@click.command("watch")
@common_options("json", "jobs", "keep_going", "progress", "store")
@recipe_argument
@recipe_options
@pass_settings
def command(
    settings: Settings,
    recipe: Path,
    output: Path | None,
    profiles: tuple[str, ...],
    overrides: tuple[str, ...],
) -> NoReturn:
    """Build the images of RECIPE (default: recipe.toml), and again whenever it or a local source changes.

    Writes the same lines as `build` after each build. A build that fails is reported, and tried again after
    the next change. Ctrl-C ends it (exit 130).
    """
    request = request_of(settings, recipe, output, profiles, overrides)
    options = Options(jobs=settings.job_count, keep_going=settings.keep_going)
    with listening(settings) as listener:
        for outcome in watch(request, options, environ=os.environ, listener=listener):
            _show(settings, outcome)
    raise click.Abort  # the loop above has no end


def _show(settings: Settings, outcome: Round) -> None:
    if outcome.error is not None:
        write_line(error_text(outcome.error, color=settings.color_on_stderr))
    else:
        show_results(settings, outcome.results)
    if not settings.quiet:
        write_line("watching for changes (Ctrl-C ends)")
