"""What fsck reports: one finding for each thing that is not as it should be."""

from __future__ import annotations

from collections.abc import Callable

import msgspec


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong.

    `kind` is a stable word, `where` a path relative to the store, `details` for people. `damage` tells what
    needs mending from what only takes up space or makes a build slower. `object` is the digest, in hex, of
    the object that is damaged or missing. `repaired` says what `--repair` did; empty when nothing.
    """

    kind: str
    where: str
    details: str = ""
    damage: bool = True
    object: str = ""
    repaired: str = ""


class FsckReport(msgspec.Struct, frozen=True, kw_only=True):
    """What fsck checked and found, in the order of the paths of each kind of thing."""

    version: int = 1
    objects: int
    bytes: int
    images: int
    references: int
    documents: int
    findings: tuple[Finding, ...]

    @property
    def damage(self) -> int:
        """Return how many findings need mending and were not mended."""
        return sum(finding.damage and not finding.repaired for finding in self.findings)


Report = Callable[[Finding], None]
"""Takes findings as they are made."""
