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
        self._done = False

    def begin(self) -> None:
        """Begin, unless that was done before; without it all is done in `wait`."""
        if self._thread is None and not self._done:
            self._thread = threading.Thread(target=self._run, name="cfsbuild-commit", daemon=True)
            self._thread.start()

    def wait(self) -> None:
        """Return when everything is in the store; raises what `Transaction.commit` does, once."""
        if self._thread is not None:
            self._thread.join()
        elif not self._done:
            self._run()
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _run(self) -> None:
        try:
            self._transaction.commit()
        except BaseException as error:  # noqa: BLE001 (raised by `wait`, perhaps on another thread)
            self._error = error
        finally:
            self._done = True
