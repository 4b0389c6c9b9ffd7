"""Committing on a thread of its own: the disk is waited for while other work goes on."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cfsbuild.store.transaction import Transaction


class Commit:
    """The one commit of a transaction."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Begin, unless that was done before."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="cfsbuild-commit", daemon=True)
            self._thread.start()

    def wait(self) -> None:
        """Return when everything is in the store; raises what `Transaction.commit` does, once."""
        self.begin()
        if self._thread is not None:
            self._thread.join()
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _run(self) -> None:
        try:
            self._transaction.commit()
        except BaseException as error:  # noqa: BLE001 (handed to the thread that waits, which raises it)
            self._error = error
