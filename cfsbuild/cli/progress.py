"""The progress bar: how many jobs are done, and how far the one is that tells."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from cfsbuild import events
from cfsbuild.cli.listeners import BAR_AFTER_SECONDS, PlainLines, write_line
from cfsbuild.events import Event

if TYPE_CHECKING:
    from tqdm import tqdm

TICK_SECONDS = 0.1


class ProgressBar:
    """Draws with tqdm, imported when the bar first appears: `BAR_AFTER_SECONDS` after the build began.

    A thread of its own draws, so that the bar appears and moves on while a job says nothing.
    """

    def __init__(self, lines: PlainLines) -> None:
        self._lines = lines
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._began = time.monotonic()
        self._image = ""
        self._jobs = 0
        self._done = 0
        self._running: dict[str, tuple[int, int, str]] = {}
        self._bar: tqdm[Any] | None = None

    def __call__(self, event: Event, /) -> None:
        """Take note of `event`; write what is worth keeping above the bar."""
        with self._lock:
            self._note(event)
            text = self._lines.text(event)
            if text and not isinstance(event, events.JobStarted | events.BootStep):
                self._write(text)

    def close(self) -> None:
        """Remove the bar and end its thread."""
        self._stop.set()
        # Who was interrupted while it started may have one that is not there.
        if self._thread is not None and self._thread.is_alive():
            self._thread.join()
        self._thread = None
        with self._lock:
            self._remove()

    def _note(self, event: Event) -> None:
        match event:
            case events.BuildStarted(image=image, jobs=jobs):
                self._began = time.monotonic()
                self._image, self._jobs, self._done = image, len(jobs), 0
                self._start_thread()
            case events.JobStarted(job=job):
                self._running[job] = (0, 0, "")
            case events.Progress(job=job, unit=unit, done=done, total=total):
                self._running[job] = (done, total, unit)
            case events.JobFinished(job=job) | events.JobFailed(job=job) | events.JobSkipped(job=job):
                self._running.pop(job, None)
                self._done += 1
            case events.JobCached() | events.JobCutOff():
                self._done += 1
            case events.BootStep(text=text):
                self._step(text)
            case events.BuildFinished() | events.BootFinished():
                self._remove()
                self._jobs = 0

    def _step(self, text: str) -> None:
        """Show a machine that starts as one job, which does what it says."""
        if not self._jobs:
            self._began = time.monotonic()
            self._image, self._jobs, self._done = "booting", 1, 0
            self._start_thread()
        self._running = {text: (0, 0, "")}

    def _start_thread(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._draw_until_stopped, name="progress", daemon=True)
            self._thread.start()

    def _draw_until_stopped(self) -> None:
        while not self._stop.wait(TICK_SECONDS):
            with self._lock:
                if self._jobs and time.monotonic() - self._began > BAR_AFTER_SECONDS:
                    self._draw()

    def _draw(self) -> None:
        if self._bar is None:
            from tqdm import tqdm  # noqa: PLC0415 (87 ms, for a build that takes longer than a second)

            tqdm.monitor_interval = 0
            form = "{desc} {n_fmt}/{total_fmt} |{bar}| {elapsed}{postfix}"
            self._bar = tqdm(total=self._jobs, desc=self._image, leave=False, bar_format=form)
            self._bar.start_t = self._began + time.time() - time.monotonic()
        self._bar.total, self._bar.n = self._jobs, self._done
        self._bar.set_postfix_str(self._postfix(), refresh=False)
        self._bar.refresh()

    def _postfix(self) -> str:
        shown = [_describe(job, *progress) for job, progress in self._running.items()]
        return ", ".join(shown[:2]) + (", …" if len(shown) > 2 else "")

    def _write(self, text: str) -> None:
        if self._bar is not None:
            self._bar.clear()
        write_line(text)
        if self._bar is not None:
            self._bar.refresh()

    def _remove(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _describe(job: str, done: int, total: int, unit: str) -> str:
    if not unit:
        return job
    from cfsbuild.cli.render import human_size  # noqa: PLC0415 (only where progress is drawn)

    amount = human_size(done) if unit == "bytes" else str(done)
    if not total:
        return f"{job} {amount} {unit}"
    whole = human_size(total) if unit == "bytes" else str(total)
    return f"{job} {amount}/{whole} {unit} ({100 * done // total} %)"
