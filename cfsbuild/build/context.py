"""What the jobs of one build share while it runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from cfsbuild.build.cancelling import CancellableListener
from cfsbuild.build.job import NODE, Job, Plan
from cfsbuild.build.reasons import Reason
from cfsbuild.build.result import CACHED, CUT_OFF, RAN
from cfsbuild.build.sources import Sources
from cfsbuild.build.state import BuildState, LastRun, OutRecord
from cfsbuild.build.trees import Trees
from cfsbuild.errors import BuildError, CfsError, Problem, StoreError, UsageError
from cfsbuild.events import Listener
from cfsbuild.fsverity.algorithm import Algorithm
from cfsbuild.nodes.kind import NodeKind
from cfsbuild.store.results import NodeResult
from cfsbuild.targets.kind import TargetKind
from cfsbuild.tree.layer import Layer
from cfsbuild.tree.patching import LayerPatch


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """What a finished job gave.

    `layer` is set when the job made it, `patch` when it patched it, so that nobody has to read it back.
    """

    key: str
    components: dict[str, str]
    output: str
    outcome: str
    seconds: float = 0.0
    reasons: tuple[Reason, ...] = ()
    layer: Layer | None = None
    patch: LayerPatch | None = None
    reference: str = ""
    files: tuple[OutRecord, ...] = ()


class Sink(Protocol):
    """What a build needs of a store's transaction, or of something that keeps nothing."""

    algorithm: Algorithm

    def add_bytes(self, data: bytes, /) -> bytes:
        """Take `data` in; return its raw digest."""

    def add_fd(self, fd: int, /) -> tuple[bytes, int]:
        """Take in everything from `fd`'s position to its end."""

    def read_object(self, digest: bytes) -> bytes:
        """Return the content of an object that was taken in or is in the store."""

    def put_layer(self, layer: Layer) -> str:
        """Take in a layer; return its name."""

    def put_layer_document(self, data: bytearray) -> str:
        """Take in the bytes of a layer document; return its name."""

    def put_result(self, result: NodeResult) -> None:
        """Record a node's result."""

    def put_image(self, data: bytes, objects: Iterable[bytes] | None = None) -> bytes:
        """Take in an image that needs `objects`; return its raw digest."""

    def put_image_like(
        self, base: bytes, data: bytes | bytearray, added: Collection[bytes], removed: Collection[bytes]
    ) -> bytes | None:
        """Take in an image that needs almost what the image `base` needs; None when that is not known."""

    def set_ref(self, name: str, digest: bytes) -> None:
        """Name an image."""


class ReadableStore(Protocol):
    """What a build reads from a store."""

    path: Path
    algorithm: Algorithm

    def result(self, key: str, /) -> NodeResult | None:
        """Return the result recorded under `key`."""

    def layer(self, name: str, /) -> Layer | None:
        """Return a layer."""

    def layer_document(self, name: str, /) -> bytearray | None:
        """Return the bytes of a layer document."""

    def read_object_to_change(self, digest: bytes, /) -> bytearray:
        """Return an object's verified content."""

    def has_image(self, digest: bytes, /) -> bool:
        """Say whether an image of this digest is listed in the store, and there."""

    def resolve(self, name: str, /) -> bytes | None:
        """Return the raw digest that a reference stands for."""


def no_passphrase(path: Path) -> bytes:
    """Raise `UsageError`: a key needs a passphrase, and nobody can be asked."""
    raise UsageError(
        f"the key {path} needs a passphrase",
        resolution="--passphrase-file or --passphrase-fd gives it; or sign later with `cfsbuild sign`",
        reason="passphrase",
    )


class BuildContext:
    """One build. `done` is written by the thread that schedules; jobs read of it only what they wait for."""

    def __init__(  # noqa: PLR0913 (the parts of a build, each given once)
        self,
        plan: Plan,
        store: ReadableStore,
        *,
        node_kinds: Mapping[str, NodeKind],
        target_kinds: Mapping[str, TargetKind],
        sink: Sink,
        state: BuildState,
        sources: Sources,
        listener: Listener,
        output: Path,
        jobs: int,
        force: Callable[[str], bool],
        passphrase: Callable[[Path], bytes] = no_passphrase,
    ) -> None:
        self.plan = plan
        self.store = store
        self.node_kinds = node_kinds
        self.target_kinds = target_kinds
        self.sink = sink
        self.before = state
        self.sources = sources
        self.listener = CancellableListener(listener)
        self.output = output
        self.jobs = jobs
        self.force = force
        self.passphrase = passphrase
        self.algorithm = store.algorithm
        self.done: dict[str, Done] = {}
        self.trees = Trees(plan, node_kinds, self.layer, dict(state.trees))
        self._layers: dict[str, Layer] = {}
        self._lock = threading.Lock()

    def outputs(self, names: Iterable[str]) -> dict[str, str]:
        """Return the outputs of the finished jobs `names`."""
        return {name: self.done[name].output for name in names}

    def spared(self, job: Job) -> str:
        """Return the outcome of a job that need not run: cut off if one that it waits for had to."""
        ran = any(self.done[name].outcome in {RAN, CUT_OFF} for name in job.inputs)
        return CUT_OFF if ran else CACHED

    def last(self, name: str) -> LastRun | None:
        """Return what became of a job when the recipe was last built."""
        return self.before.jobs.get(name)

    def layer(self, name: str) -> Layer:
        """Return the layer that the finished node job `name` gave; raises `BuildError` if it has vanished."""
        done = self.done[name]
        if done.layer is not None:
            return done.layer
        with self._lock:
            if done.output not in self._layers:
                found = self.store.layer(done.output) if done.patch is None else done.patch.layer
                if found is None:
                    raise BuildError(
                        f"the layer of node {name!r} vanished from the store while building",
                        resolution="build again",
                        reason="layer-vanished",
                    )
                self._layers[done.output] = found
            return self._layers[done.output]

    def forget(self) -> None:
        """Let go of the trees and layers that no job to come needs: each may be as large as the image's."""
        coming = [job for name, job in self.plan.jobs.items() if name not in self.done]
        nested = [self.plan.jobs[job.nested] for job in coming if job.nested]
        if not any(job.role == NODE for job in coming):
            self.sources.forget_listings()
        with self._lock:
            needed = self.trees.keep({job.layers for job in (*coming, *nested)})
            for name, done in list(self.done.items()):
                if name not in needed:
                    self._layers.pop(done.output, None)
                    if done.layer is not None:
                        self.done[name] = msgspec.structs.replace(done, layer=None)

    def cached(self, key: str) -> tuple[NodeResult, Layer] | None:
        """Return the result recorded under `key` and its layer, if all that they need is in the store."""
        result = self.store.result(key)
        layer = self.store.layer(result.layer) if result is not None else None
        return (result, layer) if result is not None and layer is not None else None


class BuildFailedError(BuildError):
    """Several jobs failed (`--keep-going`)."""

    def __init__(self, errors: tuple[CfsError, ...]) -> None:
        super().__init__(f"{len(errors)} jobs failed", reason="several")
        self.errors = errors

    def problems(self) -> tuple[Problem, ...]:
        """Return every problem of every job that failed."""
        return tuple(problem for error in self.errors for problem in error.problems())


def failure(errors: Sequence[CfsError]) -> CfsError:
    """Return the error for what the jobs of a build raised: that itself when it is but one thing."""
    if all(isinstance(error, StoreError) for error in errors):
        # A full disk, say, meets every job that runs, and the later errors follow from the first.
        return errors[0]
    found = {(type(error), error.brief, error.origin): error for error in reversed(errors)}
    distinct = tuple(reversed(found.values()))
    if len(distinct) == 1:
        return distinct[0]
    return BuildFailedError(distinct)
