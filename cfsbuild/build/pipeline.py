"""The whole way from a request to images: what `build`, `watch` and other verbs call."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cfsbuild.build import memo
from cfsbuild.build.memo import Request
from cfsbuild.build.result import BuildResult
from cfsbuild.build.sources import Sources
from cfsbuild.events import Listener, ignore

if TYPE_CHECKING:
    from cfsbuild.build.job import Plan
    from cfsbuild.recipe.model import NodeSpec, Recipe
    from cfsbuild.store.store import Store

OUTPUT = "out"
"""Where output files go when nobody says so, relative to the working directory."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How to build. `force` names jobs that run in any case; None means all of them.

    `passphrase` returns that of a private key by its path; without it keys that need one cannot be used.
    """

    jobs: int = 1
    keep_going: bool = False
    force: tuple[str, ...] | None = ()
    passphrase: Callable[[Path], bytes] | None = None


def make_request(  # noqa: PLR0913 (the parts of a request)
    recipe: Path,
    *,
    store: Path,
    output: Path | None = None,
    profiles: Sequence[str] = (),
    overrides: Mapping[str, str] | None = None,
    trusted_uids: Sequence[int] = (),
    shared_store: bool = False,
) -> Request:
    """Return the request with absolute paths; symbolic links are left as they are."""
    return Request(
        recipe=os.path.abspath(recipe),  # noqa: PTH100 (start-up; and resolve() would follow links)
        profiles=tuple(profiles),
        overrides=dict(overrides or {}),
        store=os.path.abspath(store),  # noqa: PTH100
        output=os.path.abspath(output or OUTPUT),  # noqa: PTH100
        trusted_uids=tuple(trusted_uids),
        shared_store=shared_store,
    )


def build(
    request: Request, options: Options, *, environ: Mapping[str, str], listener: Listener = ignore
) -> tuple[BuildResult, ...]:
    """Build every image of a recipe, doing only what is needed; raises `CfsError`."""
    began = time.monotonic()
    began_ns = time.time_ns()
    recalled = memo.Recalled() if options.force != () else memo.recall(request, environ)
    if recalled.results:
        for result in recalled.results:
            listener(result.finished(time.monotonic() - began))
        return recalled.results
    sources = new_sources(request)
    sources.know(recalled.sources)
    plans = _recalled_plans(recalled.plans) or load_plans(request, environ=environ)
    # Listings are large, and `sources` lets go of them in its time.
    del recalled
    return build_plans(
        plans, request, options, environ=environ, listener=listener, sources=sources, began_ns=began_ns
    )


def new_sources(request: Request) -> Sources:
    """Return the signatures of a build that has not begun: none."""
    return Sources(memo.state_directory(request))


def build_plans(  # noqa: PLR0913 (what a build is given)
    plans: Sequence[Plan],
    request: Request,
    options: Options,
    *,
    environ: Mapping[str, str],
    listener: Listener,
    sources: Sources,
    began_ns: int,
) -> tuple[BuildResult, ...]:
    """Build what `plans` say and remember it. `began_ns` is when their recipes began to be read."""
    from cfsbuild.build.stored_images import check_stored_images, stored_images  # noqa: PLC0415

    check_stored_images(plans, request)
    references = memo.references(request.store, stored_images(plans))
    built = []
    with open_store(request, plans) as store:
        for plan in plans:
            sources.reused = plan is not plans[-1]
            built.append(_build_one(plan, store, request, options, sources=sources, listener=listener))
    inputs = memo.Inputs(texts=memo.text_digests(recipe_files(plans), began_ns), references=references)
    memo.remember(request, environ, inputs, sources, built)
    return tuple(one.result for one in built)


def recipe_files(plans: Sequence[Plan]) -> tuple[Path, ...]:
    """Return every file whose text shaped `plans`, without repetition."""
    return tuple(dict.fromkeys(file for plan in plans for recipe in plan.recipes for file in recipe.files))


def load_plans(request: Request, *, environ: Mapping[str, str]) -> list[Plan]:
    """Load a recipe and plan each of its images; raises `RecipeError` with every problem."""
    from cfsbuild.build.plan import plan  # noqa: PLC0415 (a remembered build plans nothing)
    from cfsbuild.errors import RecipeError  # noqa: PLC0415
    from cfsbuild.nodes.registry import NODE_KINDS  # noqa: PLC0415
    from cfsbuild.recipe.load import load_recipes  # noqa: PLC0415
    from cfsbuild.targets.registry import TARGET_KINDS  # noqa: PLC0415

    def load_nested(spec: NodeSpec, path: Path) -> Recipe:
        recipes = load_recipes(
            path,
            node_kinds=NODE_KINDS,
            target_kinds=TARGET_KINDS,
            overrides={},
            profiles=(),
            environ=environ,
        )
        return _only(spec, recipes)

    recipes = load_recipes(
        Path(request.recipe),
        node_kinds=NODE_KINDS,
        target_kinds=TARGET_KINDS,
        overrides=request.overrides,
        profiles=request.profiles,
        environ=environ,
    )
    plans, problems = [], {}
    for recipe in recipes:
        try:
            plans.append(plan(recipe, NODE_KINDS, TARGET_KINDS, load=load_nested))
        except RecipeError as error:
            problems.update(dict.fromkeys(error.problems()))
    if problems:
        raise RecipeError(tuple(problems))
    return plans


def check_conflicts(plans: Sequence[Plan], request: Request, *, jobs: int) -> None:
    """Raise `StaticConflictError` for nodes that are sure to disagree; see `static_conflicts`."""
    from cfsbuild.build.static_conflicts import check_conflicts as check  # noqa: PLC0415 (not for builds)
    from cfsbuild.nodes.registry import NODE_KINDS  # noqa: PLC0415

    sources = new_sources(request)
    if sources.directory is not None and not sources.directory.is_dir():
        sources = Sources(None)
    for plan in plans:
        check(plan, NODE_KINDS, sources, jobs=jobs)


def open_store(request: Request, plans: Sequence[Plan]) -> Store:
    """Open the store of `request`; make it for the plans' digest algorithm, or finish it, if need be."""
    from cfsbuild.fsverity.algorithm import Algorithm  # noqa: PLC0415
    from cfsbuild.store.store import Store  # noqa: PLC0415

    path = Path(request.store)
    if not (path / "meta.json").exists():
        # Nothing is there, or what somebody left who was killed while making a store.
        Store.init(path, Algorithm(plans[0].recipe.algorithm), shared=request.shared_store).close()
    return Store.open(path, trusted_uids=request.trusted_uids, shared=request.shared_store)


def _only(spec: NodeSpec, recipes: list[Recipe]) -> Recipe:
    from cfsbuild.errors import Problem, RecipeError  # noqa: PLC0415

    if len(recipes) == 1:
        return recipes[0]
    problem = Problem(
        f"node {spec.name!r} takes in a recipe that describes {len(recipes)} images",
        details="its matrix gives " + ", ".join(recipe.image_name for recipe in recipes),
        resolution="take in the stored image of one of them, or a recipe without a matrix",
        origin=spec.origin_of("recipe"),
    )
    raise RecipeError((problem,))


def _recalled_plans(documents: Iterable[bytes]) -> list[Plan]:
    from cfsbuild.build.job import decode_plan  # noqa: PLC0415
    from cfsbuild.nodes.registry import NODE_KINDS  # noqa: PLC0415
    from cfsbuild.targets.registry import TARGET_KINDS  # noqa: PLC0415

    try:
        return [decode_plan(document, NODE_KINDS, TARGET_KINDS) for document in documents]
    except (msgspec.DecodeError, msgspec.ValidationError):
        # Written by another version of this program: the recipe is read again.
        return []


def _build_one(  # noqa: PLR0913 (what one image's build is given)
    plan: Plan,
    store: Store,
    request: Request,
    options: Options,
    *,
    sources: Sources,
    listener: Listener,
) -> memo.Built:
    from cfsbuild.build.execute import execute  # noqa: PLC0415
    from cfsbuild.build.job import encode_plan  # noqa: PLC0415
    from cfsbuild.nodes.registry import NODE_KINDS  # noqa: PLC0415
    from cfsbuild.targets.registry import TARGET_KINDS  # noqa: PLC0415

    executed = execute(
        plan,
        store,
        node_kinds=NODE_KINDS,
        target_kinds=TARGET_KINDS,
        output=Path(request.output),
        jobs=options.jobs,
        keep_going=options.keep_going,
        force=options.force,
        listener=listener,
        sources=sources,
        passphrase=options.passphrase,
    )
    try:
        document = encode_plan(plan)
    except UnicodeEncodeError:
        # A path that is not UTF-8: the request has it too, so nothing will be remembered.
        document = b""
    return memo.Built(plan=document, result=executed.result, files=executed.files)
