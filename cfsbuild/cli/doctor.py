"""`cfsbuild doctor`: what works on this machine, and what to install for the rest."""

from __future__ import annotations

import click
import msgspec

from cfsbuild.cli import render
from cfsbuild.cli.checks import Check, all_checks
from cfsbuild.cli.output import write_json, write_lines
from cfsbuild.cli.settings import Settings, common_options, pass_settings

DOCTOR_VERSION = 1

_MARKS = {"ok": ("ok", "green"), "limited": ("limited", "yellow"), "missing": ("missing", "red")}


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """Every check and its outcome. `usable`: images can be built here."""

    version: int = DOCTOR_VERSION
    usable: bool
    checks: list[Check]


@click.command("doctor")
@common_options("json", "store", "color")
@pass_settings
def command(settings: Settings) -> int:
    """Say what works on this machine: Python and native code, the store, the kernel, programs.

    Changes nothing and mounts nothing. Exit status 1 if images cannot be built here; what only limits some
    verbs does not count.
    """
    checks = all_checks(settings)
    usable = not any(check.state == "missing" and check.needed for check in checks)
    if settings.json:
        write_json(Diagnosis(usable=usable, checks=checks))
    else:
        write_lines(_lines(checks, color=settings.color_on_stdout))
    return 0 if usable else 1


def _lines(checks: list[Check], *, color: bool) -> list[str]:
    lines: list[str] = []
    section = ""
    width = max(len(check.name) for check in checks)
    for check in checks:
        if check.section != section:
            section = check.section
            lines += ["", section] if lines else [section]
        mark, style = _MARKS[check.state]
        shown = render.paint(mark, style, color=color) + " " * (len("missing") - len(mark))
        lines.append(f"  {shown}  {check.name.ljust(width)}  {check.found}")
        if check.advice:
            lines.append(f"{' ' * (13 + width)}{render.paint(check.advice, 'dim', color=color)}")
    return lines
