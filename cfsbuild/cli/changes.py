"""Differences between trees as text: one block a path, or a summary."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator

import msgspec

from cfsbuild.cli import render
from cfsbuild.tree.diff import Change, Value

_WIDTH = 72
_NANOSECONDS = 10**9


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """How much differs. `attributes` counts the paths in which each attribute differs."""

    added: int
    removed: int
    changed: int
    attributes: dict[str, int]


def summarise(changes: list[Change]) -> Summary:
    """Count `changes`."""
    added = sum(change.attribute == "present" and change.before is None for change in changes)
    removed = sum(change.attribute == "present" and change.after is None for change in changes)
    attributes = Counter(change.attribute for change in changes if change.attribute != "present")
    paths = {change.path for change in changes if change.attribute != "present"}
    return Summary(
        added=added, removed=removed, changed=len(paths), attributes=dict(attributes.most_common())
    )


def change_lines(changes: list[Change], *, color: bool) -> Iterator[str]:
    """Yield `+ PATH (type)`, `- PATH (type)`, or `~ PATH` and a line for each attribute."""
    for path, group in itertools.groupby(changes, key=lambda change: change.path):
        found = list(group)
        if found[0].attribute == "present":
            yield _presence(found[0], color=color)
            continue
        yield render.paint(f"~ {path}", "yellow", color=color)
        width = max(len(change.attribute) for change in found)
        for change in found:
            before, after = (show_value(change.attribute, value) for value in (change.before, change.after))
            arrow = (
                f"{render.paint(before, 'red', color=color)} -> {render.paint(after, 'green', color=color)}"
            )
            yield f"    {change.attribute.ljust(width)}  {arrow}"


def _presence(change: Change, *, color: bool) -> str:
    if change.before is None:
        return render.paint(f"+ {change.path} ({change.after})", "green", color=color)
    return render.paint(f"- {change.path} ({change.before})", "red", color=color)


def show_value(attribute: str, value: Value) -> str:
    """Return a value of a change for people: times as dates, inline content as text, long values cut."""
    if value is None:
        return "(none)"
    if attribute == "mtime" and isinstance(value, int):
        return show_time(value)
    if isinstance(value, list):
        return ", ".join(value) or "(none)"
    text = str(value)
    if text.startswith("inline:"):
        text = _inline(bytes.fromhex(text.removeprefix("inline:")))
    return text if len(text) <= _WIDTH else text[: _WIDTH - 1] + "…"


def show_time(mtime_ns: int) -> str:
    """Return a time in full: date, seconds, nanoseconds if there are any, UTC."""
    seconds, nanoseconds = divmod(mtime_ns, _NANOSECONDS)
    minute = render.utc_time(seconds)
    if minute.startswith("@"):
        return f"@{seconds}.{nanoseconds:09d}"
    fraction = f".{nanoseconds:09d}" if nanoseconds else ""
    return f"{minute}:{seconds % 60:02d}{fraction}"


def _inline(content: bytes) -> str:
    if not content:
        return "(empty)"
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return f"0x{content.hex()}"
    return '"' + text.encode("unicode_escape").decode() + '"' if not text.isprintable() else f'"{text}"'


def summary_lines(summary: Summary) -> list[str]:
    """Return the summary as text, a line for each attribute."""
    lines = [f"{summary.added:,} added, {summary.removed:,} removed, {summary.changed:,} changed"]
    rows = [[f"  {name}", f"{number:,}"] for name, number in summary.attributes.items()]
    return lines + render.columns(rows, right={1}, gap="  ")
