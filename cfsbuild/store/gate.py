"""Many may add, one may commit: what keeps half-written files out of a commit."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterator

from cfsbuild.errors import StoreError


class Gate:
    """A lock between the threads of one transaction.

    `adding` may be nested; `committing` may not be in it. Who is inside is known by thread: a signal that
    comes while the main thread leaves may keep it from saying so, and it is that thread which then closes.
    """

    def __init__(self) -> None:
        # Entered as it is: a signal may interrupt the condition's own Python code when that has the lock.
        self._lock = threading.RLock()
        self._condition = threading.Condition(self._lock)
        self._adding: Counter[int] = Counter()
        self._committing: int | None = None
        self._closed = False

    @contextlib.contextmanager
    def adding(self) -> Iterator[None]:
        """Use the staging directory in this block: no commit runs meanwhile, and it is not taken away.

        Raises `StoreError` when the transaction is over.
        """
        thread = threading.get_ident()
        with self._lock:
            while self._committing is not None and not self._closed:
                self._condition.wait()
            self._check_open()
            self._adding[thread] += 1
        try:
            yield
        finally:
            with self._lock:
                self._adding[thread] -= 1
                if not self._adding[thread]:
                    del self._adding[thread]
                self._condition.notify_all()

    @contextlib.contextmanager
    def committing(self) -> Iterator[None]:
        """Commit in this block: nothing else uses the staging directory meanwhile.

        Raises as `adding` does.
        """
        with self._lock:
            while (self._adding or self._committing is not None) and not self._closed:
                self._condition.wait()
            self._check_open()
            self._committing = threading.get_ident()
        try:
            yield
        finally:
            with self._lock:
                self._committing = None
                self._condition.notify_all()

    def close(self, *, patience: float) -> bool:
        """Let nobody in any more; say whether all others are out, after at most `patience` seconds."""
        deadline = time.monotonic() + patience
        with self._lock:
            self._closed = True
            self._condition.notify_all()
            while self.others():
                if not self._condition.wait(deadline - time.monotonic()):
                    return False
            return True

    def others(self) -> bool:
        """Say whether another thread is inside."""
        me = threading.get_ident()
        return any(thread != me for thread in (*self._adding, self._committing) if thread is not None)

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError("the transaction is over", reason="closed")
