"""What a build, or a machine that starts, tells whoever listens: typed facts, no presentation.

Every event is one JSON object (`docs/formats/events.md`): `{"event": KIND, "version": 1, …}`.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

EVENTS_VERSION = 1


class Event(msgspec.Struct, frozen=True, tag_field="event", kw_only=True):
    """Base of all events."""

    version: int = EVENTS_VERSION


class BuildStarted(Event, frozen=True, tag="build-started"):
    """A plan for `image` is about to run; `jobs` are the names of its jobs in topological order."""

    image: str
    jobs: tuple[str, ...]


class JobStarted(Event, frozen=True, tag="job-started"):
    """A job runs: nothing that could be reused was found. `reason` says what changed."""

    job: str
    kind: str
    reason: str = ""


class JobCached(Event, frozen=True, tag="job-cached"):
    """A job's result was found under its key."""

    job: str
    kind: str
    key: str


class JobCutOff(Event, frozen=True, tag="job-cut-off"):
    """A job did not run although something before it ran, since that gave the same output as before."""

    job: str
    kind: str
    key: str


class JobFinished(Event, frozen=True, tag="job-finished"):
    """A job ran and its result is recorded. `seconds` is wall time."""

    job: str
    kind: str
    key: str
    output: str
    seconds: float


class JobFailed(Event, frozen=True, tag="job-failed"):
    """A job failed; `brief` is the error's first line."""

    job: str
    kind: str
    brief: str


class JobSkipped(Event, frozen=True, tag="job-skipped"):
    """A job was not tried because `because` failed (`--keep-going`)."""

    job: str
    because: str


class Progress(Event, frozen=True, tag="progress"):
    """`done` of `total` units of work in `job`; `total` is 0 when unknown. Rates are up to the listener."""

    job: str
    unit: str
    done: int
    total: int = 0


class Note(Event, frozen=True, tag="note"):
    """Something worth a line that is not an error (a case collision, verity not enforced …).

    `origin` is the recipe's file and line that it is about.
    """

    text: str
    job: str = ""
    origin: str = ""


class BuildFinished(Event, frozen=True, tag="build-finished"):
    """The image is in the store. `digest` is the fs-verity digest of the image file, lower-case hex."""

    image: str
    digest: str
    seconds: float
    ran: int
    cached: int


class BootStep(Event, frozen=True, tag="boot-step"):
    """A virtual machine on its way: `text`, one printable line, says what it does now."""

    text: str


class BootFinished(Event, frozen=True, tag="boot-finished"):
    """A virtual machine runs what it was started for. `seconds` is wall time since its start."""

    seconds: float


class Listener(Protocol):
    """Receives events, in the order in which they happened, from one thread at a time."""

    def __call__(self, event: Event, /) -> None:
        """Take note of `event`. Must not raise."""


def ignore(event: Event, /) -> None:
    """Be the listener that listens to nothing."""
