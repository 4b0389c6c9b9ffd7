"""`cfsbuild why`: why a node was rebuilt, or was not, and whether it would be now."""

from __future__ import annotations

from pathlib import Path

import click

from cfsbuild.build.forecast import FORECAST_VERSION, Forecast, forecast
from cfsbuild.cli.completing import complete_node, complete_recipe_or_node
from cfsbuild.cli.output import write_json, write_lines
from cfsbuild.cli.plan_text import job_lines, state_text
from cfsbuild.cli.recipes import plans_of, recipe_options, request_of
from cfsbuild.cli.settings import Settings, common_options, pass_settings
from cfsbuild.cli.verbs import DEFAULT_RECIPE

_PAST = {"ran": "ran", "cached": "was cached", "cut-off": "was cut off: what it reads had not changed"}


@click.command("why")
@common_options("json", "store")
@click.argument(
    "recipe",
    metavar="[RECIPE]",
    default=DEFAULT_RECIPE,
    type=click.Path(path_type=Path),
    shell_complete=complete_recipe_or_node,
)
@click.argument("nodes", metavar="[NODE]...", nargs=-1, shell_complete=complete_node)
@click.option("--image", metavar="NAME", help="Which image of a matrix.")
@recipe_options
@pass_settings
def command(  # noqa: PLR0913, PLR0917 (the verb's arguments and options)
    settings: Settings,
    recipe: Path,
    nodes: tuple[str, ...],
    image: str | None,
    output: Path | None,
    profiles: tuple[str, ...],
    overrides: tuple[str, ...],
) -> int:
    """Say why the nodes of RECIPE (default: recipe.toml) were rebuilt or not, and what a build would do now.

    Without NODE all nodes are listed. Nothing is built. A first argument that is no file and does not end in
    .toml is a node, too.
    """
    if recipe.suffix != ".toml" and not recipe.exists():
        recipe, nodes = Path(DEFAULT_RECIPE), (str(recipe), *nodes)
    request = request_of(settings, recipe, output, profiles, overrides)
    documents = []
    plans = plans_of(request, image)
    for plan in plans:
        found = forecast(plan, request, nodes=nodes)
        documents.append({"image": plan.recipe.image_name, "jobs": found})
        if not settings.json:
            title = plan.recipe.image_name if len(plans) > 1 or not nodes else ""
            write_lines(_text(settings, title, found, detailed=bool(nodes)))
    if settings.json:
        write_json({"version": FORECAST_VERSION, "images": documents})
    return 0


def _text(settings: Settings, title: str, found: list[Forecast], *, detailed: bool) -> list[str]:
    color = settings.color_on_stdout
    lines = [f"{title}:"] if title else []
    if not detailed:
        return [*lines, *(f"  {line}" for line in job_lines(found, color=color))]
    for one in found:
        lines.append(f"{one.job} ({one.kind})")
        lines.append(f"  now:        {state_text(one, color=color)}")
        lines.append(f"  last build: {_PAST[one.last_outcome] if one.last_outcome else 'never built'}")
        if one.last_reasons:
            lines.append("  last ran because:")
            lines.extend(f"    {reason.text()}" for reason in one.last_reasons)
        if settings.verbose and one.key:
            lines.append(f"  key:        {one.key}")
    return lines
