"""Writing results to standard output: data only, undecodable names included."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, BinaryIO

import click

from cfsbuild.cli.render import json_line
from cfsbuild.cli.settings import Settings

_BATCH = 1 << 16


def write_lines(lines: Iterable[str]) -> None:
    """Write text lines as UTF-8 whatever the locale, a batch at a time."""
    stream = _stream()
    batch: list[str] = []
    size = 0
    for line in lines:
        batch.append(line)
        size += len(line)
        if size > _BATCH:
            stream.write(_encoded(batch))
            batch, size = [], 0
    if batch:
        stream.write(_encoded(batch))
    stream.flush()


def _stream() -> BinaryIO:
    sys.stdout.flush()
    return sys.stdout.buffer


def _encoded(lines: list[str]) -> bytes:
    return ("\n".join(lines) + "\n").encode(errors="backslashreplace")


def write_bytes(chunks: Iterable[bytes]) -> None:
    """Write raw data."""
    stream = _stream()
    for chunk in chunks:
        stream.write(chunk)
    stream.flush()


def write_json(document: Any) -> None:  # noqa: ANN401 (anything that msgspec can encode)
    """Write one JSON document on one line."""
    write_bytes([json_line(document)])


def note(settings: Settings, text: str) -> None:
    """Tell people something on standard error, unless they asked for quiet."""
    if not settings.quiet:
        click.echo(text.encode(errors="backslashreplace").decode(), err=True, color=settings.color_on_stderr)
