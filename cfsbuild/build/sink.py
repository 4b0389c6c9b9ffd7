"""A transaction that can be closed to jobs: so a build that is over ends within moments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cfsbuild.errors import BuildError

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
