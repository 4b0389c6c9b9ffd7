"""`build --check`: the same image from nothing, twice, and once more with what is remembered."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cfsbuild.build.execute import execute
from cfsbuild.build.pipeline import Options, build, load_plans
from cfsbuild.build.result import BuildResult
from cfsbuild.build.stored_images import check_stored_images, lend_stored_images
from cfsbuild.errors import NotReproducibleError
from cfsbuild.events import Listener, Note, ignore
from cfsbuild.fsverity.algorithm import Algorithm
from cfsbuild.nodes.registry import NODE_KINDS
from cfsbuild.store.durability import Durability
from cfsbuild.store.store import Store
from cfsbuild.targets.registry import TARGET_KINDS
from cfsbuild.tree import paths

if TYPE_CHECKING:
    from cfsbuild.build.job import Plan
    from cfsbuild.build.memo import Request
    from cfsbuild.tree.layer import Layer

PATHS_SHOWN = 5


def check_reproducible(
    request: Request, options: Options, *, environ: Mapping[str, str], listener: Listener = ignore
) -> tuple[BuildResult, ...]:
    """Build everything twice in stores of their own, then as usual; return the usual result.

    Raises `NotReproducibleError` that names the jobs and paths that differ between any two of the three.
    The second build runs as many jobs at once as `options` say, the first one by one.
    """
    plans = load_plans(request, environ=environ)
    check_stored_images(plans, request)
    fresh = [_check_one(plan, request, options, listener) for plan in plans]
    usual = build(request, options, environ=environ, listener=listener)
    for clean, remembered in zip(fresh, usual, strict=True):
        if clean.digest != remembered.digest:
            raise NotReproducibleError(
                f"image {clean.image} built from nothing differs from the one with remembered results",
                details=_differing(clean, remembered),
                resolution="build with --force; if that mends it, a node kind changed without its version",
                reason="cache",
            )
    return usual


def _check_one(plan: Plan, request: Request, options: Options, listener: Listener) -> BuildResult:
    """Build `plan` twice from nothing and compare; return the second result."""
    algorithm = Algorithm(plan.recipe.algorithm)
    with tempfile.TemporaryDirectory(prefix="cfsbuild-check-") as scratch:
        first_path, second_path = Path(scratch, "first"), Path(scratch, "second")
        with Store.init(first_path, algorithm) as one, Store.init(second_path, algorithm) as two:
            lend_stored_images(plan, request, (one, two))
            listener(Note(text=f"{plan.recipe.image_name}: first build from nothing"))
            alone = msgspec.structs.replace(options, jobs=1)
            first = _build(plan, one, Path(scratch, "first-out"), alone, listener)
            listener(Note(text=f"{plan.recipe.image_name}: second build from nothing"))
            second = _build(plan, two, Path(scratch, "second-out"), options, listener)
            if _outputs(first) != _outputs(second):
                raise NotReproducibleError(
                    f"image {plan.recipe.image_name} is not reproducible",
                    details=_explain(plan, first, second, one, two),
                    reason="not-reproducible",
                )
    return second


def _build(plan: Plan, store: Store, output: Path, options: Options, listener: Listener) -> BuildResult:
    return execute(
        plan,
        store,
        node_kinds=NODE_KINDS,
        target_kinds=TARGET_KINDS,
        output=output,
        jobs=options.jobs,
        passphrase=options.passphrase,
        durability=Durability.NONE,
        listener=listener,
    ).result


def _outputs(result: BuildResult) -> dict[str, str]:
    return {job.job: job.output for job in result.jobs}


def _differing(first: BuildResult, second: BuildResult) -> str:
    after = _outputs(second)
    return "\n".join(
        f"{name}: {output} and {after.get(name, 'nothing')}"
        for name, output in _outputs(first).items()
        if after.get(name) != output
    )


def _explain(plan: Plan, first: BuildResult, second: BuildResult, one: Store, two: Store) -> str:
    """Return the jobs that gave different outputs, with the paths that differ where inputs were equal."""
    lines = []
    before, after = _outputs(first), _outputs(second)
    for job in plan.jobs.values():
        if before[job.name] == after[job.name]:
            continue
        if any(before[name] != after[name] for name in job.inputs):
            lines.append(f"{job.name} ({job.kind}): differs since what it reads differs")
            continue
        lines.append(f"{job.name} ({job.kind}): gave {before[job.name]} and {after[job.name]}")
        layers = one.layer(before[job.name]), two.layer(after[job.name])
        if job.role == "node" and layers[0] is not None and layers[1] is not None:
            lines.extend(f"  {line}" for line in _differing_paths(layers[0], layers[1]))
    return "\n".join(lines)


def _differing_paths(before: Layer, after: Layer) -> list[str]:
    names = sorted(
        path
        for path in {**before.entries, **after.entries}
        if before.entries.get(path) != after.entries.get(path)
    )
    lines = [paths.show(path) for path in names[:PATHS_SHOWN]]
    if len(names) > PATHS_SHOWN:
        lines.append(f"and {len(names) - PATHS_SHOWN} more")
    return lines
