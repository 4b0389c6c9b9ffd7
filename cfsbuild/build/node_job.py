"""Running one node: gather its sources, make its key, look that up, produce the layer if need be."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from cfsbuild.build import reasons as why
from cfsbuild.build.context import BuildContext, Done
from cfsbuild.build.job import Job
from cfsbuild.build.keys import Components, key_of, node_components
from cfsbuild.build.reasons import Reason
from cfsbuild.build.result import RAN
from cfsbuild.errors import BuildError, CfsError, InputError
from cfsbuild.events import JobStarted
from cfsbuild.nodes.kind import Fingerprint, NodeContext, NodeKind
from cfsbuild.recipe.model import NodeSpec
from cfsbuild.store.results import NodeResult
from cfsbuild.tree.layer import Layer, Tree, extent


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """A node whose key is known."""

    job: Job
    kind: NodeKind
    spec: NodeSpec
    context: NodeContext
    fingerprint: Fingerprint
    components: Components
    key: str


def prepare(build: BuildContext, job: Job) -> Prepared:
    """Gather the sources of a node job, whose inputs are done, and make its key."""
    spec = build.plan.node(job)
    kind = build.node_kinds[job.kind]
    context = NodeContext(
        spec=spec,
        sink=build.sink,
        owners=job.owners,
        epoch=build.plan.recipes[job.recipe].epoch if kind.sees_epoch else 0,
        jobs=build.jobs,
        listener=build.listener,
        state=build.sources.directory,
        scan=build.sources.scan,
        observe=lambda path: build.sources.observe_file(job.name, path),
        image_tree=lambda asked: _image_tree(build, job, asked),
        read_object=build.sink.read_object,
        layer_document=None if build.force(job.name) else build.store.layer_document,
    )
    build.sources.observe(job.name, kind, spec)
    fingerprint = _fingerprint(build, job, kind, context)
    components = node_components(
        kind,
        spec.params,
        algorithm=build.algorithm,
        owners=job.owners,
        sources=fingerprint.digests,
        epoch=context.epoch,
        input_digest=build.trees.digest(job.layers, build.outputs(job.layers)) if kind.reads else "",
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


def _fingerprint(build: BuildContext, job: Job, kind: NodeKind, context: NodeContext) -> Fingerprint:
    """Gather; but what a nested recipe's tree is called is known already, without merging it."""
    if job.nested:
        return Fingerprint(digests={"recipe": build.done[job.nested].output})
    return kind.gather(context, context.spec.params)


def run_node(build: BuildContext, job: Job) -> Done:
    """Return what the node job gives, from the store if it is known there.

    Errors about what a node is made of say where the node stands in the recipe.
    """
    try:
        return _run_node(build, job)
    except (BuildError, InputError) as error:
        if error.origin is None:
            error.origin = build.plan.node(job).origin
        raise


def _run_node(build: BuildContext, job: Job) -> Done:
    began = time.monotonic()
    node = prepare(build, job)
    forced = build.force(job.name)
    cached = None if forced else build.cached(node.key)
    if cached is not None:
        result, known = cached
        return Done(
            key=node.key,
            components=node.components,
            output=result.layer,
            outcome=build.spared(job),
            seconds=time.monotonic() - began,
            layer=known,
            patch=node.fingerprint.patch,
        )
    reasons = why_run(build, node, forced=forced)
    build.listener(JobStarted(job=job.name, kind=job.kind, reason=why.sentence(reasons)))
    patch = node.fingerprint.patch
    layer: Layer | None = None
    if patch is not None:
        name = build.sink.put_layer_document(patch.data)
        build.sink.put_result(_result(node, name, patch.entries, patch.bytes))
    else:
        layer = _produce(build, node)
        name = build.sink.put_layer(layer)
        build.sink.put_result(_result(node, name, *extent(layer)))
    return Done(
        key=node.key,
        components=node.components,
        output=name,
        outcome=RAN,
        seconds=time.monotonic() - began,
        reasons=reasons,
        layer=layer,
        patch=patch,
    )


def why_run(build: BuildContext, node: Prepared, *, forced: bool) -> tuple[Reason, ...]:
    """Return why a node whose result cannot be used has to run."""
    if forced:
        return (Reason(reason=why.FORCED),)
    last = build.last(node.job.name)
    if last is None:
        return (Reason(reason=why.FIRST_BUILD),)
    found = why.differences(last.components, node.components)
    if not found:
        return (Reason(reason=why.RESULT_MISSING),)
    return why.with_nodes(found, last.inputs, build.outputs(node.job.inputs))


def _produce(build: BuildContext, node: Prepared) -> Layer:
    context = node.context
    if node.kind.reads:
        tree = build.trees.merged(node.job.layers, build.outputs(node.job.layers)).tree
        context = msgspec.structs.replace(context, input=tree)
    fingerprint = node.fingerprint
    if node.job.nested:
        fingerprint = node.kind.gather(context, node.spec.params)
        _check_nested(node, fingerprint)
    layer = node.kind.produce(context, node.spec.params, fingerprint)
    changed = build.sources.changed(node.job.name)
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


def _result(node: Prepared, layer: str, entries: int, size: int) -> NodeResult:
    return NodeResult(
        key=node.key,
        node=node.job.name,
        kind=node.kind.name,
        kind_version=node.kind.version,
        components=node.components,
        layer=layer,
        entries=entries,
        bytes=size,
    )


def _image_tree(build: BuildContext, job: Job, asked: NodeSpec) -> Tree:
    """Return the tree that an image node takes in: the nested recipe's, or that of an image in the store."""
    if job.nested:
        tree_job = build.plan.jobs[job.nested]
        return build.trees.merged(tree_job.layers, build.outputs(tree_job.layers)).tree
    return stored_tree(build, asked)


def stored_tree(build: BuildContext, asked: NodeSpec) -> Tree:
    """Return the tree of the stored image that `asked` names; raises `StoreError` when there is none."""
    from cfsbuild.erofs.reader import read_image  # noqa: PLC0415 (few recipes take in a stored image)
    from cfsbuild.tree.flavour import from_dump  # noqa: PLC0415

    store: Any = build.store
    try:
        data = store.read_image(asked.params.image)
    except CfsError as error:
        error.origin = error.origin or asked.origin_of("image")
        raise
    return from_dump(read_image(data).entries())
