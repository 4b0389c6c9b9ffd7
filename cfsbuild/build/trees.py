"""Merging of layers while a build runs: each set of layers once, and not at all when its digest is known."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence

from cfsbuild.build.job import Job, Plan
from cfsbuild.build.keys import LayerUse, layers_digest
from cfsbuild.nodes.kind import NodeKind
from cfsbuild.tree.layer import Layer
from cfsbuild.tree.merge import Contribution, Merged, merge

LoadLayer = Callable[[str], Layer]
"""Return the layer that a node job gave."""


class Trees:
    """Knows how jobs' layers merge. May be used from several threads at once."""

    def __init__(
        self, plan: Plan, kinds: Mapping[str, NodeKind], load: LoadLayer, known: dict[str, str]
    ) -> None:
        self._plan = plan
        self._kinds = kinds
        self._load = load
        self._merged: dict[str, Merged] = {}
        self._jobs: dict[tuple[str, ...], str] = {}
        self._locks: dict[str, threading.Lock] = {}
        self._guard = threading.Lock()
        self.known = known
        """Digest of layers → digest of the tree they merge to; grows while the build runs."""

    def uses(self, jobs: Sequence[str], outputs: Mapping[str, str]) -> tuple[LayerUse, ...]:
        """Return how the layers `outputs` of the node jobs `jobs` take part in their merge."""
        position = {name: index for index, name in enumerate(jobs)}
        found = []
        for name in jobs:
            job = self._plan.jobs[name]
            needs = tuple(position[need] for need in job.layers if need in position)
            spec = self._plan.node(job)
            found.append(LayerUse(outputs[name], needs, spec.replaces, self._kinds[job.kind].reads))
        return tuple(found)

    def merged(self, jobs: Sequence[str], outputs: Mapping[str, str]) -> Merged:
        """Return the merge of the layers of `jobs`; raises `ConflictError`."""
        key = layers_digest(self.uses(jobs, outputs))
        with self._guard:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            found = self._merged.get(key)
            if found is None:
                found = merge([self._contribution(self._plan.jobs[name]) for name in jobs])
            with self._guard:
                self._merged[key] = found
                self._jobs[tuple(jobs)] = key
            return found

    def keep(self, wanted: Collection[tuple[str, ...]]) -> set[str]:
        """Drop merges of any jobs but `wanted`; return those of them whose layers are yet to be merged."""
        with self._guard:
            self._jobs = {jobs: key for jobs, key in self._jobs.items() if jobs in wanted}
            kept = set(self._jobs.values())
            for key in [key for key in self._merged if key not in kept]:
                del self._merged[key]
            return {name for jobs in wanted if jobs not in self._jobs for name in jobs}

    def digest(self, jobs: Sequence[str], outputs: Mapping[str, str]) -> str:
        """Return the digest of the tree that the layers of `jobs` merge to; merges only if it is unknown."""
        key = layers_digest(self.uses(jobs, outputs))
        if key not in self.known:
            from cfsbuild.tree.layer import tree_digest  # noqa: PLC0415 (rarely needed)

            self.known[key] = tree_digest(self.merged(jobs, outputs).tree)
        return self.known[key]

    def _contribution(self, job: Job) -> Contribution:
        spec = self._plan.node(job)
        kind = self._kinds[job.kind]
        return Contribution(
            node=job.name,
            kind=job.kind,
            static=kind.static,
            layer=self._load(job.name),
            needs=frozenset(job.layers),
            replaces=spec.replaces,
            origin=spec.origin,
            reads=kind.reads,
        )
