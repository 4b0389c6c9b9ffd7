"""Conflicts that follow from recipe and local files alone: found without building, for `check`.

Nodes that are static and read no other node's layer are produced, contents only hashed, and merged. What the
other nodes do is not known, and some of them may take away what a conflict is about; such a conflict is left
to the build.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from cfsbuild.build.job import NODE, Job, Plan
from cfsbuild.build.sources import Sources
from cfsbuild.errors import BuildError
from cfsbuild.events import ignore
from cfsbuild.fsverity.algorithm import Algorithm
from cfsbuild.nodes.kind import NodeContext, NodeKind
from cfsbuild.recipe.model import NodeSpec
from cfsbuild.store.sink import HashOnly
from cfsbuild.tree.conflicts import Conflict, ConflictError, StaticConflictError
from cfsbuild.tree.layer import Layer, Tree
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
    known = [job for job in nodes if kinds[job.kind].static and not kinds[job.kind].reads]
    if len(known) < 2:
        return
    unknown = [job for job in nodes if job not in known]
    try:
        merge([_contribution(plan, kinds[job.kind], sources, job, jobs=jobs) for job in known])
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


def _contribution(plan: Plan, kind: NodeKind, sources: Sources, job: Job, *, jobs: int) -> Contribution:
    spec = plan.node(job)
    return Contribution(
        node=job.name,
        kind=job.kind,
        static=True,
        layer=_layer(plan, kind, sources, job, spec, jobs=jobs),
        needs=frozenset(job.layers),
        replaces=spec.replaces,
        origin=spec.origin,
    )


def _layer(  # noqa: PLR0913 (what a node is made of)
    plan: Plan, kind: NodeKind, sources: Sources, job: Job, spec: NodeSpec, *, jobs: int
) -> Layer:
    context = NodeContext(
        spec=spec,
        sink=HashOnly(Algorithm(plan.recipe.algorithm)),
        owners=job.owners,
        epoch=plan.recipes[job.recipe].epoch if kind.sees_epoch else 0,
        jobs=jobs,
        listener=ignore,
        state=sources.directory,
        scan=sources.scan,
        image_tree=_no_tree,
    )
    sources.observe(job.name, kind, spec)
    return kind.produce(context, spec.params, kind.gather(context, spec.params))


def _no_tree(spec: NodeSpec) -> Tree:
    """Refuse: only kinds that are not static take in images."""
    raise BuildError(f"node {spec.name!r} takes in an image", origin=spec.origin)
