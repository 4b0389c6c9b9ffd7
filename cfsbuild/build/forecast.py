"""What a build would do, without doing it: for `build -n`, `why` and `graph`.

Local sources are read and hashed as in a build, with the same caches; nothing is written. A job that reads
what another job would make anew cannot be foretold: its state is `pending`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cfsbuild.build import reasons as why
from cfsbuild.build.context import BuildContext, Done
from cfsbuild.build.job import NODE, TREE, Job, Plan
from cfsbuild.build.keys import key_of, layers_digest
from cfsbuild.build.node_job import prepare, why_run
from cfsbuild.build.reasons import Reason
from cfsbuild.build.result import CACHED
from cfsbuild.build.sources import Sources
from cfsbuild.build.state import BuildState, load_state, state_path
from cfsbuild.build.target_job import layer_components, target_components, why_emit, why_merge
from cfsbuild.errors import CfsError
from cfsbuild.events import ignore
from cfsbuild.fsverity.algorithm import Algorithm
from cfsbuild.nodes.registry import NODE_KINDS
from cfsbuild.store.sink import HashOnly
from cfsbuild.targets.registry import TARGET_KINDS

if TYPE_CHECKING:
    from cfsbuild.build.memo import Request
    from cfsbuild.store.results import NodeResult
    from cfsbuild.store.store import Store
    from cfsbuild.tree.layer import Layer

FORECAST_VERSION = 1

UP_TO_DATE = "up-to-date"
RUN = "run"
PENDING = "pending"
FAILED = "failed"


class Forecast(msgspec.Struct, frozen=True, kw_only=True):
    """What would become of a job: `state` is `up-to-date`, `run`, `pending` or `failed`.

    `reasons` say why it would run or why that is not known yet; `error` why it cannot even be looked at.
    `last_outcome` and `last_reasons` are those of the last build, empty when there was none.
    """

    job: str
    kind: str
    state: str
    key: str = ""
    reasons: tuple[Reason, ...] = ()
    error: str = ""
    last_outcome: str = ""
    last_reasons: tuple[Reason, ...] = ()
    last_seconds: float = 0.0


class NoStore:
    """Stands for a store that has not been made yet: everything is missing."""

    def __init__(self, path: Path, algorithm: Algorithm) -> None:
        self.path = path
        self.algorithm = algorithm

    def result(self, key: str, /) -> NodeResult | None:
        """Find nothing."""
        del key
        return None

    def layer(self, name: str, /) -> Layer | None:
        """Find nothing."""
        del name
        return None

    def layer_document(self, name: str, /) -> bytearray | None:
        """Find nothing."""
        del name
        return None

    def read_object_to_change(self, digest: bytes, /) -> bytearray:
        """Refuse."""
        raise NotImplementedError

    def has_image(self, digest: bytes, /) -> bool:
        """Find nothing."""
        del digest
        return False

    def resolve(self, name: str, /) -> bytes | None:
        """Find nothing."""
        del name
        return None


class ReadOnlySink(HashOnly):
    """Takes contents in and keeps nothing. A forecast makes no layers and no images."""

    def read_object(self, digest: bytes) -> bytes:
        """Refuse."""
        raise NotImplementedError

    def put_layer(self, layer: Layer) -> str:
        """Refuse."""
        raise NotImplementedError

    def put_layer_document(self, data: bytearray) -> str:
        """Refuse."""
        raise NotImplementedError

    def put_result(self, result: NodeResult) -> None:
        """Refuse."""
        raise NotImplementedError

    def put_image(self, data: bytes, objects: Iterable[bytes] | None = None) -> bytes:
        """Refuse."""
        raise NotImplementedError

    def put_image_like(
        self, base: bytes, data: bytes | bytearray, added: Collection[bytes], removed: Collection[bytes]
    ) -> bytes | None:
        """Refuse."""
        raise NotImplementedError

    def set_ref(self, name: str, digest: bytes) -> None:
        """Change nothing."""


def forecast(
    plan: Plan, request: Request, *, nodes: tuple[str, ...] = (), force: tuple[str, ...] | None = ()
) -> list[Forecast]:
    """Return what would become of `nodes` (all jobs when none are named), in the plan's order.

    Raises `UsageError` for a node that does not exist, and what a build raises whose store is not fit.
    """
    wanted = {plan.job(name).name for name in nodes} or set(plan.jobs)
    with _store(plan, request) as store:
        build = _context(plan, store, request, force)
        found = [_with_last(build, _foretell(build, job)) for job in plan.jobs.values()]
    return [one for one in found if one.job in wanted]


def _store(plan: Plan, request: Request) -> contextlib.AbstractContextManager[Store | None]:
    """Return the store, open for reading; None as long as a build could make it."""
    from cfsbuild.store.store import Store  # noqa: PLC0415 (not for help)

    path = Path(request.store)
    if not (path / "meta.json").exists():
        Store.check_place(path)
        return contextlib.nullcontext()
    return Store.open(
        path,
        read_only=True,
        algorithm=Algorithm(plan.recipe.algorithm),
        trusted_uids=request.trusted_uids,
        shared=request.shared_store,
    )


def _context(
    plan: Plan, store: Store | None, request: Request, force: tuple[str, ...] | None
) -> BuildContext:
    directory, state = None, BuildState()
    output = Path(request.output)
    if store is not None:
        directory = store.state_path
        state = load_state(state_path(directory, plan.recipe.path, plan.recipe.image_name, output))
    algorithm = Algorithm(plan.recipe.algorithm)
    return BuildContext(
        plan,
        store if store is not None else NoStore(Path(request.store), algorithm),
        node_kinds=NODE_KINDS,
        target_kinds=TARGET_KINDS,
        sink=ReadOnlySink(algorithm),
        state=state,
        sources=Sources(directory),
        listener=ignore,
        output=output,
        jobs=1,
        force=lambda name: force is None or name in force,
    )


def _foretell(build: BuildContext, job: Job) -> Forecast:
    pending = tuple(
        Reason(reason=why.INPUT_PENDING, subject=name) for name in job.inputs if name not in build.done
    )
    if pending:
        return Forecast(job=job.name, kind=job.kind, state=PENDING, reasons=pending)
    try:
        if job.role == NODE:
            return _foretell_node(build, job)
        return _foretell_tree(build, job) if job.role == TREE else _foretell_target(build, job)
    except CfsError as error:
        return Forecast(job=job.name, kind=job.kind, state=FAILED, error=error.brief)


def _foretell_node(build: BuildContext, job: Job) -> Forecast:
    node = prepare(build, job)
    forced = build.force(job.name)
    cached = None if forced else build.cached(node.key)
    if cached is None:
        return _forecast(job, node.key, why_run(build, node, forced=forced))
    result, layer = cached
    build.done[job.name] = Done(
        key=node.key, components=node.components, output=result.layer, outcome=CACHED, layer=layer
    )
    return _forecast(job, node.key)


def _foretell_tree(build: BuildContext, job: Job) -> Forecast:
    outputs = build.outputs(job.layers)
    key = layers_digest(build.trees.uses(job.layers, outputs))
    components = layer_components(build, job)
    found = why_merge(build, job, key, components)
    build.done[job.name] = Done(
        key=key,
        components=components,
        output=build.trees.digest(job.layers, outputs),
        outcome=CACHED,
    )
    return _forecast(job, key, found)


def _foretell_target(build: BuildContext, job: Job) -> Forecast:
    components = target_components(build, job)
    key = key_of(components)
    last = build.last(job.name)
    found = why_emit(build, job, last, key, components)
    if last is not None and not found:
        build.done[job.name] = Done(key=key, components=components, output=last.output, outcome=CACHED)
    return _forecast(job, key, found)


def _forecast(job: Job, key: str, found: tuple[Reason, ...] = ()) -> Forecast:
    return Forecast(job=job.name, kind=job.kind, state=RUN if found else UP_TO_DATE, key=key, reasons=found)


def _with_last(build: BuildContext, found: Forecast) -> Forecast:
    last = build.last(found.job)
    if last is None:
        return found
    return msgspec.structs.replace(
        found, last_outcome=last.outcome, last_reasons=last.reasons, last_seconds=last.seconds
    )
