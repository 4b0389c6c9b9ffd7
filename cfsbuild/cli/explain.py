"""`cfsbuild explain`: why two images have different digests."""

from __future__ import annotations

from collections.abc import Iterator

import click
import msgspec

from cfsbuild.cli import render
from cfsbuild.cli.changes import change_lines, show_value, summarise, summary_lines
from cfsbuild.cli.diff import EXIT_DIFFERENT
from cfsbuild.cli.facts import Fact, comparable_tree, compare_facts, compare_storage, first_different_byte
from cfsbuild.cli.images import Image, image_argument, open_image
from cfsbuild.cli.lookup import Entries
from cfsbuild.cli.output import write_json, write_lines
from cfsbuild.cli.settings import Settings, common_options, pass_settings
from cfsbuild.tree.diff import Change, first_difference
from cfsbuild.tree.diff import diff as compare

EXPLANATION_VERSION = 1
SHOWN = 20

_CAUSES = {"format", "algorithm"}
"""Properties of the file that are causes. All others follow from the tree, and are shown only without one."""


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """Why two digests differ: one sentence, and everything that it rests on."""

    version: int = EXPLANATION_VERSION
    a: str
    b: str
    equal: bool
    verdict: str
    first: Change | None = None
    image: list[Fact] = []
    storage: list[Fact] = []
    changes: list[Change] = []
    first_byte: int | None = None


@click.command("explain")
@common_options("json", "store", "color")
@click.option("--all", "show_all", is_flag=True, help=f"List every difference, not the first {SHOWN} paths.")
@image_argument("a", "A")
@image_argument("b", "B")
@pass_settings
def command(settings: Settings, a: str, b: str, *, show_all: bool) -> int:
    """Say why the digests of A and B differ: the first difference that matters, then the others.

    Looks at the trees, at how contents are stored (inline or as objects, with or without digest), and at the
    image files themselves (format version, hash, header). Exit status 6 if the digests differ.
    """
    before, after = open_image(settings, a), open_image(settings, b)
    found = explain(before, after)
    if settings.json:
        write_json(found)
    else:
        write_lines(_lines(found, before, after, show_all=show_all, color=settings.color_on_stdout))
    return 0 if found.equal else EXIT_DIFFERENT


def explain(a: Image, b: Image) -> Explanation:
    """Return why `a` and `b` differ."""
    digests = (a.digest(), b.digest())
    if a.data == b.data:
        return Explanation(
            a=digests[0], b=digests[1], equal=True, verdict="the two are the same, byte for byte"
        )
    entries = (a.listing(), b.listing())
    storage = compare_storage(*entries)
    changes = _tree_changes(entries, storage)
    facts = compare_facts(a, b)
    if changes or storage:
        facts = [fact for fact in facts if fact.name in _CAUSES]
    images = a.kind == b.kind == "image"
    equal = not (changes or storage or facts) and not images
    offset = first_different_byte(a.data, b.data) if images else None
    return Explanation(
        a=digests[0],
        b=digests[1],
        equal=equal,
        verdict=_verdict(changes, storage, facts, equal=equal),
        first=first_difference(changes),
        image=facts,
        storage=storage,
        changes=changes,
        first_byte=offset,
    )


def _tree_changes(entries: tuple[Entries, Entries], storage: list[Fact]) -> list[Change]:
    """Return how the trees differ, without what only says that the same content is stored in another way."""
    elsewhere = {fact.path for fact in storage if fact.name != "backing-path"}
    changes = compare(*map(comparable_tree, entries))
    return [change for change in changes if not (change.attribute == "content" and change.path in elsewhere)]


def _verdict(changes: list[Change], storage: list[Fact], facts: list[Fact], *, equal: bool) -> str:
    """Return one sentence: the cause that explains most."""
    causes = [fact for fact in facts if fact.name in _CAUSES]
    if equal:
        return "the two describe the same tree"
    if causes and not changes and not storage:
        what = " and ".join(f"{fact.name} ({fact.before} and {fact.after})" for fact in causes)
        return f"the trees are equal; the images differ in {what}"
    only = {change.attribute for change in changes}
    if only == {"mtime"}:
        return f"only times differ, of {render.count(len(changes), 'path')}: {_time_cause(changes)}"
    if changes:
        return f"the trees differ: {', '.join(summary_lines(summarise(changes))[:1])}"
    if storage:
        kinds = {fact.name for fact in storage}
        what = {
            frozenset({"stored"}): "small files are inline in one image and objects in the other",
            frozenset({"digest"}): "only one image carries digests of the contents",
            frozenset({"backing-path"}): "objects are found under other paths (another flavour)",
        }.get(frozenset(kinds), "contents are stored in other ways (another flavour)")
        return f"the trees are equal; {what}"
    return "the trees are equal; the image files were laid out in different ways, by different programs"


def _time_cause(changes: list[Change]) -> str:
    """Say what makes times, and nothing else, differ."""
    befores, afters = ({getattr(change, side) for change in changes} for side in ("before", "after"))
    whole = [all(isinstance(t, int) and t % 10**9 == 0 for t in times) for times in (befores, afters)]
    if whole[0] != whole[1]:
        return "one image has whole seconds (clamped to an epoch), the other has fractions"
    if len(befores) == len(afters) == 1:
        before, after = (show_value("mtime", times.pop()) for times in (befores, afters))
        return f"{before} and {after} everywhere, so the epoch is another (SOURCE_DATE_EPOCH, `epoch`)"
    return "compare the epochs, and the times of the sources"


def _lines(found: Explanation, a: Image, b: Image, *, show_all: bool, color: bool) -> Iterator[str]:
    for name, image, digest in (("A", a, found.a), ("B", b, found.b)):
        yield f"{name}  {digest or '(a dump)'}  {image.name}"
    yield ""
    yield render.paint(found.verdict[:1].upper() + found.verdict[1:] + ".", "bold", color=color)
    alone = len({change.path for change in found.changes}) == 1
    if found.first is not None:
        yield ""
        yield "The difference:" if alone else "The first difference that matters:"
        first = found.changes if alone else [found.first]
        yield from (f"  {line}" for line in change_lines(first, color=color))
    yield from _fact_lines("The image files", found.image)
    yield from _fact_lines("How contents are stored", found.storage if show_all else found.storage[:SHOWN])
    if not show_all and len(found.storage) > SHOWN:
        yield f"  … and {render.count(len(found.storage) - SHOWN, 'more file')} (--all)"
    if not alone:
        yield from _change_block(found.changes, show_all=show_all, color=color)
    if found.first_byte is not None and not found.changes and not found.storage:
        yield ""
        yield f"The first byte that differs is at offset {found.first_byte}."


def _fact_lines(title: str, facts: list[Fact]) -> Iterator[str]:
    if not facts:
        return
    yield ""
    yield f"{title}:"
    for fact in facts:
        yield f"  {fact.path + '  ' if fact.path else ''}{fact.name}  {fact.before} -> {fact.after}"
    for meaning in dict.fromkeys(fact.meaning for fact in facts):
        yield f"    {meaning}"


def _change_block(changes: list[Change], *, show_all: bool, color: bool) -> Iterator[str]:
    if not changes:
        return
    yield ""
    yield "In the trees:"
    yield from (f"  {line}" for line in summary_lines(summarise(changes)))
    paths = list(dict.fromkeys(change.path for change in changes))
    shown = frozenset(paths if show_all else paths[:SHOWN])
    yield ""
    yield from (f"  {line}" for line in change_lines([c for c in changes if c.path in shown], color=color))
    if len(paths) > len(shown):
        yield f"  … and {render.count(len(paths) - len(shown), 'more path')} (--all)"
