"""Reading directories: groups of entries, each a block or the tail of the inode."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, islice, pairwise
from operator import lt

from cfsbuild import limits
from cfsbuild.erofs import damage
from cfsbuild.erofs import format as fmt
from cfsbuild.erofs.reader_inodes import ImageInode

Child = tuple[bytes, int, int]
"""Name, nid and dirent type."""

_DIRECTORY = 2


def read_children(data: bytes, inode: ImageInode, *, nid: int, parent_nid: int) -> list[Child]:
    """Return the children of a directory, ascending by name, without `.` and `..`.

    Raises `InputError` unless names are strictly ascending and valid, `.` is `nid` and `..` is `parent_nid`.
    """
    start, end = inode.blocks
    groups = [_read_group(data, group, min(group + fmt.BLOCK, end)) for group in range(start, end, fmt.BLOCK)]
    if inode.tail[1] > inode.tail[0]:
        groups.append(_read_group(data, *inode.tail))
    names, nids, types = (list(chain.from_iterable(column)) for column in zip(*groups, strict=True))
    if not all(map(lt, names, islice(names, 1, None))):
        raise damage.damaged(damage.ORDER, "names in a directory are not strictly ascending")
    for name, expected in ((b".", nid), (b"..", parent_nid)):
        try:
            index = names.index(name)
        except ValueError:
            raise damage.damaged(damage.LOOP, f"a directory lacks its {name.decode()!r} entry") from None
        if nids[index] != expected or types[index] != _DIRECTORY:
            raise damage.damaged(damage.LOOP, f"a directory's {name.decode()!r} entry leads elsewhere")
        del names[index], nids[index], types[index]
    return list(zip(names, nids, types, strict=True))


def _read_group(data: bytes, start: int, end: int) -> tuple[list[bytes], Sequence[int], Sequence[int]]:
    """Return names, nids and types of one group."""
    if end - start < fmt.DIRENT.size:
        raise damage.damaged(damage.BOUNDS, "a group of directory entries is cut off")
    dirents_size = fmt.DIRENT.unpack_from(data, start)[1]
    if not dirents_size or dirents_size % fmt.DIRENT.size or dirents_size > end - start:
        raise damage.damaged(damage.BOUNDS, "the first name of a directory group lies at a wrong place")
    # The last name ends at the padding of its block; no name contains NUL.
    area = data[start + dirents_size : end].rstrip(b"\0")
    if b"\0" in area or b"/" in area:
        raise damage.damaged(damage.NAME, "a file name contains a slash or NUL")
    names_end = dirents_size + len(area)
    nids, offsets, types = zip(*fmt.DIRENT.iter_unpack(data[start : start + dirents_size]), strict=True)
    names = [data[start + first : start + last] for first, last in pairwise((*offsets, names_end))]
    sizes = set(map(len, names))
    if min(sizes) < 1 or max(sizes) > limits.NAME_BYTES or max(offsets) >= names_end:
        raise damage.damaged(damage.NAME, "a file name is empty, too long or lies outside of its group")
    return names, nids, types
