"""Patching a target's last output, when of the layers below it only some files are different."""

from __future__ import annotations

from functools import partial

from cfsbuild.build.context import BuildContext
from cfsbuild.build.job import Job
from cfsbuild.build.keys import Components
from cfsbuild.build.outputs import read_back, seems_whole
from cfsbuild.build.state import LastRun
from cfsbuild.errors import StoreError, VerificationError
from cfsbuild.targets.kind import PatchContext, TargetOutput
from cfsbuild.tree.patching import MOST_CHANGES, Change, path_bytes


def patched_output(
    build: BuildContext, job: Job, last: LastRun, components: Components
) -> TargetOutput | None:
    """Return what the target gives, made from what it gave last; None when it has to be made anew."""
    patch = build.target_kinds[job.kind].patch
    if patch is None or build.force(job.name):
        return None
    changes = _changes(build, job, last, components)
    base = bytes.fromhex(last.output)
    if changes is None or not build.store.has_image(base):
        return None
    # To patch the image for nothing, because a file beside it is gone, would cost as much as it saves.
    if not all(seems_whole(build.output, record) for record in last.files if record.digest):
        return None
    files = {record.name: record for record in last.files}
    context = PatchContext(
        recipe=build.plan.recipes[job.recipe],
        sink=build.sink,
        algorithm=build.algorithm,
        base=base,
        changes=changes,
        written=lambda name: read_back(build.output, files[name]) if name in files else None,
        image=partial(_image, build, base),
    )
    return patch(context, build.plan.target(job).params)


def _image(build: BuildContext, digest: bytes) -> bytearray | None:
    try:
        return build.store.read_object_to_change(digest)
    except (StoreError, VerificationError):
        # Gone or damaged: the new image is made without it, and `fsck` tells.
        return None


def _changes(
    build: BuildContext, job: Job, last: LastRun, components: Components
) -> tuple[Change, ...] | None:
    """Return how the tree differs from that of the last run; None unless only patched layers differ.

    A path that is changed must not be named in any other layer: whether and how it counts in the tree would
    depend on both.
    """
    if components.keys() != last.components.keys():
        return None
    changes: list[Change] = []
    for key, value in components.items():
        before = last.components[key]
        if value == before:
            continue
        patch = build.done[key.removeprefix("layer.")].patch if key.startswith("layer.") else None
        if patch is None or patch.base != before:
            return None
        changes += patch.changes
    if not changes or len(changes) > MOST_CHANGES or not _alone(build, job, changes):
        return None
    return tuple(changes)


def _alone(build: BuildContext, job: Job, changes: list[Change]) -> bool:
    """Say whether each changed path stands in one layer only."""
    names = [path_bytes(change.path) for change in changes]
    found = dict.fromkeys(names, 0)
    for layer in job.layers if len(job.layers) > 1 else ():
        patch = build.done[layer].patch
        data = build.store.layer_document(build.done[layer].output) if patch is None else patch.data
        if data is None:
            return False
        for name in names:
            found[name] += name in data
    return all(count <= 1 for count in found.values())
