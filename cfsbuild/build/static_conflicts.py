"""Conflicts that follow from recipe and local files alone: found without building, for `check`.

Nodes that are static, and read nothing but what such nodes give, are produced, contents only hashed, and
merged. What the other nodes do is not known, and some of them may take away what a conflict is about; such a
conflict is left to the build.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence

from cfsbuild.build.job import NODE, Job, Plan
from cfsbuild.build.sources import Sources
from cfsbuild.errors import CfsError
from cfsbuild.events import ignore
from cfsbuild.fsverity.algorithm import Algorithm
from cfsbuild.nodes.kind import NodeContext, NodeKind
from cfsbuild.store.sink import HashOnly
from cfsbuild.tree.conflicts import Conflict, ConflictError, StaticConflictError
from cfsbuild.tree.layer import Tree
from cfsbuild.tree.merge import Contribution, merge


def check_conflicts(plan: Plan, node_kinds: Mapping[str, NodeKind], sources: Sources, *, jobs: int) -> None:
    """Raise `StaticConflictError` with every conflict that a build of `plan` is sure to meet.

    Reads local sources; raises `BuildError` and `InputError` as a build does that cannot read them.
    """
    found: list[Conflict] = []
    for index in range(len(plan.recipes)):
        nodes = [job for job in plan.jobs.values() if job.role == NODE and job.recipe == index]
        found += _conflicts(plan, node_kinds, sources, nodes, jobs=jobs)
    if found:
        raise StaticConflictError(found)


def _conflicts(
    plan: Plan, kinds: Mapping[str, NodeKind], sources: Sources, nodes: Sequence[Job], *, jobs: int
) -> Iterator[Conflict]:
    """Yield the conflicts among the nodes of one recipe."""
    static = [job for job in nodes if kinds[job.kind].static]
    if len(static) < 2:
        return
    known: dict[str, Contribution] = {}
    for job in static:
        kind = kinds[job.kind]
        if not kind.reads:
            known[job.name] = _contribution(plan, kind, sources, job, jobs=jobs)
        elif known.keys() >= set(job.layers):
            # What it cannot do, or cannot do here, is for the build to tell.
            with contextlib.suppress(CfsError):
                tree = merge([known[name] for name in job.layers]).tree
                known[job.name] = _contribution(plan, kind, sources, job, jobs=jobs, tree=tree)
    unknown = [job for job in nodes if job.name not in known]
    try:
        merge(list(known.values()))
    except ConflictError as error:
        for conflict in error.conflicts:
            if not any(_may_settle(kinds, job, conflict) for job in unknown):
                yield conflict


def _may_settle(kinds: Mapping[str, NodeKind], job: Job, conflict: Conflict) -> bool:
    """Say whether a node whose layer is not known may remove or replace what a conflict is about.

    It can only do so to what it needs. One that reads the merge of both sides is no help: that merge fails.
    """
    reached = {conflict.earlier.node, conflict.later.node}.intersection(job.layers)
    both = {conflict.earlier.node, conflict.later.node} == reached
    return bool(reached) and not (both and kinds[job.kind].reads)


def _contribution(  # noqa: PLR0913 (what a node is made of)
    plan: Plan, kind: NodeKind, sources: Sources, job: Job, *, jobs: int, tree: Tree | None = None
) -> Contribution:
    spec = plan.node(job)
    context = NodeContext(
        spec=spec,
        sink=HashOnly(Algorithm(plan.recipe.algorithm)),
        owners=job.owners,
        epoch=plan.recipes[job.recipe].epoch if kind.sees_epoch else 0,
        jobs=jobs,
        listener=ignore,
        input=tree,
        state=sources.directory,
        scan=sources.scan,
    )
    sources.observe(job.name, kind, spec)
    return Contribution(
        node=job.name,
        kind=job.kind,
        static=True,
        layer=kind.produce(context, spec.params, kind.gather(context, spec.params)),
        needs=frozenset(job.layers),
        replaces=spec.replaces,
        origin=spec.origin,
        reads=kind.reads,
    )
