"""Xattrs of an image: which are shared between inodes, where they stand, and the area behind each inode.

Composefs format, "Xattrs": a (name, value) pair that occurs twice or more is stored once and referred to.
"""

from __future__ import annotations

import struct

from cfsbuild.erofs import format as fmt
from cfsbuild.erofs.inodes import Node
from cfsbuild.errors import InputError

Pair = tuple[bytes, bytes]

_PADDING = (b"", b"\0\0\0", b"\0\0", b"\0")
"""After a length modulo 4, the entry's header being of 4 bytes."""


class XattrTable:
    """The xattrs of all inodes. `offsets` are the places of the shared pairs in the shared area.

    Making it puts the xattrs of every node into order.
    """

    def __init__(self, nodes: list[Node]) -> None:
        counts: dict[Pair, int] = {}
        for node in nodes:
            names = list(node.xattrs)
            if len(names) > 1 and names != sorted(names):
                node.xattrs = dict(sorted(node.xattrs.items()))
            for pair in node.xattrs.items():
                counts[pair] = counts.get(pair, 0) + 1
        self.bits: dict[bytes, int] = {}
        self.names: dict[bytes, tuple[int, bytes]] = {}
        for name in {name for name, _ in counts}:
            self.bits[name] = ~(1 << fmt.filter_bit(name))
            self.names[name] = fmt.xattr_index(name)
        self._heads: dict[tuple[bytes, int], tuple[bytes, bytes]] = {}
        """What stands before and behind the value in an entry, by the name and the value's length."""
        self.shared = b""
        self.offsets: dict[Pair, int] = {}
        shared = sorted(
            (pair for pair, count in counts.items() if count > 1), key=_shared_order, reverse=True
        )
        self._place(shared)

    def _place(self, pairs: list[Pair]) -> None:
        area = bytearray()
        for pair in pairs:
            self.offsets[pair] = len(area)
            area += self.encode(pair)
        self.shared = bytes(area)

    def encode(self, pair: Pair) -> bytes:
        """Return the entry of a pair, padded to four bytes."""
        name, value = pair
        key = (name, len(value))
        head, padding = self._heads.get(key) or self._head(key)
        return head + value + padding

    def _head(self, key: tuple[bytes, int]) -> tuple[bytes, bytes]:
        name, length = key
        index, suffix = self.names[name]
        head = fmt.XATTR_ENTRY.pack(len(suffix), index, length) + suffix
        self._heads[key] = found = head, _PADDING[len(suffix) + length & 3]
        return found

    def area_size(self, node: Node) -> int:
        """Return how many bytes the xattrs of `node` take behind its inode."""
        if not node.xattrs:
            return 0
        names, offsets = self.names, self.offsets
        size = 12
        shared = 0
        for pair in node.xattrs.items():
            if pair in offsets and shared < fmt.SHARED_MAX:
                shared += 1
                size += 4
            else:
                size += (4 + len(names[pair[0]][1]) + len(pair[1]) + 3) & ~3
        if (size - 12) // 4 + 1 > 0xFFFF:
            raise InputError(f"an inode has {size} bytes of xattrs, which is more than an image can hold")
        return size

    def area(self, node: Node, base: int) -> bytes:
        """Return the xattr area of `node`; `base` is the offset of the shared area in its first block."""
        if not node.xattrs:
            return b""
        names = 0xFFFFFFFF
        ids: list[int] = []
        inline: list[bytes] = []
        bits, offsets = self.bits, self.offsets
        for pair in node.xattrs.items():
            names &= bits[pair[0]]
            offset = offsets.get(pair)
            if offset is not None and len(ids) < fmt.SHARED_MAX:
                ids.append((base + offset) // 4)
            else:
                inline.append(self.encode(pair))
        header = fmt.XATTR_HEADER.pack(names, len(ids))
        if not ids:
            return header + b"".join(inline)
        return header + struct.pack(f"<{len(ids)}I", *ids) + b"".join(inline)


def _shared_order(pair: Pair) -> tuple[bytes, int, bytes]:
    """Return the sort key of the shared area, which is in descending order but puts longer values first."""
    return pair[0], len(pair[1]), pair[1]
