"""The root of the command line: global options, and the verbs below it."""

from __future__ import annotations

import contextlib
from pathlib import Path

import click
from click.exceptions import Exit

from cfsbuild import __version__
from cfsbuild.cli.lazy import LazyGroup
from cfsbuild.cli.settings import Settings, global_options
from cfsbuild.cli.verbs import COMPLETE_VARIABLE, PROGRAM

__all__ = ["Exit", "complete", "root"]

EXIT_CODES: tuple[tuple[int, str], ...] = (
    (0, "success"),
    (1, "the build failed, or an input is malformed"),
    (2, "wrong usage, or an error in a recipe or configuration file"),
    (3, "the lock file is missing or stale"),
    (4, "not reproducible (build --check)"),
    (5, "verification failed"),
    (6, "differences were found (diff, explain)"),
    (7, "store or input/output error"),
    (70, "internal error: a bug"),
    (130, "interrupted (143: terminated, 129: hung up)"),
)

_EPILOG = "\b\nExit status:\n" + "\n".join(f"  {code:>3}  {meaning}" for code, meaning in EXIT_CODES)


def _directory(context: click.Context, _parameter: click.Parameter, value: str | None) -> None:
    """Go to the directory at once, so that everything else on the command line is relative to it."""
    if value is None:
        return
    context.with_resource(contextlib.chdir(value))
    known = context.obj if isinstance(context.obj, Settings) else Settings()
    context.obj = known._replace(directory=Path.cwd())


@click.group(
    PROGRAM,
    cls=LazyGroup,
    epilog=_EPILOG,
    subcommand_metavar="VERB [ARGUMENTS]…",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, "-V", "--version", message=f"{PROGRAM} %(version)s")
@click.option(
    "-C",
    "--directory",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False),
    is_eager=True,
    expose_value=False,
    callback=_directory,
    help="Go to DIR first.",
)
@global_options
def root() -> None:
    """Build verified composefs system images from recipes.

    IMAGE is the name of an image in the store, its digest, an image file, or a recipe.
    `cfsbuild RECIPE.toml` is short for `cfsbuild build RECIPE.toml`.
    """


def complete(instruction: str) -> int:
    """Answer a shell's completion request; return the exit status."""
    from click.shell_completion import shell_complete  # noqa: PLC0415 (only when completing)

    return shell_complete(root, {}, PROGRAM, COMPLETE_VARIABLE, instruction)
