"""Work that goes on in another thread, for when this one has something to do meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class Begun(Generic[T]):
    """A call that was begun. The process does not wait for it when it ends."""

    def __init__(self, work: Callable[[], T], /, *, name: str) -> None:
        self._work = work
        self._value: list[T] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=f"cfsbuild-{name}", daemon=True)
        self._thread.start()

    def result(self) -> T:
        """Wait; return what the call returned, or raise what it raised."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._value[0]

    def settle(self) -> None:
        """Wait, whatever became of it."""
        self._thread.join()

    def _run(self) -> None:
        try:
            self._value.append(self._work())
        except BaseException as error:  # noqa: BLE001 (raised by `result`, on another thread)
            self._error = error


def at_once(calls: Sequence[Callable[[], T]], *, name: str) -> list[T]:
    """Make all `calls`, the last on this thread; return what they returned when all have ended.

    Raises what one of them raised.
    """
    begun = [Begun(call, name=name) for call in calls[:-1]]
    try:
        last = [call() for call in calls[-1:]]
    finally:
        for other in begun:
            other.settle()
    return [other.result() for other in begun] + last
