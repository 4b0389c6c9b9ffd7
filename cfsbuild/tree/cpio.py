"""A tree as a cpio archive in the `newc` form, the one that Linux unpacks into its first root file system.

Source: `Documentation/driver-api/early-userspace/buffer-format.rst` and `init/initramfs.c` of Linux, cpio(5).
Several archives may follow each other, compressed or not, each beginning at a multiple of 4 bytes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from cfsbuild.errors import BuildError
from cfsbuild.tree import paths
from cfsbuild.tree.inode import Inode
from cfsbuild.tree.layer import Tree

Read = Callable[[bytes], bytes]
"""Return the content of the object with a raw digest."""

_MAGIC = b"070701"
_TRAILER = b"TRAILER!!!"
_BLOCK = 512
_FIELD_LIMIT = 1 << 32
_DIRECTORY_LINKS = 2


def write_cpio(tree: Tree, read: Read, *, epoch: int) -> Iterator[bytes]:
    """Yield the bytes of the archive of `tree`, names relative to the root, which itself is `.`.

    Every time is `epoch` (seconds); inode numbers count from 1; a file with several names has its content
    at the last one, as GNU cpio wants it. Extended attributes are left out: the form has none. Raises
    `BuildError` for what the form cannot say, and what `read` raises.
    """
    names = _names(tree)
    if not 0 <= epoch < _FIELD_LIMIT:
        raise BuildError(f"a cpio archive cannot tell the time {epoch}", reason="cpio-limit")
    numbers: dict[bytes, int] = {}
    written = 0
    for path, (real, count, last) in names.items():
        inode = tree.entries[real]
        number = numbers.setdefault(real, len(numbers) + 1)
        _check(path, inode)
        body = _content(inode, read) if path == last else b""
        links = _DIRECTORY_LINKS if inode.is_directory else count
        device = (os.major(inode.rdev), os.minor(inode.rdev)) if inode.is_device else (0, 0)
        head = _record(
            b"." if path == paths.ROOT else path[1:],
            [number, inode.mode, inode.uid, inode.gid, links, epoch, len(body), 0, 0, *device],
        )
        yield head
        yield body
        padding = bytes(-len(body) % 4)
        yield padding
        written += len(head) + len(body) + len(padding)
    end = _record(_TRAILER, [0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0])
    yield end
    yield bytes(-(written + len(end)) % _BLOCK)


def _names(tree: Tree) -> dict[bytes, tuple[bytes, int, bytes]]:
    """Map each path, in depth-first order, to the first and the number and the last of its inode's names."""
    groups: dict[bytes, list[bytes]] = {}
    for link, real in tree.links.items():
        groups.setdefault(real, [real]).append(link)
    for group in groups.values():
        group.sort(key=paths.depth_first)
    result = {path: (path, 1, path) for path in tree.entries}
    for real, group in groups.items():
        result.update(dict.fromkeys(group, (real, len(group), group[-1])))
    return {path: result[path] for path in sorted(result, key=paths.depth_first)}


def _content(inode: Inode, read: Read) -> bytes:
    if inode.is_symlink:
        return inode.target
    if inode.is_regular and inode.digest:
        return read(inode.digest)
    return inode.content


def _check(path: bytes, inode: Inode) -> None:
    """Raise `BuildError` for what an archive cannot say of an entry."""
    if path[1:] == _TRAILER:
        raise BuildError(
            f"{paths.show(path)} cannot be in a cpio archive",
            details="an entry of that name ends the archive",
            resolution="leave it out with a remove node",
            reason="cpio-name",
        )
    if max(inode.size, inode.uid, inode.gid) >= _FIELD_LIMIT:
        raise BuildError(
            f"{paths.show(path)} cannot be in a cpio archive",
            details="sizes and owners are numbers of 32 bits",
            reason="cpio-limit",
        )


def _record(name: bytes, fields: list[int]) -> bytes:
    """Return a header with its name, padded to a multiple of 4 bytes; the last field (a sum) is 0."""
    numbers = b"".join(b"%08x" % field for field in (*fields, len(name) + 1, 0))
    head = _MAGIC + numbers + name + b"\0"
    return head + bytes(-len(head) % 4)
