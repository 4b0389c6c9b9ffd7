"""Running the jobs that are no nodes: the tree of a nested recipe, and the targets."""

from __future__ import annotations

import time

import msgspec

from cfsbuild.build import reasons as why
from cfsbuild.build.context import BuildContext, Done
from cfsbuild.build.job import Job
from cfsbuild.build.keys import KEY_FORMAT, Components, canonical_json, digest_of, key_of, layers_digest
from cfsbuild.build.memory import give_back
from cfsbuild.build.outputs import altered, existing
from cfsbuild.build.reasons import Reason
from cfsbuild.build.result import RAN
from cfsbuild.build.state import LastRun
from cfsbuild.build.target_patch import patched_output
from cfsbuild.build.unlabelled import unlabelled
from cfsbuild.events import JobStarted
from cfsbuild.targets.kind import TargetContext, TargetOutput, TreeSource
from cfsbuild.tree.layer import Tree


def run_tree(build: BuildContext, job: Job) -> Done:
    """Return the digest of the tree that a nested recipe's layers merge to."""
    began = time.monotonic()
    outputs = build.outputs(job.layers)
    components = layer_components(build, job)
    key = layers_digest(build.trees.uses(job.layers, outputs))
    reasons = why_merge(build, job, key, components)
    if reasons:
        build.listener(JobStarted(job=job.name, kind=job.kind, reason=why.sentence(reasons)))
    return Done(
        key=key,
        components=components,
        output=build.trees.digest(job.layers, outputs),
        outcome=RAN if reasons else build.spared(job),
        seconds=time.monotonic() - began,
        reasons=reasons,
    )


def why_merge(build: BuildContext, job: Job, key: str, components: Components) -> tuple[Reason, ...]:
    """Return why layers have to be merged; no reasons when it is known what they merge to."""
    if key in build.trees.known:
        return ()
    last = build.last(job.name)
    if last is None:
        return (Reason(reason=why.FIRST_BUILD),)
    return why.differences(last.components, components) or (Reason(reason=why.RESULT_MISSING),)


def layer_components(build: BuildContext, job: Job) -> Components:
    """Return the key's components that say which layers a merge sees, by node, and how they are merged."""
    outputs = build.outputs(job.layers)
    components = {f"layer.{name}": output for name, output in outputs.items()}
    uses = build.trees.uses(job.layers, outputs)
    order = [(name, use.needs, use.replaces, use.reads) for name, use in zip(job.layers, uses, strict=True)]
    components["order"] = digest_of(canonical_json(order))
    return components


def target_components(build: BuildContext, job: Job) -> Components:
    """Return everything that the output of a target follows from."""
    recipe = build.plan.recipes[job.recipe]
    spec = build.plan.target(job)
    kind = build.target_kinds[job.kind]
    components = {
        "format": str(KEY_FORMAT),
        "algorithm": build.algorithm.value,
        "kind": kind.name,
        "kind-version": str(kind.version),
        "epoch": str(recipe.epoch),
        "image.name": recipe.image_name,
        "image.format": str(recipe.format),
    }
    if job.image:
        components["image.digest"] = build.done[job.image].output
    else:
        components.update(layer_components(build, job))
    build.sources.observe(job.name, kind, spec)
    for written, digest in build.sources.digests(job.name).items():
        components[f"source.{written}"] = digest
    for name, value in msgspec.to_builtins(spec.params).items():
        components[f"param.{name}"] = canonical_json(value).decode()
    return components


def why_emit(
    build: BuildContext, job: Job, last: LastRun | None, key: str, components: Components
) -> tuple[Reason, ...]:
    """Return why a target has to run; no reasons when what its `last` run gave still serves."""
    if last is None:
        return (Reason(reason=why.FIRST_BUILD),)
    if build.force(job.name):
        return (Reason(reason=why.FORCED),)
    if last.key != key:
        return why.differences(last.components, components) or (Reason(reason=why.RESULT_MISSING),)
    if last.reference and not build.store.has_image(bytes.fromhex(last.output)):
        return (Reason(reason=why.RESULT_MISSING),)
    return tuple(
        Reason(reason=why.OUTPUT_MISSING, subject=name) for name in altered(build.output, last.files)
    )


def run_target(build: BuildContext, job: Job) -> tuple[Done, TargetOutput | None]:
    """Return what a target gives, and its output if it ran: its files are written after the commit."""
    began = time.monotonic()
    components = target_components(build, job)
    key = key_of(components)
    last = build.last(job.name)
    reasons = why_emit(build, job, last, key, components)
    if last is not None and not reasons:
        _set_reference(build, last.reference, bytes.fromhex(last.output))
        return _reuse(build, job, last, components, began), None
    build.listener(JobStarted(job=job.name, kind=job.kind, reason=why.sentence(reasons)))
    output = None if last is None else patched_output(build, job, last, components)
    if output is None:
        output = _emit(build, job)
    done = Done(
        key=key,
        components=components,
        output=output.digest,
        outcome=RAN,
        seconds=time.monotonic() - began,
        reasons=reasons,
        reference=output.reference,
    )
    return done, output


def _emit(build: BuildContext, job: Job) -> TargetOutput:
    spec = build.plan.target(job)
    context = TargetContext(
        recipe=build.plan.recipes[job.recipe],
        spec=spec,
        source=_source(build, job),
        image=bytes.fromhex(build.done[job.image].output) if job.image else b"",
        sink=build.sink,
        algorithm=build.algorithm,
        existing=lambda name: existing(build.output, name),
        passphrase=build.passphrase,
    )
    return build.target_kinds[job.kind].emit(context, spec.params)


def _source(build: BuildContext, job: Job) -> TreeSource:
    if job.image:
        return TreeSource(tree=Tree(entries={}), node_of=lambda _: "")
    merged = build.trees.merged(job.layers, build.outputs(job.layers))
    for note in unlabelled(build.plan, job, merged):
        build.listener(note)
    build.forget()
    give_back()
    return TreeSource(
        tree=merged.tree, node_of=merged.provenance.node_of, changed=merged.provenance.changed()
    )


def _set_reference(build: BuildContext, name: str, digest: bytes) -> None:
    """Let the reference stand for the image again, if it does not."""
    if name and build.store.resolve(name) != digest:
        build.sink.set_ref(name, digest)


def _reuse(build: BuildContext, job: Job, last: LastRun, components: Components, began: float) -> Done:
    return Done(
        key=last.key,
        components=components,
        output=last.output,
        outcome=build.spared(job),
        seconds=time.monotonic() - began,
        reference=last.reference,
        files=last.files,
    )
