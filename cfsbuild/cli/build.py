"""`cfsbuild build`: recipe to image.

Standard output has one line for each image: its digest, two spaces, the path of the image file. With
`--json` it is one JSON document.
"""

from __future__ import annotations

import os
from pathlib import Path

import click

from cfsbuild.build.pipeline import Options, build
from cfsbuild.build.result import BuildResult
from cfsbuild.cli.listeners import listening
from cfsbuild.cli.passphrases import given_passphrase, passphrase_options
from cfsbuild.cli.recipes import recipe_argument, recipe_options, request_of
from cfsbuild.cli.settings import Settings, common_options, pass_settings


@click.command("build")
@common_options("json", "jobs", "keep_going", "dry_run", "verbose", "progress", "store")
@recipe_argument
@recipe_options
@click.option("-f", "--force", is_flag=True, help="Run every job, whatever is known.")
@click.option("--check", is_flag=True, help="Build twice from nothing and compare (exit 4 if they differ).")
@passphrase_options
@pass_settings
def command(  # noqa: PLR0913 (the verb's options)
    settings: Settings,
    recipe: Path,
    output: Path | None,
    profiles: tuple[str, ...],
    overrides: tuple[str, ...],
    *,
    force: bool,
    check: bool,
    passphrase_fd: int | None,
    passphrase_file: Path | None,
) -> int:
    """Build the images of RECIPE (default: recipe.toml).

    Writes DIGEST and PATH of each image to standard output. The image goes to the store, and with its dump
    and its manifest to the output directory.
    """
    request = request_of(settings, recipe, output, profiles, overrides)
    if settings.dry_run:
        from cfsbuild.cli.plan_text import show_plan  # noqa: PLC0415 (this option only)

        return show_plan(settings, request, force=force)
    given = given_passphrase(passphrase_fd, passphrase_file)
    options = Options(
        jobs=settings.job_count,
        keep_going=settings.keep_going,
        force=None if force else (),
        passphrase=(lambda _: given) if given else None,
    )
    with listening(settings) as listener:
        if check:
            from cfsbuild.build.reproduce import check_reproducible  # noqa: PLC0415 (this option only)

            results = check_reproducible(request, options, listener=listener, environ=os.environ)
        else:
            results = build(request, options, listener=listener, environ=os.environ)
    show_results(settings, results)
    return 0


def show_results(settings: Settings, results: tuple[BuildResult, ...]) -> None:
    """Write what was built to standard output."""
    from cfsbuild.cli.output import write_json, write_lines  # noqa: PLC0415 (nothing before has output)

    if settings.json:
        write_json({"version": 1, "images": results})
        return
    lines = []
    for result in results:
        for image in result.images:
            path = os.path.relpath(image.files[0]) if image.files else image.reference
            lines.append(f"{image.digest}  {path}")
    write_lines(lines)
