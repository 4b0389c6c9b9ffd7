"""`cfsbuild init`: a project to start from."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import click

from cfsbuild.cli.output import note, write_json, write_lines
from cfsbuild.cli.settings import Settings, common_options, pass_settings
from cfsbuild.errors import Origin, UsageError

INIT_VERSION = 1

FILES = {
    "recipe.toml": ("recipe.toml.j2", 0o644),
    "cfsbuild.toml": ("cfsbuild.toml.j2", 0o644),
    "motd.j2": ("motd.j2.j2", 0o644),
    "files/bin/hello": ("hello.sh.j2", 0o755),
}
"""What is written, from which template, with which mode."""

_FALLBACK_NAME = "hello"
_NAME_LENGTH = 64


@click.command("init")
@common_options("json", "quiet")
@click.argument("directory", metavar="[DIR]", default=".", type=click.Path(path_type=Path))
@click.option("--name", metavar="NAME", help="Name of the image [the directory's name].")
@pass_settings
def command(settings: Settings, directory: Path, name: str | None) -> None:
    """Write a commented recipe into DIR (default: here), and what it needs to be built at once.

    Writes recipe.toml, cfsbuild.toml, a template and a small source; refuses to overwrite any of them.
    """
    chosen = _valid(name) if name is not None else _name_from(directory.absolute().name)
    written = write_project(directory, chosen)
    if settings.json:
        write_json({"version": INIT_VERSION, "name": chosen, "files": [str(path) for path in written]})
        return
    write_lines(str(path) for path in written)
    place = "" if directory == Path() else f"-C {directory} "
    note(settings, f"now build it: cfsbuild {place}build")


def write_project(directory: Path, name: str) -> list[Path]:
    """Write the files of a new project, and return their paths.

    Raises `UsageError`, and writes nothing, if one of them exists.
    """
    from importlib import import_module  # noqa: PLC0415 (this verb only)

    from cfsbuild.recipe.template import render_file  # noqa: PLC0415

    source = Path(import_module("cfsbuild.templates").__path__[0])
    texts = {
        directory / file: render_file(str(source / template), {"name": name}, origin=Origin(template))
        for file, (template, _) in FILES.items()
    }
    _refuse_existing(list(texts))
    written: list[Path] = []
    try:
        for (path, text), (_, mode) in zip(texts.items(), FILES.values(), strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            _write_new(path, text, mode)
            written.append(path)
    except BaseException:
        # Half a project would stand in the way of the next attempt.
        for path in written:
            with contextlib.suppress(OSError):
                path.unlink()
        raise
    return written


def _refuse_existing(paths: list[Path]) -> None:
    there = [str(path) for path in paths if os.path.lexists(path)]
    if there:
        raise UsageError(
            f"{there[0]} exists already",
            details="\n".join(f"also: {path}" for path in there[1:]),
            resolution="name another directory, or move what is there out of the way",
            reason="exists",
        )


def _write_new(path: Path, text: str, mode: int) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    except FileExistsError:
        raise UsageError(f"{path} exists already", resolution="name another directory") from None
    with open(descriptor, "w", encoding="utf-8", newline="\n") as stream:  # noqa: PTH123 (a descriptor)
        stream.write(text)


def _valid(name: str) -> str:
    if _name_from(name) != name:
        raise UsageError(
            f"{name!r} cannot be the name of an image",
            resolution="use letters, digits and . _ - + ~, beginning with a letter or digit",
            reason="name",
        )
    return name


def _name_from(text: str) -> str:
    """Return what is usable of a directory's name as the name of an image."""
    kept = "".join(char if char.isascii() and (char.isalnum() or char in "._-+~") else "-" for char in text)
    return kept.strip("._-+~")[:_NAME_LENGTH] or _FALLBACK_NAME
