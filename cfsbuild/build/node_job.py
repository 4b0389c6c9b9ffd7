"""Running one node: gather its sources, make its key, look that up, produce the layer if need be."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from cfsbuild.build import reasons as why
from cfsbuild.build.job import Job
from cfsbuild.build.keys import Components, key_of, node_components
from cfsbuild.build.reasons import Reason
from cfsbuild.build.result import CACHED, CUT_OFF, RAN
from cfsbuild.build.session import Done, Session
from cfsbuild.errors import BuildError, InputError
from cfsbuild.events import JobStarted
from cfsbuild.nodes.kind import Fingerprint, NodeContext, NodeKind
from cfsbuild.recipe.model import NodeSpec
from cfsbuild.store.results import NodeResult
from cfsbuild.tree.layer import Layer, Tree


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """A node whose key is known."""

    job: Job
    kind: NodeKind
    spec: NodeSpec
    context: NodeContext
    fingerprint: Fingerprint
    components: Components
    key: str


def prepare(session: Session, job: Job) -> Prepared:
    """Gather the sources of a node job, whose inputs are done, and make its key."""
    spec = session.plan.node(job)
    kind = session.node_kinds[job.kind]
    context = NodeContext(
        spec=spec,
        sink=session.sink,
        owners=job.owners,
        epoch=session.plan.recipes[job.recipe].epoch if kind.sees_epoch else 0,
        jobs=session.jobs,
        listener=session.listener,
        state=session.sources.directory,
        scan=session.sources.scan,
        image_tree=lambda asked: _image_tree(session, job, asked),
        read_object=session.sink.read_object,
    )
    session.sources.observe(job.name, kind, spec)
    fingerprint = _fingerprint(session, job, kind, context)
    components = node_components(
        kind,
        spec.params,
        algorithm=session.algorithm,
        owners=job.owners,
        sources=fingerprint.digests,
        epoch=context.epoch,
        input_digest=session.trees.digest(job.layers, session.outputs(job.layers)) if kind.reads else "",
    )
    return Prepared(
        job=job,
        kind=kind,
        spec=spec,
        context=context,
        fingerprint=fingerprint,
        components=components,
        key=key_of(components),
    )


def _fingerprint(session: Session, job: Job, kind: NodeKind, context: NodeContext) -> Fingerprint:
    """Gather; but what a nested recipe's tree is called is known already, without merging it."""
    if job.nested:
        return Fingerprint(digests={"recipe": session.done[job.nested].output})
    return kind.gather(context, context.spec.params)


def run_node(session: Session, job: Job) -> Done:
    """Return what the node job gives, from the store if it is known there.

    Errors about what a node is made of say where the node stands in the recipe.
    """
    try:
        return _run_node(session, job)
    except (BuildError, InputError) as error:
        if error.origin is None:
            error.origin = session.plan.node(job).origin
        raise


def _run_node(session: Session, job: Job) -> Done:
    began = time.monotonic()
    node = prepare(session, job)
    forced = session.force(job.name)
    cached = None if forced else session.cached(node.key)
    if cached is not None:
        result, layer = cached
        return Done(
            key=node.key,
            components=node.components,
            output=result.layer,
            outcome=CUT_OFF if _input_ran(session, job) else CACHED,
            seconds=time.monotonic() - began,
            layer=layer,
        )
    reasons = explain(session, node, forced=forced)
    session.listener(JobStarted(job=job.name, kind=job.kind, reason=why.sentence(reasons)))
    layer = _produce(session, node)
    name = session.sink.put_layer(layer)
    session.sink.put_result(_result(node, layer, name))
    return Done(
        key=node.key,
        components=node.components,
        output=name,
        outcome=RAN,
        seconds=time.monotonic() - began,
        reasons=reasons,
        layer=layer,
    )


def explain(session: Session, node: Prepared, *, forced: bool) -> tuple[Reason, ...]:
    """Return why a node whose result cannot be used has to run."""
    if forced:
        return (Reason(reason=why.FORCED),)
    last = session.last(node.job.name)
    if last is None:
        return (Reason(reason=why.FIRST_BUILD),)
    found = why.differences(last.components, node.components)
    if not found:
        return (Reason(reason=why.RESULT_MISSING),)
    return why.with_nodes(found, last.inputs, session.outputs(node.job.inputs))


def _input_ran(session: Session, job: Job) -> bool:
    return any(session.done[name].outcome in {RAN, CUT_OFF} for name in job.inputs)


def _produce(session: Session, node: Prepared) -> Layer:
    context = node.context
    if node.kind.reads:
        tree = session.trees.merged(node.job.layers, session.outputs(node.job.layers)).tree
        context = msgspec.structs.replace(context, input=tree)
    fingerprint = node.fingerprint
    if node.job.nested:
        fingerprint = node.kind.gather(context, node.spec.params)
        _check_nested(node, fingerprint)
    layer = node.kind.produce(context, node.spec.params, fingerprint)
    changed = session.sources.changed(node.job.name)
    if changed:
        raise BuildError(
            f"source changed while building: {changed}",
            details=f"node {node.job.name!r} read it, and it is different now",
            resolution="build again when nothing writes to it",
            origin=node.spec.origin,
            reason="source-changed",
        )
    return layer


def _check_nested(node: Prepared, fingerprint: Fingerprint) -> None:
    if fingerprint.digests != node.fingerprint.digests:
        raise BuildError(
            f"node {node.job.name!r} saw another tree than its key says",
            details=f"{fingerprint.digests} instead of {node.fingerprint.digests}",
            origin=node.spec.origin,
            reason="nested-changed",
        )


def _result(node: Prepared, layer: Layer, name: str) -> NodeResult:
    return NodeResult(
        key=node.key,
        node=node.job.name,
        kind=node.kind.name,
        kind_version=node.kind.version,
        components=node.components,
        layer=name,
        entries=len(layer.entries) + len(layer.links),
        bytes=sum(inode.size for inode in layer.entries.values() if inode.is_regular),
    )


def _image_tree(session: Session, job: Job, asked: NodeSpec) -> Tree:
    """Return the tree that an image node takes in: the nested recipe's, or that of an image in the store."""
    if job.nested:
        tree_job = session.plan.jobs[job.nested]
        return session.trees.merged(tree_job.layers, session.outputs(tree_job.layers)).tree
    return stored_tree(session, asked)


def stored_tree(session: Session, asked: NodeSpec) -> Tree:
    """Return the tree of the stored image that `asked` names; raises `StoreError` when there is none."""
    from cfsbuild.erofs.reader import read_image  # noqa: PLC0415 (few recipes take in a stored image)
    from cfsbuild.tree.flavour import from_dump  # noqa: PLC0415

    store: Any = session.store
    return from_dump(read_image(store.read_image(asked.params.image)).entries())
