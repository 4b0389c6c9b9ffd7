"""Many may add, one may commit: what keeps half-written files out of a commit."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

from cfsbuild.errors import StoreError


class Gate:
    """A lock between the threads of one transaction.

    `adding` may be nested; `committing` may not be in it.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._adding = 0
        self._committing = False
        self._closed = False

    @contextlib.contextmanager
    def adding(self) -> Iterator[None]:
        """Use the staging directory in this block: no commit runs meanwhile, and it is not taken away.

        Raises `StoreError` when the transaction is over.
        """
        with self._condition:
            while self._committing:
                self._condition.wait()
            self._check_open()
            self._adding += 1
        try:
            yield
        finally:
            with self._condition:
                self._adding -= 1
                self._condition.notify_all()

    @contextlib.contextmanager
    def committing(self) -> Iterator[None]:
        """Commit in this block: nothing else uses the staging directory meanwhile.

        Raises as `adding` does.
        """
        with self._condition:
            while self._adding or self._committing:
                self._condition.wait()
            self._check_open()
            self._committing = True
        try:
            yield
        finally:
            with self._condition:
                self._committing = False
                self._condition.notify_all()

    def close(self, *, patience: float) -> bool:
        """Let nobody in any more; say whether all are out, after at most `patience` seconds."""
        deadline = time.monotonic() + patience
        with self._condition:
            self._closed = True
            while self._adding or self._committing:
                if not self._condition.wait(deadline - time.monotonic()):
                    return False
            return True

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError("the transaction is over", reason="closed")
