"""`cfsbuild sign --export`: the bytes to sign, for a key that is elsewhere."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from cfsbuild.cli.output import note, write_json, write_lines
from cfsbuild.cli.output_file import write_result
from cfsbuild.cli.settings import Settings
from cfsbuild.cli.sign_choice import SIGNED_VERSION


class Exported(msgspec.Struct, frozen=True, kw_only=True):
    """The file with the bytes to sign."""

    version: int = SIGNED_VERSION
    file: str
    dry_run: bool = False


def export(settings: Settings, file: Path, message: bytes, commands: Iterable[str]) -> None:
    """Write the bytes to sign, and tell how; `commands` are examples, `{}` in them stands for the file."""
    if not settings.dry_run:
        write_result(file, message)
    if settings.json:
        write_json(Exported(file=str(file), dry_run=settings.dry_run))
        return
    if settings.dry_run:
        write_lines([f"would write the bytes to sign: {file}"])
        return
    note(settings, f"sign {file} as it is, then --attach the signature:")
    for command in commands:
        note(settings, f"  {command.format(file)}")
