"""`cfsbuild install-links`: names by which other programs find the front ends."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import click

from cfsbuild.cli.output import note, write_json, write_lines
from cfsbuild.cli.settings import Settings, common_options, pass_settings
from cfsbuild.cli.verbs import FRONT_ENDS
from cfsbuild.errors import StoreError, UsageError

LINKS_VERSION = 1


@click.command("install-links")
@common_options("json", "dry_run")
@click.option("-f", "--force", is_flag=True, help="Replace what has one of these names, unless a directory.")
@click.argument("directory", type=click.Path(path_type=Path), metavar="DIR")
@pass_settings
def command(settings: Settings, directory: Path, *, force: bool) -> None:
    """Make symbolic links mkcomposefs, composefs-info and mount.composefs in DIR.

    Programs that run these tools (podman, mount(8) …) then run cfsbuild in their place, if DIR comes first in
    their PATH; mount(8) looks for mount.composefs in /sbin only. Nothing is ever put there unasked.
    """
    program = own_program()
    if not directory.is_dir():
        raise UsageError(f"{directory} is not a directory", resolution=f"make it first: mkdir -p {directory}")
    links = [directory / name for name in FRONT_ENDS]
    taken = [link for link in links if os.path.lexists(link) and not _is_ours(link, program)]
    blocked = taken if not force else [link for link in taken if link.is_dir() and not link.is_symlink()]
    if blocked:
        raise StoreError(
            f"{blocked[0]} exists already",
            details="\n".join(f"{link} too" for link in blocked[1:]),
            resolution="choose another directory, or pass --force" if not force else "remove it first",
            reason="exists",
        )
    if not settings.dry_run:
        for link in links:
            _point(link, program)
    if settings.json:
        write_json(
            {"version": LINKS_VERSION, "program": str(program), "links": [str(link) for link in links]}
        )
    else:
        write_lines(f"{link} -> {program}" for link in links)
        if str(directory.resolve()) not in _search_path():
            note(settings, f"note: {directory} is not in PATH")


def own_program() -> Path:
    """Return the executable by which cfsbuild was called. Raises `UsageError` if it was not called by one."""
    called = sys.argv[0]
    found = called if os.sep in called else shutil.which(called) or ""
    program = Path(found).absolute() if found else None
    if program is None or not os.access(program, os.X_OK) or program.suffix == ".py":
        beside = Path(sys.executable).with_name("cfsbuild")
        if not os.access(beside, os.X_OK):
            raise UsageError(
                "cannot tell which program the links should point to",
                resolution="call cfsbuild by its installed script, not through python -m",
            )
        program = beside
    return program


def _is_ours(link: Path, program: Path) -> bool:
    return link.is_symlink() and os.readlink(link) == str(program)  # noqa: PTH115 (the text as written)


def _point(link: Path, program: Path) -> None:
    """Replace `link` in one step, so that its name always leads somewhere."""
    temporary = link.with_name(f".{link.name}.{os.getpid()}")
    temporary.symlink_to(program)
    try:
        temporary.replace(link)
    except OSError:
        temporary.unlink()
        raise


def _search_path() -> set[str]:
    return {str(Path(part).resolve()) for part in os.environ.get("PATH", "").split(os.pathsep) if part}
