"""What a build would do, as text: shared by `why`, `graph` and `build -n`."""

from __future__ import annotations

import os

from cfsbuild.build.forecast import FAILED, FORECAST_VERSION, PENDING, RUN, UP_TO_DATE, Forecast, forecast
from cfsbuild.build.memo import Request
from cfsbuild.build.pipeline import load_plans
from cfsbuild.build.reasons import sentence
from cfsbuild.build.stored_images import check_stored_images
from cfsbuild.cli.output import write_json, write_lines
from cfsbuild.cli.render import paint
from cfsbuild.cli.settings import Settings

STYLES = {UP_TO_DATE: "green", RUN: "yellow", PENDING: "dim", FAILED: "red"}
TEXTS = {UP_TO_DATE: "up to date", RUN: "would run", PENDING: "may run", FAILED: "fails"}


def state_text(found: Forecast, *, color: bool) -> str:
    """Return the state of a job and why, on one line."""
    state = paint(TEXTS[found.state], STYLES[found.state], color=color)
    because = found.error or sentence(found.reasons)
    return f"{state}: {because}" if because else state


def job_lines(forecasts: list[Forecast], *, color: bool) -> list[str]:
    """Return one line for each job: name, kind, state."""
    width = max((len(found.job) for found in forecasts), default=0)
    kinds = max((len(found.kind) for found in forecasts), default=0)
    return [
        f"{found.job:{width}}  {found.kind:{kinds}}  {state_text(found, color=color)}" for found in forecasts
    ]


def show_plan(settings: Settings, request: Request, *, force: bool) -> int:
    """Write the state of every job to standard output; return the exit status."""
    documents = []
    plans = load_plans(request, environ=os.environ)
    check_stored_images(plans, request)
    for plan in plans:
        found = forecast(plan, request, force=None if force else ())
        documents.append({"image": plan.recipe.image_name, "jobs": found})
        if not settings.json:
            write_lines([f"{plan.recipe.image_name}:"])
            write_lines([f"  {line}" for line in job_lines(found, color=settings.color_on_stdout)])
    if settings.json:
        write_json({"version": FORECAST_VERSION, "images": documents})
    return 0
