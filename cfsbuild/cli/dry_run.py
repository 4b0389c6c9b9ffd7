"""`cfsbuild build --dry-run`: what a build would do."""

from __future__ import annotations

import os

from cfsbuild.build.memo import Request
from cfsbuild.build.pipeline import load_plans
from cfsbuild.build.why import WHY_VERSION, why
from cfsbuild.cli.output import write_json, write_lines
from cfsbuild.cli.plan_text import job_lines
from cfsbuild.cli.settings import Settings


def show_plan(settings: Settings, request: Request, *, force: bool) -> int:
    """Write the state of every job to standard output; return the exit status."""
    documents = []
    for plan in load_plans(request, environ=os.environ):
        found = why(plan, request, force=None if force else ())
        documents.append({"image": plan.recipe.image_name, "jobs": found})
        if not settings.json:
            write_lines([f"{plan.recipe.image_name}:"])
            write_lines([f"  {line}" for line in job_lines(found, color=settings.color_on_stdout)])
    if settings.json:
        write_json({"version": WHY_VERSION, "images": documents})
    return 0
