"""The threads on which jobs run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
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
        self._threads: list[threading.Thread] = []
        self._open = 0

    def submit(self, token: str, work: Callable[[], Any], /) -> None:
        """Queue `work`, with one more thread for it if the limit allows."""
        self._open += 1
        self._work.put((token, work))
        if len(self._threads) < min(self._jobs, self._open):
            thread = threading.Thread(target=self._serve, name=f"cfsbuild-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def next(self) -> Completion:
        """Wait for any piece of work to end; interruptible by signals."""
        completion = self._done.get()
        self._open -= 1
        return completion

    def close(self, *, patience: float) -> bool:
        """Drop queued work; wait for what runs, at most `patience` seconds."""
        while not self._work.empty():
            self._work.get()
        for _ in self._threads:
            self._work.put(None)
        deadline = time.monotonic() + patience
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _serve(self) -> None:
        while (item := self._work.get()) is not None:
            token, work = item
            try:
                completion = Completion(token, work())
            except BaseException as error:  # noqa: BLE001 (handed to the thread that waits, which raises it)
                completion = Completion(token, error=error)
            self._done.put(completion)
            del completion  # what it holds may be large, and forgotten elsewhere while the next work runs
