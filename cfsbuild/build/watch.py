"""Building again whenever something that the images come from changes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cfsbuild.build.pipeline import Options, build_plans, load_plans, new_sources, recipe_files
from cfsbuild.build.result import BuildResult
from cfsbuild.build.sources import local_paths, sign
from cfsbuild.errors import CfsError
from cfsbuild.events import Listener, Note, ignore
from cfsbuild.nodes.registry import NODE_KINDS

if TYPE_CHECKING:
    from cfsbuild.build.job import Plan
    from cfsbuild.build.memo import Request

INTERVAL_SECONDS = 0.5
"""How often sources are looked at."""

SETTLE_SECONDS = 0.2
"""How long sources must be still before a build begins."""

SHARE = 4
"""Looking takes at most one part in this many of the time."""


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """One build: its results, or the error that ended it."""

    results: tuple[BuildResult, ...] = ()
    error: CfsError | None = None


def watch(
    request: Request,
    options: Options,
    *,
    environ: Mapping[str, str],
    listener: Listener = ignore,
    sleep: Callable[[float], object] = time.sleep,
) -> Iterator[Round]:
    """Build now and after every change, for ever; yield each outcome. Failures of a build end nothing."""
    known = {Path(request.recipe): sign(Path(request.recipe)).data}
    while True:
        began_ns = time.time_ns()
        plans: list[Plan] = []
        sources = new_sources(request)
        try:
            plans = load_plans(request, environ=environ)
            before = {file: sign(file).data for file in recipe_files(plans)}
            outcome = Round(
                results=build_plans(
                    plans,
                    request,
                    options,
                    environ=environ,
                    listener=listener,
                    sources=sources,
                    began_ns=began_ns,
                ),
            )
        except CfsError as error:
            outcome = Round(error=error)
            before = {**known, **{path: sign(path).data for path in _named(error) if path not in known}}
        before.update((path, signature.data) for path, signature in sources.signatures.items())
        before.update((path, sign(path).data) for path in _local(plans) if path not in before)
        yield outcome
        known = before
        for path in _wait_for_change(known, sleep):
            listener(Note(text=f"{path} changed"))
        known = {path: sign(path).data for path in known}


def _local(plans: Iterable[Plan]) -> Iterator[Path]:
    """Yield the local sources of all nodes."""
    for plan in plans:
        for recipe in plan.recipes:
            for spec in recipe.nodes.values():
                yield from (path for _, path in local_paths(NODE_KINDS[spec.kind], spec))


def _named(error: CfsError) -> Iterator[Path]:
    """Yield the files that an error's problems point to: mending one of them calls for a build."""
    for problem in error.problems():
        if problem.origin is not None:
            yield Path(problem.origin.file)


def _wait_for_change(known: Mapping[Path, bytes], sleep: Callable[[float], object]) -> tuple[Path, ...]:
    """Return what differs from `known`, once something does and nothing moves any more."""
    pause = INTERVAL_SECONDS
    while True:
        began = time.monotonic()
        now = {path: sign(path).data for path in known}
        if any(now[path] != data for path, data in known.items()):
            break
        pause = max(INTERVAL_SECONDS, (time.monotonic() - began) * (SHARE - 1))
        sleep(pause)
    while True:
        sleep(SETTLE_SECONDS)
        later = {path: sign(path).data for path in known}
        if later == now:
            return tuple(path for path, data in known.items() if later[path] != data)
        now = later
