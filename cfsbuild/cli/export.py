"""`cfsbuild export`: an image in a form that other programs read."""

from __future__ import annotations

import stat
from collections.abc import Iterable
from pathlib import Path

import click

from cfsbuild.cli import render
from cfsbuild.cli.contents import first_of_each_object, object_name, read_content
from cfsbuild.cli.images import Image, image_argument, objects_option, open_image
from cfsbuild.cli.output import note, write_bytes, write_json
from cfsbuild.cli.output_file import replace_file
from cfsbuild.cli.settings import Settings, common_options, pass_settings
from cfsbuild.errors import UsageError
from cfsbuild.tree.dump import format_entry

FORMATS = ("image", "dump", "tar", "dir")
EXPORT_VERSION = 1
_SUFFIXES = {".cfs": "image", ".erofs": "image", ".dump": "dump", ".tar": "tar"}


@click.command("export")
@common_options("json", "store")
@click.option("--format", "wanted", type=click.Choice(FORMATS), help="What to write, if DEST does not tell.")
@objects_option("Also look for objects in DIR (may be repeated).")
@image_argument()
@click.argument("dest", metavar="DEST")
@pass_settings
def command(
    settings: Settings, image: str, dest: str, *, wanted: str | None, objects: tuple[Path, ...]
) -> None:
    """Write IMAGE to DEST.

    DEST ends in .cfs (the image file), .dump (composefs-dump text) or .tar (a pax archive with all contents),
    or it is a directory, which then gets NAME.cfs and objects/: all that a machine needs to mount the image.
    `-` is standard output. Nothing appears at DEST until it is complete, and contents are verified before
    they are written; objects that are in the directory already are kept.
    """
    opened = open_image(settings, image)
    form = wanted or _guess(dest)
    if form == "dir":
        if dest == "-":
            raise UsageError("a directory cannot go to standard output", resolution="choose another --format")
        copied = _export_directory(settings, opened, Path(dest), objects)
        _report(settings, opened, dest, form, copied)
        return
    chunks = _chunks(settings, opened, form, objects)
    if dest == "-":
        write_bytes(chunks)
        return
    replace_file(dest, chunks, mode=0o666)
    _report(settings, opened, dest, form, None)


def _guess(dest: str) -> str:
    if dest.endswith("/") or Path(dest).is_dir():
        return "dir"
    form = _SUFFIXES.get(Path(dest).suffix)
    if form is None:
        raise UsageError(
            f"the name {dest} does not tell what to write",
            resolution=f"give --format {'|'.join(FORMATS)}, or end the name in {', '.join(_SUFFIXES)} or /",
        )
    return form


def _chunks(settings: Settings, image: Image, form: str, objects: tuple[Path, ...]) -> Iterable[bytes]:
    if form == "image":
        image.read()
        return [image.data]
    if form == "dump":
        return (format_entry(entry) + b"\n" for entry in image.entries())
    from cfsbuild.cli.tar_writer import tar_chunks  # noqa: PLC0415 (only for archives)

    entries = image.listing()
    sockets = sum(stat.S_ISSOCK(entry.mode) for entry in entries.values())
    if sockets:
        note(settings, f"warning: {render.count(sockets, 'socket')} left out: a tar archive cannot hold any")
    return tar_chunks(entries.values(), lambda entry: read_content(settings, image, entry, objects))


def _export_directory(
    settings: Settings, image: Image, directory: Path, objects: tuple[Path, ...]
) -> tuple[int, int]:
    """Write objects first, the image last; return how many objects were copied, and how many were there."""
    image.read()
    entries = first_of_each_object(image.listing())
    target = directory / "objects"
    target.mkdir(parents=True, exist_ok=True)
    copied = 0
    for digest, entry in entries.items():
        place = target / object_name(digest)
        if place.is_file() and place.stat().st_size == entry.size:
            continue
        place.parent.mkdir(exist_ok=True)
        replace_file(place, read_content(settings, image, entry, objects), mode=0o444)
        copied += 1
    name = image.reference.replace("/", "-") or image.path.stem
    replace_file(directory / f"{name}.cfs", [image.data], mode=0o666)
    return copied, len(entries) - copied


def _report(settings: Settings, image: Image, dest: str, form: str, copied: tuple[int, int] | None) -> None:
    if settings.json:
        document: dict[str, object] = {
            "version": EXPORT_VERSION,
            "image": image.name,
            "digest": image.digest(),
            "format": form,
            "path": dest,
        }
        if copied is not None:
            document |= {"objects_copied": copied[0], "objects_present": copied[1]}
        write_json(document)
    elif copied is not None:
        note(settings, f"{dest}: {render.count(copied[0], 'object')} copied, {copied[1]:,} already there")
