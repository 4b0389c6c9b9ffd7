"""Running the jobs that are no nodes: the tree of a nested recipe, and the targets."""

from __future__ import annotations

import time

import msgspec

from cfsbuild.build import reasons as why
from cfsbuild.build.job import Job
from cfsbuild.build.keys import KEY_FORMAT, Components, canonical_json, digest_of, key_of, layers_digest
from cfsbuild.build.outputs import altered
from cfsbuild.build.reasons import Reason
from cfsbuild.build.result import CACHED, CUT_OFF, RAN
from cfsbuild.build.session import Done, Session
from cfsbuild.build.state import LastRun
from cfsbuild.events import JobStarted
from cfsbuild.targets.kind import TargetContext, TargetOutput, TreeSource


def run_tree(session: Session, job: Job) -> Done:
    """Return the digest of the tree that a nested recipe's layers merge to."""
    began = time.monotonic()
    outputs = session.outputs(job.layers)
    components = layer_components(session, job)
    key = layers_digest(session.trees.uses(job.layers, outputs))
    known = key in session.trees.known
    reasons: tuple[Reason, ...] = ()
    if not known:
        last = session.last(job.name)
        reasons = (why.differences(last.components, components) if last else ()) or (
            Reason(reason=why.FIRST_BUILD if last is None else why.RESULT_MISSING),
        )
        session.listener(JobStarted(job=job.name, kind=job.kind, reason=why.sentence(reasons)))
    return Done(
        key=key,
        components=components,
        output=session.trees.digest(job.layers, outputs),
        outcome=_spared(session, job) if known else RAN,
        seconds=time.monotonic() - began,
        reasons=reasons,
    )


def layer_components(session: Session, job: Job) -> Components:
    """Return the key's components that say which layers a merge sees, by node, and how they are merged."""
    outputs = session.outputs(job.layers)
    components = {f"layer.{name}": output for name, output in outputs.items()}
    uses = session.trees.uses(job.layers, outputs)
    order = [(name, use.needs, use.replaces, use.reads) for name, use in zip(job.layers, uses, strict=True)]
    components["order"] = digest_of(canonical_json(order))
    return components


def target_components(session: Session, job: Job) -> Components:
    """Return everything that the output of a target follows from."""
    recipe = session.plan.recipes[job.recipe]
    spec = session.plan.target(job)
    kind = session.target_kinds[job.kind]
    components = {
        "format": str(KEY_FORMAT),
        "algorithm": session.algorithm.value,
        "kind": kind.name,
        "kind-version": str(kind.version),
        "epoch": str(recipe.epoch),
        "image.name": recipe.image_name,
        "image.format": str(recipe.format),
        **layer_components(session, job),
    }
    for name, value in msgspec.to_builtins(spec.params).items():
        components[f"param.{name}"] = canonical_json(value).decode()
    return components


def lacking(session: Session, job: Job, key: str) -> tuple[LastRun | None, tuple[Reason, ...]]:
    """Return the last run of a target, and why it does not serve: no reasons when it does."""
    last = session.last(job.name)
    if last is None:
        return None, (Reason(reason=why.FIRST_BUILD),)
    if session.force(job.name):
        return last, (Reason(reason=why.FORCED),)
    if last.key != key:
        return last, ()
    digest = bytes.fromhex(last.output)
    if not session.use_cache or not session.store.has_image(digest):
        return last, (Reason(reason=why.RESULT_MISSING),)
    return last, tuple(
        Reason(reason=why.OUTPUT_MISSING, subject=name) for name in altered(session.output, last.files)
    )


def run_target(session: Session, job: Job) -> tuple[Done, TargetOutput | None]:
    """Return what a target gives, and its output if it ran: its files are written after the commit."""
    began = time.monotonic()
    components = target_components(session, job)
    key = key_of(components)
    last, reasons = lacking(session, job, key)
    if last is not None and not reasons:
        if last.key == key:
            _set_reference(session, last.reference, bytes.fromhex(last.output))
            return _reuse(session, job, last, components, began), None
        reasons = why.differences(last.components, components)
    session.listener(JobStarted(job=job.name, kind=job.kind, reason=why.sentence(reasons)))
    merged = session.trees.merged(job.layers, session.outputs(job.layers))
    spec = session.plan.target(job)
    context = TargetContext(
        recipe=session.plan.recipes[job.recipe],
        spec=spec,
        source=TreeSource(tree=merged.tree, node_of=merged.provenance.node_of),
        sink=session.sink,
        algorithm=session.algorithm,
        jobs=session.jobs,
        listener=session.listener,
    )
    output = session.target_kinds[job.kind].emit(context, spec.params)
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


def _set_reference(session: Session, name: str, digest: bytes) -> None:
    """Let the reference stand for the image again, if it does not."""
    if name and session.store.resolve(name) != digest:
        session.sink.set_ref(name, digest)


def _reuse(session: Session, job: Job, last: LastRun, components: Components, began: float) -> Done:
    return Done(
        key=last.key,
        components=components,
        output=last.output,
        outcome=_spared(session, job),
        seconds=time.monotonic() - began,
        reference=last.reference,
        files=last.files,
    )


def _spared(session: Session, job: Job) -> str:
    ran = any(session.done[name].outcome in {RAN, CUT_OFF} for name in job.inputs)
    return CUT_OFF if ran else CACHED
