"""Signals that end the program: each unwinds it once, so that everything half-done is cleaned up."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType

PATIENCE = 2.0
"""Seconds that cleaning up may take before a further signal is heeded."""

STATUSES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
"""Exit status for each signal, as a shell reports it of a program that the signal killed."""

_DEFAULTS = (signal.SIG_DFL, signal.default_int_handler)


class Terminated(BaseException):
    """SIGTERM or SIGHUP arrived: unwind as for Ctrl-C.

    Like KeyboardInterrupt it is no error, and not caught as one. `status` is the exit status.
    """

    def __init__(self, status: int = STATUSES[signal.SIGTERM]) -> None:
        super().__init__(status)
        self.status = status


class Signals:
    """Raises KeyboardInterrupt or `Terminated` in the main thread while it is installed.

    Who is impatient presses Ctrl-C again: that must not stop the cleaning up, unless it takes too long. What
    the caller's caller chose to ignore (nohup) stays ignored.
    """

    def __init__(self) -> None:
        self._since = 0.0
        self._previous: dict[int, object] = {}

    def install(self) -> None:
        """Take over; does nothing outside of the main thread."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in STATUSES:
            previous = signal.getsignal(number)
            if previous in _DEFAULTS:
                self._previous[number] = previous
                signal.signal(number, self._handle)

    def restore(self) -> None:
        """Put back what was there before."""
        while self._previous:
            number, handler = self._previous.popitem()
            signal.signal(number, handler)  # type: ignore[arg-type]

    def die(self) -> None:
        """Let further signals end the process at once: nothing is left to clean up."""
        while self._previous:
            signal.signal(self._previous.popitem()[0], signal.SIG_DFL)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        now = time.monotonic()
        if self._since and now - self._since < PATIENCE:
            return
        self._since = now
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise Terminated(STATUSES[signal.Signals(number)])
