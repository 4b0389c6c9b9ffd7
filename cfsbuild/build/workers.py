"""The threads on which jobs run."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any

import msgspec


class Completion(msgspec.Struct, frozen=True):
    """What became of one piece of work: its value, or what it raised."""

    token: str
    value: Any = None
    error: BaseException | None = None


class Workers:
    """At most `jobs` daemon threads, started as work arrives.

    `concurrent.futures` is not used: its threads are joined when the interpreter exits, so a long computation
    would hold up an interrupted process (docs/adr/0071-own-thread-pool.md).
    """

    def __init__(self, jobs: int) -> None:
        self._jobs = max(1, jobs)
        self._work: SimpleQueue[tuple[str, Callable[[], Any]] | None] = SimpleQueue()
        self._done: SimpleQueue[Completion] = SimpleQueue()
        self._open = 0
        self._asked = 0
        # Who asks for a thread may be interrupted and never learn whether there is one: each counts itself.
        self._serving = 0
        self._changed = threading.Condition()

    def submit(self, token: str, work: Callable[[], Any], /) -> None:
        """Queue `work`, with one more thread for it if the limit allows."""
        self._open += 1
        self._work.put((token, work))
        if self._asked < min(self._jobs, self._open):
            self._start_thread()

    def next(self) -> Completion:
        """Wait for any piece of work to end; interruptible by signals."""
        completion = self._done.get()
        self._open -= 1
        return completion

    def close(self, *, patience: float) -> bool:
        """Drop queued work; wait for what runs, at most `patience` seconds. Return whether all has ended."""
        with contextlib.suppress(Empty):
            while True:
                self._work.get_nowait()
        for _ in range(self._asked):
            self._work.put(None)
        with self._changed:
            return self._changed.wait_for(lambda: not self._serving, patience)

    def _start_thread(self) -> None:
        """Start one more thread; where none can be had fewer will do, and without any this one works."""
        self._asked += 1
        try:
            threading.Thread(target=self._serve, name=f"cfsbuild-{self._asked}", daemon=True).start()
        except RuntimeError:
            self._asked -= 1
            if not self._asked:
                self._work_once()

    def _serve(self) -> None:
        self._count(1)
        try:
            while self._work_once():
                pass
        finally:
            self._count(-1)

    def _work_once(self) -> bool:
        """Wait for one piece of work and do it; return False if the threads are to end instead."""
        item = self._work.get()
        if item is None:
            return False
        token, work = item
        try:
            completion = Completion(token, work())
        except BaseException as error:  # noqa: BLE001 (handed to the thread that waits, which raises it)
            completion = Completion(token, error=error)
        self._done.put(completion)
        return True

    def _count(self, change: int) -> None:
        with self._changed:
            self._serving += change
            self._changed.notify_all()
