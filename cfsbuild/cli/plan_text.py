"""Lines about jobs, shared by `why`, `graph` and `build -n`."""

from __future__ import annotations

from cfsbuild.build.forecast import FAILED, PENDING, RUN, UP_TO_DATE, Forecast
from cfsbuild.build.reasons import sentence
from cfsbuild.cli.render import paint

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
