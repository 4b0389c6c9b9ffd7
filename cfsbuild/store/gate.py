"""Many may add, one may commit: what keeps half-written files out of a commit."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator


class Gate:
    """A lock between the threads of one transaction. `adding` may be nested; `committing` may not be in it."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._adding = 0
        self._committing = False

    @contextlib.contextmanager
    def adding(self) -> Iterator[None]:
        """Write to the staging directory in this block: no commit runs meanwhile."""
        with self._condition:
            while self._committing:
                self._condition.wait()
            self._adding += 1
        try:
            yield
        finally:
            with self._condition:
                self._adding -= 1
                self._condition.notify_all()

    @contextlib.contextmanager
    def committing(self) -> Iterator[None]:
        """Commit in this block: nothing writes to the staging directory meanwhile."""
        with self._condition:
            while self._adding or self._committing:
                self._condition.wait()
            self._committing = True
        try:
            yield
        finally:
            with self._condition:
                self._committing = False
                self._condition.notify_all()
