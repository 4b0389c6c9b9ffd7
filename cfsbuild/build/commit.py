"""Committing on a thread of its own: the disk is waited for while other work goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfsbuild.begun import Begun

if TYPE_CHECKING:
    from cfsbuild.store.transaction import Transaction


class Commit:
    """The one commit of a transaction."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._begun: Begun[None] | None = None
        self._over = False

    def begin(self) -> None:
        """Begin, unless that was done before; without it all is done in `wait`."""
        if self._begun is None and not self._over:
            self._begun = Begun(self._transaction.commit, name="commit")

    def wait(self) -> None:
        """Return when everything is in the store; raises what `Transaction.commit` does, once."""
        if self._over:
            return
        self._over = True
        if self._begun is None:
            self._transaction.commit()
        else:
            self._begun.result()
