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

_WHOLE_FROM = 1024
"""With more changed entries than this the whole is written again."""


class StatCache:
    """The stat cache of one user, below the directory `state`, for one who uses it.

    `digest` is of the file that says what was last loaded or saved here: of that scan and those values, and
    no others. None where there is no such file, or what was loaded is of another scan.
    """

    def __init__(self, state: Path) -> None:
        self._state = state
        self.digest: bytes | None = None

    def recall(self, scan: Scan, algorithm: Algorithm) -> Remembered | None:
        """Return the last scan of the same directory and what was found out; None when there is none."""
        return read_scan(*self._files(scan.root, algorithm))

    def load(self, scan: Scan, algorithm: Algorithm) -> Values:
        """Return for each entry of `scan` what is known about it, or None."""
        self.digest = None
        old = self.recall(scan, algorithm)
        if old is None:
            return [None] * len(scan)
        newest = old.taken_ns - RACY_NS
        # Copied, as views are compared number by number: thirty times slower.
        if bytes(old.records) == scan.records and bytes(old.names) == scan.name_bytes:
            self.digest = old.digest
            if scan.newest_ns <= newest:
                return old.values
        values = old.values
        return [
            values[number] if number >= 0 and ctime <= newest else None
            for number, ctime in zip(match((old.records, old.names), scan), scan.ctime_ns, strict=True)
        ]

    def save(self, scan: Scan, algorithm: Algorithm, values: Values) -> None:
        """Remember `values` for `scan`, in the place of what was known. It is no error if that fails."""
        path, changes = self._files(scan.root, algorithm)
        self.digest = None
        # A cache that cannot be written costs time later, and nothing else.
        with contextlib.suppress(OSError):
            digest = write_scan(path, scan, values)
            changes.unlink(missing_ok=True)
            self.digest = digest

    def save_changed(
        self, old: Remembered, scan: Scan, algorithm: Algorithm, values: Values, numbers: Collection[int]
    ) -> None:
        """Do what `save` does, where all entries but `numbers` are as in `old`, the last recalled."""
        changed = old.changed.union(numbers)
        if len(changed) > _WHOLE_FROM:
            self.save(scan, algorithm, values)
            return
        _, changes = self._files(scan.root, algorithm)
        self.digest = None
        with contextlib.suppress(OSError):
            self.digest = write_changes(changes, old.whole, scan, values, changed)

    def _files(self, root: Path, algorithm: Algorithm) -> tuple[Path, Path]:
        """Return where the scan is and where its changes are."""
        key = blake3(os.fsencode(os.path.realpath(root))).hexdigest(length=16)
        name = f"stat-{algorithm.value}-{key}"
        return self._state / name, self._state / f"{name}.changes"
