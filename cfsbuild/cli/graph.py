"""`cfsbuild graph`: the plan of a build as text, DOT or SVG."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cfsbuild.build.forecast import FORECAST_VERSION, Forecast, forecast
from cfsbuild.build.reasons import sentence
from cfsbuild.cli.graph_svg import Node, draw
from cfsbuild.cli.graph_text import dot, text_tree
from cfsbuild.cli.output import write_bytes, write_json, write_lines
from cfsbuild.cli.recipes import plans_of, recipe_argument, recipe_options, request_of
from cfsbuild.cli.settings import Settings, common_options, pass_settings
from cfsbuild.errors import UsageError

if TYPE_CHECKING:
    from cfsbuild.build.job import Plan

FORMATS = ("text", "dot", "svg")


@click.command("graph")
@common_options("json", "store")
@recipe_argument
@click.option("--format", "form", type=click.Choice(FORMATS), default="text", help="What to write [text].")
@click.option("--last", is_flag=True, help="Colour by what the last build did, not by what one would do now.")
@click.option("--image", metavar="NAME", help="Which image of a matrix.")
@recipe_options
@pass_settings
def command(  # noqa: PLR0913, PLR0917 (the verb's options)
    settings: Settings,
    recipe: Path,
    form: str,
    image: str | None,
    output: Path | None,
    profiles: tuple[str, ...],
    overrides: tuple[str, ...],
    *,
    last: bool,
) -> int:
    """Draw the plan of RECIPE (default: recipe.toml) to standard output.

    Solid edges: the node reads what the other gives. Dotted edges: only the order of merging.
    """
    request = request_of(settings, recipe, output, profiles, overrides)
    plans = plans_of(request, image)
    if len(plans) > 1 and form == "svg" and not settings.json:
        names = ", ".join(plan.recipe.image_name for plan in plans)
        raise UsageError(f"{recipe} describes {len(plans)} images", resolution=f"--image one of: {names}")
    drawings = [(plan.recipe.image_name, _nodes(plan, forecast(plan, request), last=last)) for plan in plans]
    if settings.json:
        write_json(
            {
                "version": FORECAST_VERSION,
                "images": [{"image": name, "jobs": jobs} for name, jobs in drawings],
            }
        )
        return 0
    for title, nodes in drawings:
        _write(form, title, nodes, color=settings.color_on_stdout)
    return 0


def _write(form: str, title: str, nodes: list[Node], *, color: bool) -> None:
    if form == "svg":
        write_bytes([draw(title, nodes).encode()])
    elif form == "dot":
        write_lines(dot(title, nodes))
    else:
        write_lines([f"{title}:", *text_tree(nodes, color=color)])


def _nodes(plan: Plan, found: list[Forecast], *, last: bool) -> list[Node]:
    nodes = []
    for one in found:
        job = plan.jobs[one.job]
        reasons = one.last_reasons if last else one.reasons
        nodes.append(
            Node(
                name=job.name,
                kind=job.kind,
                role=job.role,
                state=one.last_outcome if last else one.state,
                needs=job.needs,
                waits=job.waits or bool(job.nested),
                note=one.error or sentence(reasons),
            )
        )
    return nodes
