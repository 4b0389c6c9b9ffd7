"""`cfsbuild diff`: two images, path by path."""

from __future__ import annotations

from collections.abc import Iterator

import click

from cfsbuild.cli import render
from cfsbuild.cli.changes import change_lines, summarise, summary_lines
from cfsbuild.cli.facts import Fact, comparable_tree, compare_facts
from cfsbuild.cli.images import Image, image_argument, open_image
from cfsbuild.cli.output import write_json, write_lines
from cfsbuild.cli.settings import Settings, common_options, pass_settings
from cfsbuild.tree.diff import Change
from cfsbuild.tree.diff import diff as compare

EXIT_DIFFERENT = 6
DIFF_VERSION = 1


@click.command("diff")
@common_options("json", "store", "color")
@click.option("--stat", "only_summary", is_flag=True, help="Only count what differs.")
@image_argument("a", "A")
@image_argument("b", "B")
@pass_settings
def command(settings: Settings, a: str, b: str, *, only_summary: bool) -> int:
    """Show what differs between the images A and B: path, attribute, both values.

    Exit status 6 if anything differs. When the trees are equal and only the image files differ, that is shown
    too; `cfsbuild explain` says more about it.
    """
    before, after = open_image(settings, a), open_image(settings, b)
    changes = compare(comparable_tree(before.listing()), comparable_tree(after.listing()))
    facts = [] if changes else compare_facts(before, after)
    identical = before.data == after.data
    different = bool(changes or facts) or (before.kind == after.kind == "image" and not identical)
    if settings.json:
        write_json(_document(before, after, changes, facts))
    elif only_summary:
        write_lines(summary_lines(summarise(changes)))
    elif different and not settings.quiet:
        write_lines(_lines(changes, facts, color=settings.color_on_stdout))
    return EXIT_DIFFERENT if different else 0


def _lines(changes: list[Change], facts: list[Fact], *, color: bool) -> Iterator[str]:
    if changes:
        yield from change_lines(changes, color=color)
        return
    yield render.paint("~ (image file)", "yellow", color=color)
    for fact in facts:
        yield f"    {fact.name}  {fact.before} -> {fact.after}"
    if not facts:
        yield "    layout  the same tree, written in another way"


def _document(a: Image, b: Image, changes: list[Change], facts: list[Fact]) -> dict[str, object]:
    return {
        "version": DIFF_VERSION,
        "a": {"name": a.name, "digest": a.digest()},
        "b": {"name": b.name, "digest": b.digest()},
        "summary": summarise(changes),
        "changes": changes,
        "image": [{"name": fact.name, "before": fact.before, "after": fact.after} for fact in facts],
    }
