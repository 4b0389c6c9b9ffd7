"""When the shards of `objects/` last changed: what was there then need not be looked for again.

A directory gets a new ctime whenever a name in it is added or removed. So the objects that were seen in a
shard are still there while its ctime is the same, if it was at least two seconds old when they were seen
(a younger directory could have changed again within one tick of the clock).
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection

import msgspec

from cfsbuild.limits import RACY_NS


class Shards(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The shards at one time. `ctimes_ns` and `taken_ns` count ns since the epoch."""

    taken_ns: int = 0
    ctimes_ns: dict[int, int] = {}

    def without(self, shards: Collection[int]) -> Shards:
        """Return this time's shards but `shards`: nothing is known of those."""
        kept = {shard: ctime for shard, ctime in self.ctimes_ns.items() if shard not in shards}
        return Shards(self.taken_ns, kept)

    def settled(self, now: Shards) -> frozenset[int]:
        """Return the shards (first bytes of digests) that hold `now` what they held at this time."""
        newest = self.taken_ns - RACY_NS
        return frozenset(
            shard
            for shard, ctime in self.ctimes_ns.items()
            if ctime <= newest and now.ctimes_ns.get(shard) == ctime
        )


def look(objects_fd: int) -> Shards:
    """Return the shards below the directory `objects_fd` as they are; what cannot be told is left out."""
    if objects_fd < 0:
        return Shards()
    taken_ns = time.time_ns()
    ctimes: dict[int, int] = {}
    for shard in range(256):
        try:
            ctimes[shard] = os.stat(f"{shard:02x}", dir_fd=objects_fd, follow_symlinks=False).st_ctime_ns
        except OSError:
            # Absent, or not ours to see: its objects are looked for one by one.
            continue
    return Shards(taken_ns, ctimes)
