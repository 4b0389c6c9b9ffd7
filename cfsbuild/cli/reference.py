"""The reference of the command line as Markdown, from what click knows.

`python -m cfsbuild.cli.reference docs/cli.md` replaces everything below the marker in that page; a test
compares.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from cfsbuild.cli.group import EXIT_CODES, root
from cfsbuild.cli.verbs import FRONT_ENDS, PROGRAM, VERBS

MARKER = "<!-- Below this line: made by `python -m cfsbuild.cli.reference docs/cli.md`. Do not edit. -->"
WIDTH = 100


def reference() -> str:
    """Return everything below the marker, which it begins with."""
    return "\n".join([MARKER, "", *_exit_codes(), *_global_options(), *_verbs(), *_front_ends()]) + "\n"


def _exit_codes() -> Iterator[str]:
    yield from ("## Exit status", "", "| status | meaning |", "|---|---|")
    yield from (f"| {code} | {meaning} |" for code, meaning in EXIT_CODES)
    yield ""


def _global_options() -> Iterator[str]:
    yield from ("## Global options", "", "They may stand before or after the verb.", "", "```text")
    with _root_context() as context:
        formatter = context.make_formatter()
        click.Command.format_options(root, context, formatter)
    yield from formatter.getvalue().strip("\n").splitlines()
    yield from ("```", "")


def _root_context() -> click.Context:
    settings: dict[str, Any] = {**root.context_settings, "max_content_width": WIDTH, "terminal_width": WIDTH}
    return click.Context(root, info_name=PROGRAM, **settings)


def _verbs() -> Iterator[str]:
    section = ""
    with _root_context() as context:
        for name, verb in VERBS.items():
            if verb.section != section:
                section = verb.section
                yield from (f"## {section}", "")
            command = root.get_command(context, name)
            if command is None:
                raise LookupError(f"there is no verb {name}")
            yield from _command(command, context, name, level=3)


def _command(command: click.Command, parent: click.Context, name: str, *, level: int) -> Iterator[str]:
    """Yield a heading and the help text of `command`, and of what is below it."""
    settings: dict[str, Any] = {"max_content_width": WIDTH, "terminal_width": WIDTH}
    settings |= command.context_settings
    with click.Context(command, parent=parent, info_name=name, **settings) as context:
        yield from (f"{'#' * level} {context.command_path}", "", "```text")
        yield from (line.rstrip() for line in context.get_help().splitlines())
        yield from ("```", "")
        if isinstance(command, click.Group):
            for child in command.list_commands(context):
                found = command.get_command(context, child)
                if found is not None:
                    yield from _command(found, context, child, level=level + 1)


def _front_ends() -> Iterator[str]:
    yield from ("### The front ends", "")
    yield from (f"* `cfsbuild {name}`: {verb.summary}" for name, verb in FRONT_ENDS.items())


def write(page: Path) -> None:
    """Replace what is below the marker in `page`."""
    text = page.read_text(encoding="utf-8")
    page.write_text(text[: text.index(MARKER)] + reference(), encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:]:
        write(Path(sys.argv[1]))
    else:
        sys.stdout.write(reference())
