"""Signals that end the program: each unwinds it once, so that everything half-done is cleaned up."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import weakref
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

PATIENCE = 2.0
"""Seconds that cleaning up may take before a further signal is heeded."""

STATUSES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
"""Exit status for each signal, as a shell reports it of a program that the signal killed."""

_SOON = 0.002
"""Seconds."""

_DEFAULTS = (signal.SIG_DFL, signal.default_int_handler)


class Interrupted(KeyboardInterrupt):
    """SIGINT arrived."""

    status = STATUSES[signal.SIGINT]


class Terminated(BaseException):
    """SIGTERM or SIGHUP arrived: unwind as for Ctrl-C.

    Like KeyboardInterrupt it is no error, and not caught as one. `status` is the exit status.
    """

    def __init__(self, status: int = STATUSES[signal.SIGTERM]) -> None:
        super().__init__(status)
        self.status = status


def interruption_behind(error: BaseException) -> Interrupted | Terminated | None:
    """Return the interruption that `error` was made of: classes make errors of what stops their creation."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, Interrupted | Terminated):
        cause = cause.__cause__
    return cause


class Signals:
    """Raises `Interrupted` or `Terminated` in the main thread while it is installed.

    Who is impatient presses Ctrl-C again: that must not stop the cleaning up, unless it takes too long. What
    the caller's caller chose to ignore (nohup) stays ignored. Code written in C, and the interpreter when it
    calls back, may clear any exception that Python code which they call raises; one that vanishes before
    `settle` is called is raised again, and nothing is said of it.
    """

    def __init__(self) -> None:
        self.at_end = False
        """Set it, and call nothing, when nothing is left to clean up: then a signal ends the process."""
        self._since = 0.0
        self._again = 0
        self._raised: weakref.ref[BaseException] | None = None
        self._previous: dict[int, object] = {}
        self._tell = sys.unraisablehook

    def install(self) -> None:
        """Take over; does nothing outside of the main thread."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in STATUSES:
            previous = signal.getsignal(number)
            if previous in _DEFAULTS:
                self._previous[number] = previous
                signal.signal(number, self._handle)
        if self._previous:
            self._previous[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._handle_again)
            self._tell, sys.unraisablehook = sys.unraisablehook, self._tell_of_others

    def settle(self) -> None:
        """Take note that the exception has arrived where it ends."""
        self._raised = None
        if self._again:
            self._again = 0
            signal.setitimer(signal.ITIMER_REAL, 0)

    def restore(self) -> None:
        """Put back what was there before."""
        self.settle()
        while self._previous:
            number, handler = self._previous.popitem()
            signal.signal(number, handler)  # type: ignore[arg-type]
        sys.unraisablehook = self._tell

    def die(self) -> None:
        """Let further signals end the process at once: nothing is left to clean up."""
        self.settle()
        while self._previous:
            signal.signal(self._previous.popitem()[0], signal.SIG_DFL)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.at_end:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        now = time.monotonic()
        if self._since and now - self._since < PATIENCE:
            return
        self._since = now
        # No variable may hold the exception: its traceback holds this frame, so it would never vanish.
        raise self._new(number)

    def _new(self, number: int) -> BaseException:
        interrupt = number == signal.SIGINT
        error = Interrupted() if interrupt else Terminated(STATUSES[signal.Signals(number)])

        def lost(_: weakref.ref[BaseException]) -> None:
            # Nothing can be raised here; the timer interrupts whatever runs next.
            self._since = 0.0
            self._again = number
            signal.setitimer(signal.ITIMER_REAL, _SOON)

        self._raised = weakref.ref(error, lost)
        return error

    def _tell_of_others(self, cleared: UnraisableHookArgs, /) -> None:
        """Tell of an exception that the interpreter cleared, unless it is raised again."""
        if not issubclass(cleared.exc_type, Interrupted | Terminated):
            self._tell(cleared)

    def _handle_again(self, number: int, frame: FrameType | None) -> None:
        del number
        if self._again:
            self._handle(self._again, frame)
