"""What ends jobs when the build is over, within moments: their sink and their listener turn against them."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from cfsbuild.errors import BuildError
from cfsbuild.events import Event, Listener

if TYPE_CHECKING:
    from cfsbuild.store.transaction import Transaction


class Cancelled(BuildError):  # noqa: N818 (no failure: the build was over before the job was)
    """The build ended while a job was still working."""


class CancellableSink:
    """A transaction's methods, until `cancel` is called; from then on all raise `Cancelled`."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._cancelled = False

    def cancel(self) -> None:
        """Refuse everything from now on."""
        self._cancelled = True

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 (whatever the transaction has)
        """Return the transaction's attribute `name`."""
        if self._cancelled:
            raise Cancelled("the build is over", reason="cancelled")
        return getattr(self._transaction, name)


class CancellableListener:
    """A listener that hands events on from one thread at a time.

    Once closed it tells every thread but the one that made it that the build is over, by raising `Cancelled`:
    so even a long native loop ends, at its next report of progress.
    """

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._lock = threading.Lock()
        self._owner = threading.get_ident()
        self._closed = False

    def close(self) -> None:
        """Stop listening to jobs."""
        self._closed = True

    def __call__(self, event: Event, /) -> None:
        """Hand `event` on when it is its turn."""
        if self._closed and threading.get_ident() != self._owner:
            raise Cancelled("the build is over", reason="cancelled")
        with self._lock:
            self._listener(event)
