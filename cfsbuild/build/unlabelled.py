"""Paths that lack an SELinux label in an image that has them, since no node that labels needs their nodes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from cfsbuild.build.job import Job, Plan
from cfsbuild.events import Note
from cfsbuild.tree.merge import Merged


def unlabelled(plan: Plan, target: Job, merged: Merged) -> Iterator[Note]:
    """Yield a note if `merged`, the tree of `target`, has paths without label: how many, and of which nodes.

    What a labelling node was given and left alone is as its policy says; so are directories of no node.
    """
    labelling = [job for name in target.layers if _labels(plan, job := plan.jobs[name])]
    if not labelling:
        return
    from cfsbuild.tree.selinux import XATTR  # noqa: PLC0415 (few images are labelled)

    seen = {""}.union(*((job.name, *job.layers) for job in labelling))
    tree, node_of = merged.tree, merged.provenance.node_of
    found = Counter(
        node
        for path, inode in tree.entries.items()
        if (node := node_of(path)) not in seen and all(name != XATTR for name, _ in inode.xattrs)
    )
    if found:
        nodes = ", ".join(name for name in target.layers if name in found)
        lack = f"1 path of {nodes} has" if found.total() == 1 else f"{found.total()} paths of {nodes} have"
        needs = f"{labelling[0].name} does not need" if len(labelling) == 1 else "no node that labels needs"
        yield Note(
            text=f"{lack} no SELinux label: {needs} {'it' if len(found) == 1 else 'them'}",
            job=labelling[0].name,
            origin=str(plan.node(labelling[0]).origin_of("needs") or ""),
        )


def _labels(plan: Plan, job: Job) -> bool:
    return job.kind == "attributes" and bool(plan.node(job).params.contexts)
