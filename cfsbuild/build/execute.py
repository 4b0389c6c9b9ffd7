"""Runs a plan: every job as soon as its inputs are done, each at most once, none that need not run."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cfsbuild.begun import PATIENCE
from cfsbuild.build.cancelling import CancellableSink
from cfsbuild.build.commit import Commit
from cfsbuild.build.context import BuildContext, Done, failure, no_passphrase
from cfsbuild.build.job import NODE, TARGET, TREE, Job, Plan
from cfsbuild.build.memory import map_large_blocks
from cfsbuild.build.node_job import run_node
from cfsbuild.build.outputs import altered, write_outputs
from cfsbuild.build.result import CACHED, CUT_OFF, BuildResult, ImageReport, JobReport
from cfsbuild.build.sources import Sources
from cfsbuild.build.state import BuildState, LastRun, OutRecord, load_state, save_state, state_path
from cfsbuild.build.target_job import run_target, run_tree
from cfsbuild.build.workers import Completion, Workers
from cfsbuild.errors import CfsError
from cfsbuild.events import (
    BuildStarted,
    Event,
    JobCached,
    JobCutOff,
    JobFailed,
    JobFinished,
    JobSkipped,
    Listener,
    ignore,
)
from cfsbuild.fsverity.algorithm import Algorithm
from cfsbuild.nodes.kind import NodeKind
from cfsbuild.store.durability import Durability
from cfsbuild.store.meta import check_algorithm
from cfsbuild.targets.kind import TargetKind, TargetOutput
from cfsbuild.tree.cycles import cycle_collector_paused

if TYPE_CHECKING:
    from cfsbuild.store.store import Store
    from cfsbuild.store.transaction import Transaction


class Executed(msgspec.Struct, frozen=True, kw_only=True):
    """What a build gave, and its output files as they were right after they were written."""

    result: BuildResult
    files: tuple[OutRecord, ...]


def execute(  # noqa: PLR0913 (what a build is given; all but the first two by keyword)
    plan: Plan,
    store: Store,
    *,
    node_kinds: Mapping[str, NodeKind],
    target_kinds: Mapping[str, TargetKind],
    output: Path,
    jobs: int = 1,
    keep_going: bool = False,
    force: Collection[str] | None = (),
    durability: Durability = Durability.BATCH,
    listener: Listener = ignore,
    sources: Sources | None = None,
    passphrase: Callable[[Path], bytes] | None = None,
) -> Executed:
    """Build everything that `plan` says and return what came out; output files go to `output`.

    `force` names jobs to run although their results are known; None means all. Raises what a job raised
    (`BuildFailedError` for several, if `keep_going`); what was finished before is in the store then.
    KeyboardInterrupt discards what is not.
    """
    check_algorithm(store.algorithm, Algorithm(plan.recipe.algorithm), str(store.path))
    map_large_blocks()
    began = time.monotonic()
    path = state_path(store.state_path, plan.recipe.path, plan.recipe.image_name, output)
    with store.transaction(durability=durability) as transaction:
        sink = CancellableSink(transaction)
        build = BuildContext(
            plan,
            store,
            node_kinds=node_kinds,
            target_kinds=target_kinds,
            sink=sink,
            state=load_state(path),
            sources=sources or Sources(store.state_path),
            listener=listener,
            output=output,
            jobs=jobs,
            force=lambda name: force is None or name in force,
            passphrase=passphrase or no_passphrase,
        )
        build.listener(BuildStarted(image=plan.recipe.image_name, jobs=tuple(plan.jobs)))
        run = _Run(build, sink, Workers(jobs), keep_going=keep_going)
        run.whole(transaction)
    save_state(path, _new_state(build))
    run.raise_failures()
    result = _result(build, time.monotonic() - began)
    build.listener(result.finished(result.seconds))
    return Executed(result=result, files=tuple(file for done in build.done.values() for file in done.files))


class _Run:
    """The scheduler: one thread decides, the workers work."""

    def __init__(
        self, build: BuildContext, sink: CancellableSink, workers: Workers, *, keep_going: bool
    ) -> None:
        self._workers = workers
        self._build = build
        self._sink = sink
        self._keep_going = keep_going
        self._waiting = {job.name: set(job.inputs) for job in build.plan.jobs.values()}
        self._running = 0
        self._outputs: dict[str, TargetOutput] = {}
        self._errors: list[CfsError] = []

    def whole(self, transaction: Transaction) -> None:
        """Run the jobs and publish what they gave."""
        self._jobs()
        self._publish(transaction)

    def _jobs(self) -> None:
        """Run every job, or until one fails; raises only what is no `CfsError`. Jobs end with it."""
        try:
            with cycle_collector_paused():
                self._schedule()
        finally:
            self._sink.cancel()
            self._build.listener.close()
            self._workers.close(patience=PATIENCE)

    def _schedule(self) -> None:
        self._submit_ready()
        while self._running:
            self._settle(self._workers.next())
            if self._keep_going or not self._errors:
                self._submit_ready()

    def _settle(self, completion: Completion) -> None:
        self._running -= 1
        job = self._build.plan.jobs[completion.token]
        if completion.error is None:
            self._finished(job, completion.value)
        elif isinstance(completion.error, CfsError):
            self._failed(job, completion.error)
        else:
            raise completion.error

    def raise_failures(self) -> None:
        """Raise what jobs raised, if any did."""
        if self._errors:
            raise failure(self._errors)

    def _publish(self, transaction: Transaction) -> None:
        """Commit, and put the files of the targets that ran into the output directory meanwhile."""
        commit = Commit(transaction)
        try:
            for name, output in self._outputs.items():
                records = write_outputs(self._build.output, output.files, transaction.open_object, commit)
                self._build.done[name] = msgspec.structs.replace(self._build.done[name], files=records)
        except CfsError:
            # What was built stays known, though its files could not be written.
            commit.wait()
            raise
        commit.wait()
        self._remove_stale()

    def _remove_stale(self) -> None:
        """Remove what targets that ran wrote last time and not any more, unless somebody changed it."""
        written = {file.name for done in self._build.done.values() for file in done.files}
        for name in self._outputs:
            last = self._build.last(name)
            for record in () if last is None else last.files:
                if record.name not in written and not altered(self._build.output, [record]):
                    (self._build.output / record.name).unlink(missing_ok=True)

    def _submit_ready(self) -> None:
        ready = [name for name, inputs in self._waiting.items() if not inputs]
        for name in ready:
            del self._waiting[name]
            self._running += 1
            job = self._build.plan.jobs[name]
            self._workers.submit(name, lambda job=job: _work(self._build, job))  # type: ignore[misc]

    def _finished(self, job: Job, value: tuple[Done, TargetOutput | None]) -> None:
        done, output = value
        self._build.done[job.name] = done
        self._build.forget()
        if output is not None:
            self._outputs[job.name] = output
        self._build.listener(_event(job, done))
        for inputs in self._waiting.values():
            inputs.discard(job.name)

    def _failed(self, job: Job, error: CfsError) -> None:
        self._errors.append(error)
        self._build.listener(JobFailed(job=job.name, kind=job.kind, brief=error.brief))
        if self._keep_going:
            self._skip_dependents(job.name)

    def _skip_dependents(self, name: str) -> None:
        for dependent in [other for other, inputs in self._waiting.items() if name in inputs]:
            if self._waiting.pop(dependent, None) is not None:
                self._build.listener(JobSkipped(job=dependent, because=name))
                self._skip_dependents(dependent)


def _work(build: BuildContext, job: Job) -> tuple[Done, TargetOutput | None]:
    if job.role == NODE:
        return run_node(build, job), None
    if job.role == TREE:
        return run_tree(build, job), None
    return run_target(build, job)


def _event(job: Job, done: Done) -> Event:
    if done.outcome == CACHED:
        return JobCached(job=job.name, kind=job.kind, key=done.key)
    if done.outcome == CUT_OFF:
        return JobCutOff(job=job.name, kind=job.kind, key=done.key)
    return JobFinished(job=job.name, kind=job.kind, key=done.key, output=done.output, seconds=done.seconds)


def _new_state(build: BuildContext) -> BuildState:
    """Return the state after this build: jobs that failed or were skipped keep what was known of them."""
    jobs = {name: run for name, run in build.before.jobs.items() if name in build.plan.jobs}
    for name, done in build.done.items():
        last = build.last(name)
        jobs[name] = LastRun(
            key=done.key,
            components=done.components,
            output=done.output,
            outcome=done.outcome,
            seconds=done.seconds,
            reasons=done.reasons or (last.reasons if last is not None and last.key == done.key else ()),
            inputs=build.outputs(build.plan.jobs[name].inputs),
            reference=done.reference,
            files=done.files,
        )
    return BuildState(image=build.plan.recipe.image_name, jobs=jobs, trees=build.trees.known)


def _result(build: BuildContext, seconds: float) -> BuildResult:
    images = []
    reports = []
    for job in build.plan.jobs.values():
        done = build.done[job.name]
        reports.append(
            JobReport(
                job=job.name,
                kind=job.kind,
                outcome=done.outcome,
                key=done.key,
                output=done.output,
                seconds=done.seconds,
                reasons=done.reasons,
            )
        )
        if job.role == TARGET:
            files = tuple(str(build.output / record.name) for record in done.files)
            images.append(
                ImageReport(target=job.local_name, digest=done.output, reference=done.reference, files=files)
            )
    return BuildResult(
        image=build.plan.recipe.image_name, images=tuple(images), jobs=tuple(reports), seconds=seconds
    )
