"""What a build would do, without doing it: for `build -n`, `why` and `graph`.

Local sources are read and hashed as in a build, with the same caches; nothing is written. A job that reads
what another job would make anew cannot be foretold: its state is `pending`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cfsbuild.build import reasons as why
from cfsbuild.build.job import NODE, TREE, Job, Plan
from cfsbuild.build.keys import key_of, layers_digest
from cfsbuild.build.node_job import explain, prepare
from cfsbuild.build.reasons import Reason
from cfsbuild.build.result import CACHED
from cfsbuild.build.session import Done, Session
from cfsbuild.build.sources import Sources
from cfsbuild.build.state import BuildState, load_state, state_path
from cfsbuild.build.target_job import lacking, layer_components, target_components
from cfsbuild.errors import CfsError
from cfsbuild.fsverity.algorithm import Algorithm
from cfsbuild.nodes.kind import NodeKind
from cfsbuild.store.sink import HashOnly
from cfsbuild.targets.kind import TargetKind

if TYPE_CHECKING:
    from cfsbuild.store.results import NodeResult
    from cfsbuild.store.store import Store
    from cfsbuild.tree.layer import Layer

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

    def put_result(self, result: NodeResult) -> None:
        """Refuse."""
        raise NotImplementedError

    def put_image(self, data: bytes, objects: Iterable[bytes] | None = None) -> bytes:
        """Refuse."""
        raise NotImplementedError

    def set_ref(self, name: str, digest: bytes) -> None:
        """Change nothing."""


def forecast(  # noqa: PLR0913 (what a build is given, without what it writes)
    plan: Plan,
    store: Store | None,
    *,
    node_kinds: Mapping[str, NodeKind],
    target_kinds: Mapping[str, TargetKind],
    store_path: Path,
    output: Path,
    force: Collection[str] | None = (),
) -> list[Forecast]:
    """Return what would become of each job, in the plan's order. `store` is None when there is none."""
    directory, state = None, BuildState()
    if store is not None:
        directory = store.state_path
        state = load_state(state_path(directory, plan.recipe.path, plan.recipe.image_name, output))
    algorithm = Algorithm(plan.recipe.algorithm)
    session = Session(
        plan,
        store if store is not None else NoStore(store_path, algorithm),
        node_kinds=node_kinds,
        target_kinds=target_kinds,
        sink=ReadOnlySink(algorithm),
        state=state,
        sources=Sources(directory),
        listener=lambda event: None,  # noqa: ARG005 (nobody listens)
        output=output,
        jobs=1,
        force=lambda name: force is None or name in force,
    )
    return [_with_last(session, _foretell(session, job)) for job in plan.jobs.values()]


def _foretell(session: Session, job: Job) -> Forecast:
    pending = tuple(
        Reason(reason=why.INPUT_PENDING, subject=name) for name in job.inputs if name not in session.done
    )
    if pending:
        return Forecast(job=job.name, kind=job.kind, state=PENDING, reasons=pending)
    try:
        if job.role == NODE:
            return _foretell_node(session, job)
        return _foretell_tree(session, job) if job.role == TREE else _foretell_target(session, job)
    except CfsError as error:
        return Forecast(job=job.name, kind=job.kind, state=FAILED, error=error.brief)


def _foretell_node(session: Session, job: Job) -> Forecast:
    node = prepare(session, job)
    forced = session.force(job.name)
    cached = None if forced else session.cached(node.key)
    if cached is None:
        found = explain(session, node, forced=forced)
        return Forecast(job=job.name, kind=job.kind, state=RUN, key=node.key, reasons=found)
    result, layer = cached
    session.done[job.name] = Done(
        key=node.key, components=node.components, output=result.layer, outcome=CACHED, layer=layer
    )
    return Forecast(job=job.name, kind=job.kind, state=UP_TO_DATE, key=node.key)


def _foretell_tree(session: Session, job: Job) -> Forecast:
    outputs = session.outputs(job.layers)
    key = layers_digest(session.trees.uses(job.layers, outputs))
    known = key in session.before.trees
    session.done[job.name] = Done(
        key=key,
        components=layer_components(session, job),
        output=session.trees.digest(job.layers, outputs),
        outcome=CACHED,
    )
    state = UP_TO_DATE if known else RUN
    last = session.last(job.name)
    found: tuple[Reason, ...] = ()
    if not known:
        found = (
            why.differences(last.components, layer_components(session, job))
            if last
            else (Reason(reason=why.FIRST_BUILD),)
        )
    return Forecast(job=job.name, kind=job.kind, state=state, key=key, reasons=found)


def _foretell_target(session: Session, job: Job) -> Forecast:
    components = target_components(session, job)
    key = key_of(components)
    last, found = lacking(session, job, key)
    if last is not None and not found:
        if last.key == key:
            return Forecast(job=job.name, kind=job.kind, state=UP_TO_DATE, key=key)
        found = why.differences(last.components, components)
    return Forecast(job=job.name, kind=job.kind, state=RUN, key=key, reasons=found)


def _with_last(session: Session, found: Forecast) -> Forecast:
    last = session.last(found.job)
    if last is None:
        return found
    return msgspec.structs.replace(
        found, last_outcome=last.outcome, last_reasons=last.reasons, last_seconds=last.seconds
    )
