"""`cfsbuild cat`: the content of files of an image, verified."""

from __future__ import annotations

import stat
from pathlib import Path

import click

from cfsbuild.cli.contents import read_content
from cfsbuild.cli.images import image_argument, objects_option, open_image
from cfsbuild.cli.lookup import argument_path, locate
from cfsbuild.cli.output import write_bytes
from cfsbuild.cli.settings import Settings, common_options, pass_settings
from cfsbuild.errors import UsageError
from cfsbuild.tree import paths


@click.command("cat")
@common_options("store")
@objects_option("Also look for objects in DIR (may be repeated).")
@image_argument()
@click.argument("path", nargs=-1, required=True, metavar="PATH…")
@pass_settings
def command(settings: Settings, image: str, path: tuple[str, ...], *, objects: tuple[Path, ...]) -> None:
    """Write files of IMAGE to standard output, one after the other.

    Symbolic links are followed inside the image. Each content is compared with its digest before any of it is
    written.
    """
    opened = open_image(settings, image)
    entries = opened.listing()
    found = [locate(entries, argument_path(text), image=opened.name, follow=True) for text in path]
    for entry in found:
        if not stat.S_ISREG(entry.mode):
            kind = "a directory" if stat.S_ISDIR(entry.mode) else "not a regular file"
            raise UsageError(f"{paths.show(entry.path)} is {kind}", reason="not-a-file")
    for entry in found:
        write_bytes(read_content(settings, opened, entry, objects))
