"""Digests of local files that have not changed since they were read, so that they need not be read again.

For each source directory and digest algorithm: the scan as it was, and what was found out. Nothing here is
ever trusted beyond saving a read. An entry is used only when its whole status is the same, and its ctime lies
at least two seconds before the scan that recorded it (younger ones could have changed again within one tick
of the clock). How it is kept: `statfile`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection
from pathlib import Path

from blake3 import blake3

from cfsbuild.fsverity.algorithm import Algorithm
from cfsbuild.limits import RACY_NS
from cfsbuild.store.statfile import Remembered, Values, read_scan, write_changes, write_scan
from cfsbuild.tree.scan import Scan, match

_MOST_CHANGED = 1024
"""With more changed entries than this the whole is written again."""


class StatCache:
    """The stat cache of one user, below the directory `state`."""

    def __init__(self, state: Path) -> None:
        self._state = state

    def recall(self, scan: Scan, algorithm: Algorithm) -> Remembered | None:
        """Return the last scan of the same directory and what was found out; None when there is none."""
        return read_scan(*self._files(scan.root, algorithm))

    def load(self, scan: Scan, algorithm: Algorithm) -> Values:
        """Return for each entry of `scan` what is known about it, or None."""
        old = self.recall(scan, algorithm)
        if old is None:
            return [None] * len(scan)
        newest = old.taken_ns - RACY_NS
        # Views are compared number by number.
        same = bytes(old.records) == scan.records and bytes(old.names) == scan.name_bytes
        if same and scan.newest_ns <= newest:
            return old.values
        values = old.values
        return [
            values[number] if number >= 0 and ctime <= newest else None
            for number, ctime in zip(match((old.records, old.names), scan), scan.ctime_ns, strict=True)
        ]

    def save(self, scan: Scan, algorithm: Algorithm, values: Values) -> None:
        """Remember `values` for `scan`, in the place of what was known. It is no error if that fails."""
        path, changes = self._files(scan.root, algorithm)
        # A cache that cannot be written costs time later, and nothing else.
        with contextlib.suppress(OSError):
            write_scan(path, scan, values)
            changes.unlink(missing_ok=True)

    def save_changed(
        self, old: Remembered, scan: Scan, algorithm: Algorithm, values: Values, numbers: Collection[int]
    ) -> bytes:
        """Do what `save` does, where all entries but `numbers` are what they are in `old`, the last recalled.

        Returns the digest that what is recalled next will have.
        """
        changed = old.changed.union(numbers)
        if len(changed) <= _MOST_CHANGED:
            with contextlib.suppress(OSError):
                return write_changes(self._files(scan.root, algorithm)[1], old.base, scan, values, changed)
        self.save(scan, algorithm, values)
        return scan.digest

    def _files(self, root: Path, algorithm: Algorithm) -> tuple[Path, Path]:
        """Return where the scan is and where its changes are."""
        key = blake3(os.fsencode(os.path.realpath(root))).hexdigest(length=16)
        name = f"stat-{algorithm.value}-{key}"
        return self._state / name, self._state / f"{name}.changes"
