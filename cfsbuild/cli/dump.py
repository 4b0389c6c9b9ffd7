"""`cfsbuild dump`: an image as text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import click

from cfsbuild.cli.images import image_argument, open_image
from cfsbuild.cli.output import write_bytes
from cfsbuild.cli.settings import Settings, common_options, pass_settings
from cfsbuild.tree.dump import DumpEntry, format_entry

_BATCH = 1000


@click.command("dump")
@common_options("store")
@image_argument()
@pass_settings
def command(settings: Settings, image: str) -> None:
    """Write IMAGE as composefs-dump(5) text: one line a name, depth first."""
    write_bytes(_batches(open_image(settings, image).entries()))


def _batches(entries: Iterable[DumpEntry]) -> Iterator[bytes]:
    lines: list[bytes] = []
    for entry in entries:
        lines.append(format_entry(entry))
        if len(lines) == _BATCH:
            yield b"\n".join(lines) + b"\n"
            lines.clear()
    if lines:
        yield b"\n".join(lines) + b"\n"
