"""Giving files of an image other contents in place, where nothing else in the image moves.

An inode stands where what precedes it ends, and attributes that several inodes have stand elsewhere. So an
image in which some files have another object differs in the bytes of these inodes only, as long as they keep
their form and size and no other file had the old object or has the new one. The old bytes, as the writer
makes them, are looked for: what is not found is not replaced.
"""

from __future__ import annotations

from collections.abc import Sequence

from cfsbuild.erofs import format as fmt
from cfsbuild.erofs.image import inode_bytes
from cfsbuild.erofs.inodes import node_of
from cfsbuild.erofs.layout import is_compact, measure
from cfsbuild.erofs.superblock import parse_superblock
from cfsbuild.erofs.xattrs import XattrTable
from cfsbuild.fsverity.algorithm import Algorithm
from cfsbuild.tree.dump import DumpEntry
from cfsbuild.tree.flavour import payload_of
from cfsbuild.tree.patching import splice

Time = tuple[int, int]
"""Seconds and nanoseconds."""

_FORM = 4
"""What an inode begins with: its form and the size of its attributes. All that follows moves with them."""
_INO = slice(20, 24)
"""Where an inode of either form has its number."""


def patch_image(
    image: bytearray, changes: Sequence[tuple[DumpEntry, DumpEntry]], *, algorithm: Algorithm
) -> bool:
    """Turn `image` into what `write_image` makes of each second entry of `changes` instead of the first.

    `image` is what it wrote; the entries are of regular files with one name. False, and nothing is changed,
    when more than their inodes would differ. Raises `InputError` for what is no image.
    """
    superblock = parse_superblock(image)
    oldest = superblock.build_sec, superblock.build_nsec
    if len({new.digest for _, new in changes}) != len(changes):
        return False
    inodes: list[tuple[int, int, bytes]] = []
    for old, new in changes:
        found = _inode(image, oldest, old, new, algorithm)
        if found is None:
            return False
        inodes.append(found)
    return splice(image, inodes)


def _inode(
    image: bytearray, oldest: Time, old: DumpEntry, new: DumpEntry, algorithm: Algorithm
) -> tuple[int, int, bytes] | None:
    """Return begin and end of a file's inode and what it is to be; None if that is not all that changes."""
    before, after = _encode(old, oldest, algorithm), _encode(new, oldest, algorithm)
    if before is None or after is None or old.xattrs != new.xattrs:
        return None
    if len(before) != len(after) or before[:_FORM] != after[:_FORM]:
        return None
    times = (old.mtime_sec, old.mtime_nsec), (new.mtime_sec, new.mtime_nsec)
    if times[0] != times[1] and min(times) <= oldest:
        return None
    was, now = old.digest or b"", new.digest or b""
    if image.count(was) != 1 or (now != was and now in image):
        return None
    start = image.find(was) - before.find(was)
    end = start + len(before)
    before[_INO] = after[_INO] = image[start:end][_INO]
    return (start, end, bytes(after)) if image[start:end] == before else None


def _encode(entry: DumpEntry, oldest: Time, algorithm: Algorithm) -> bytearray | None:
    """Return a file's inode, its attributes, and the table of its chunks; its number is 0.

    None unless its digest alone tells where its content is: then both are in no other inode, or neither is.
    """
    if entry.digest is None or entry.payload != payload_of(entry.digest):
        return None
    node = node_of(entry, algorithm)
    table = XattrTable([node])
    node.xattr_size = table.area_size(node)
    node.compact = is_compact(node, oldest)
    measure(node, {})
    chunks = fmt.NULL_CHUNK * (node.tail // 4)
    return bytearray(inode_bytes(node, 0) + table.area(node, 0) + chunks)
