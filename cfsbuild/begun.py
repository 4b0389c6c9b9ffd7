"""Work that goes on in another thread, for when this one has something to do meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")

PATIENCE = 1.0
"""Seconds that what goes on in other threads is given to end, once this one is interrupted."""


_MOMENT = 0.05
"""Seconds in which a thread that there is begins to run."""


class Begun(Generic[T]):
    """A call that was begun; made at once where no thread can be had. The process ends without it."""

    def __init__(self, work: Callable[[], T], /, *, name: str) -> None:
        self._value: list[T] = []
        self._error: BaseException | None = None
        # Python 3.11 takes a thread for ended whose `join` was interrupted.
        self._ended = threading.Event()
        self._runs = threading.Event()
        # The thread alone keeps what the work needs, for as long as it runs.
        thread = threading.Thread(target=self._run, args=(work,), name=f"cfsbuild-{name}", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            self._run(work)
        except BaseException:
            # An interruption: the thread may be there, and nobody else will know of it.
            if self._runs.wait(_MOMENT):
                self.settle(patience=PATIENCE)
            raise

    def result(self) -> T:
        """Wait; return what the call returned, or raise what it raised."""
        self.settle()
        if self._error is not None:
            raise self._error
        return self._value[0]

    def settle(self, *, patience: float | None = None) -> None:
        """Wait, at most `patience` seconds, whatever becomes of it."""
        self._ended.wait(patience)

    def _run(self, work: Callable[[], T]) -> None:
        self._runs.set()
        try:
            self._value.append(work())
        except BaseException as error:  # noqa: BLE001 (raised by `result`, on another thread)
            self._error = error
        finally:
            self._ended.set()


def _settle_all(begun: Sequence[Begun[T]], *, patience: float | None = None) -> None:
    """Wait for all of them, at most `patience` seconds together."""
    deadline = None if patience is None else time.monotonic() + patience
    for one in begun:
        one.settle(patience=None if deadline is None else max(0.0, deadline - time.monotonic()))


def at_once(calls: Sequence[Callable[[], T]], *, name: str) -> list[T]:
    """Make all `calls`, the last on this thread; return what they returned when all have ended.

    Raises what one of them raised. When this thread is interrupted the others get `PATIENCE` to end.
    """
    begun: list[Begun[T]] = []
    try:
        for call in calls[:-1]:
            begun.append(Begun(call, name=name))  # noqa: PERF401 (what was begun is waited for)
        last = [call() for call in calls[-1:]]
        _settle_all(begun)
    except Exception:
        _settle_all(begun)
        raise
    except BaseException:
        _settle_all(begun, patience=PATIENCE)
        raise
    return [other.result() for other in begun] + last
