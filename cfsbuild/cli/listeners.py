"""Who listens to a build, on standard error: lines for people, a progress bar, JSON lines, or nobody."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from cfsbuild import events
from cfsbuild.cli.settings import Settings
from cfsbuild.events import Event, Listener

BAR_AFTER_SECONDS = 1.0
"""How long something may take before a progress bar appears."""


@contextlib.contextmanager
def listening(settings: Settings) -> Iterator[Listener]:
    """Yield the listener that `--progress`, `--quiet` and the terminal call for; clean up after it."""
    mode = settings.progress
    if mode == "auto":
        mode = "none" if settings.quiet else "tty" if sys.stderr.isatty() else "plain"
    if mode == "json":
        yield json_lines
    elif mode == "plain":
        yield PlainLines(verbose=settings.verbose > 0)
    elif mode == "tty":
        from cfsbuild.cli.progress import ProgressBar  # noqa: PLC0415 (only on a terminal)

        with contextlib.closing(ProgressBar(PlainLines(verbose=settings.verbose > 0))) as bar:
            yield bar
    else:
        yield events.ignore


def write_line(text: str) -> None:
    """Write one line to standard error, whatever bytes the names in it are made of."""
    sys.stderr.write(text.encode(errors="backslashreplace").decode() + "\n")
    sys.stderr.flush()


def json_lines(event: Event, /) -> None:
    """Write `event` as one JSON object on one line (`docs/formats/events.md`)."""
    from cfsbuild.cli.render import json_line  # noqa: PLC0415 (only here)

    sys.stderr.write(json_line(event).decode())
    sys.stderr.flush()


class PlainLines:
    """One line when a job ends. With `verbose` also when it begins, and for jobs that need not run."""

    def __init__(self, *, verbose: bool) -> None:
        self._verbose = verbose

    def __call__(self, event: Event, /) -> None:
        """Write what `event` says, if it is worth a line."""
        text = self.text(event)
        if text:
            write_line(text)

    def text(self, event: Event) -> str:  # noqa: C901, PLR0911 (one line for each kind of event)
        """Return the line for `event`; "" for none."""
        match event:
            case events.JobStarted(job=job, kind=kind, reason=reason) if self._verbose:
                return f"{job} ({kind}): running: {reason}" if reason else f"{job} ({kind}): running"
            case events.JobFinished(job=job, seconds=seconds):
                return f"{job}: done in {seconds:.2f} s"
            case events.JobCached(job=job) if self._verbose:
                return f"{job}: cached"
            case events.JobCutOff(job=job) if self._verbose:
                return f"{job}: cut off, what it reads is what it was"
            case events.JobFailed(job=job, brief=brief):
                return f"{job}: failed: {brief}"
            case events.JobSkipped(job=job, because=because):
                return f"{job}: skipped, since {because} failed"
            case events.Note():
                return _note_line(event)
            case events.BuildFinished():
                return finished_line(event)
            case events.BootStep(text=text):
                return f"booting: {text}"
            case events.BootFinished(seconds=seconds):
                return f"booted in {seconds:.1f} s"
            case _:
                return ""


def _note_line(note: events.Note) -> str:
    from cfsbuild.cli.errors_text import from_here  # noqa: PLC0415 (few builds have something to note)

    return ": ".join(filter(None, (note.job, "note", from_here(note.origin), note.text)))


def finished_line(event: events.BuildFinished) -> str:
    """Return one line about a whole build."""
    if event.ran == 0:
        return f"{event.image}: nothing to do ({event.seconds:.2f} s)"
    return f"{event.image}: {event.ran} ran, {event.cached} cached ({event.seconds:.2f} s)"
