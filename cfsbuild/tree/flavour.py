"""The `composefs` flavour: the rules from a tree to a dump and back.

Small files are inline, hard links stay hard links, a backing path is the digest split after two digits, every
xattr is kept. `to_dump` writes what `composefs-info dump` prints of the finished image, save for the order of
xattrs that the image shares between inodes.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterable, Iterator

from cfsbuild import limits
from cfsbuild.errors import InputError
from cfsbuild.tree import paths
from cfsbuild.tree.dump import DumpEntry
from cfsbuild.tree.inode import Inode
from cfsbuild.tree.layer import Tree, canonical_links, in_order

BLOCK = 4096
DIRENT_BYTES = 12
NANOSECONDS = 10**9
ROOT_STUBS = [b"%02x" % number for number in range(256)]
"""Names that every image has in its root as whiteouts, to hide the object directories."""


def payload_of(digest: bytes) -> bytes:
    """Return the backing path of the object named by `digest`: two hex digits, a slash, the rest."""
    text = digest.hex().encode("ascii")
    return text[:2] + b"/" + text[2:]


def directory_size(names: Iterable[bytes]) -> int:
    """Return the size in bytes of a directory with these names ("." and ".." included) in an EROFS image.

    Composefs format, "Data size per type": 12 bytes a name plus the name, no entry crosses a block, a last
    block more than half full counts whole.
    """
    blocks = used = 0
    for name in names:
        cost = DIRENT_BYTES + len(name)
        if used + cost > BLOCK:
            blocks += 1
            used = 0
        used += cost
    return (blocks + 1) * BLOCK if used > BLOCK // 2 else blocks * BLOCK + used


class _Directory:
    """What a directory holds; `bytes` is what its names take in an image, "." and ".." included."""

    __slots__ = ("bytes", "names", "subdirectories")

    def __init__(self) -> None:
        self.names: list[bytes] = []
        self.subdirectories = 0
        self.bytes = 2 * DIRENT_BYTES + 3

    def size(self, *, root: bool) -> int:
        """Return the directory's size in the image."""
        if not root and self.bytes <= BLOCK // 2:
            return self.bytes
        names = {b".", b"..", *self.names}
        return directory_size(sorted(names.union(ROOT_STUBS) if root else names))


def _directories(tree: Tree) -> dict[bytes, _Directory]:
    """Return what every directory of `tree` holds."""
    result = {
        path: _Directory() for path, inode in tree.entries.items() if inode.mode & 0o170000 == stat.S_IFDIR
    }
    for names in (tree.entries, tree.links):
        for path in names:
            above, _, name = path.rpartition(b"/")
            directory = result.get(above or paths.ROOT)
            if directory is None:
                raise InputError(f"{paths.show(path)} lies in no directory of the tree")
            if name:
                directory.names.append(name)
                directory.bytes += DIRENT_BYTES + len(name)
                if path in result:
                    directory.subdirectories += 1
    return result


def _times(epoch: int | None) -> Callable[[int], tuple[int, int]]:
    """Return what makes an image's time of an mtime in ns: with an epoch, clamped and in whole seconds."""
    if epoch is None:
        return lambda mtime_ns: divmod(mtime_ns, NANOSECONDS)
    latest = epoch
    return lambda mtime_ns: (min(mtime_ns // NANOSECONDS, latest), 0)


def _inline(path: bytes, content: bytes, longest: int) -> bytes:
    """Return `content`, which must not be longer than what the flavour allows to be inline."""
    if len(content) > longest:
        raise InputError(
            f"{paths.show(path)} has {len(content)} bytes of inline content, "
            f"at most {longest} may stand in the image"
        )
    return content


def to_dump(tree: Tree, *, epoch: int | None, inline_bytes: int = limits.INLINE_BYTES) -> Iterator[DumpEntry]:
    """Yield the dump of `tree` in depth-first order.

    With an `epoch` (seconds) every mtime is at most that, in whole seconds, and directories have exactly
    that; None leaves all times alone. Link counts are computed. Raises `InputError` for a tree without its
    parents or with inline content over `inline_bytes`.
    """
    if paths.ROOT not in tree.entries:
        raise InputError("the tree has no root directory")
    directories = _directories(tree)
    counts, links, inodes = _link_counts(tree), tree.links, tree.entries
    time_of = _times(epoch)
    for path in _depth_first(tree):
        first = links.get(path) if links else None
        inode = inodes[path if first is None else first]
        sec, nsec = time_of(inode.mtime_ns)
        size, nlink = inode.size, 1
        payload, content = inode.target or None, inode.content or None
        digest = inode.digest or None
        if digest is not None:
            text = digest.hex().encode()
            payload = text[:2] + b"/" + text[2:]
        elif content is not None:
            content = _inline(path, content, inline_bytes)
        elif path in directories:
            directory = directories[path]
            size, nlink = directory.size(root=path == paths.ROOT), 2 + directory.subdirectories
            sec = sec if epoch is None else epoch
        if counts:
            nlink = counts.get(path if first is None else first, nlink)
        yield DumpEntry(
            path,
            size,
            inode.mode,
            nlink,
            inode.uid,
            inode.gid,
            inode.rdev,
            sec,
            nsec,
            payload,
            content,
            digest,
            inode.xattrs,
            first,
        )


def _link_counts(tree: Tree) -> dict[bytes, int]:
    """Return how many names each inode has that has more than one."""
    counts: dict[bytes, int] = {}
    for first in tree.links.values():
        counts[first] = counts.get(first, 1) + 1
    return counts


def _depth_first(tree: Tree) -> Iterable[bytes]:
    if not tree.links:
        return tree.entries
    return sorted([*tree.entries, *tree.links], key=paths.depth_first)


# --- back ---------------------------------------------------------------------------------------------------


def _inode(entry: DumpEntry) -> Inode:
    """Return the inode that `entry` describes; raises `InputError` if a tree cannot hold it."""
    kind = stat.S_IFMT(entry.mode)
    size, digest, content, target = 0, b"", b"", b""
    if kind == stat.S_IFLNK:
        target = entry.payload or b""
        size = len(target)
    elif kind == stat.S_IFREG and entry.size:
        size, content = entry.size, entry.content or b""
        if not content:
            if entry.digest is None:
                raise InputError(
                    f"{paths.show(entry.path)} has no fs-verity digest",
                    resolution="a tree names file contents by digest: make the dump with digests",
                )
            digest = entry.digest
    return Inode(
        mode=entry.mode,
        uid=entry.uid,
        gid=entry.gid,
        mtime_ns=entry.mtime_sec * NANOSECONDS + entry.mtime_nsec,
        size=size,
        digest=digest,
        content=content,
        target=target,
        rdev=entry.rdev if kind in {stat.S_IFCHR, stat.S_IFBLK} else 0,
        xattrs=entry.xattrs,
    )


def _follow(links: dict[bytes, bytes]) -> None:
    """Make every hard link lead straight to the name at the end of its chain."""
    for link, target in links.items():
        chain = {link: None}
        end = target
        while end in links:
            if end in chain:
                raise InputError(f"{paths.show(link)} is a hard link to itself")
            chain[end] = None
            end = links[end]
        links.update(dict.fromkeys(chain, end))


def from_dump(entries: Iterable[DumpEntry]) -> Tree:
    """Return the tree that `entries` describe.

    Sizes of directories and link counts are not kept: they follow from the tree. Raises `InputError` if the
    root or a parent is missing, a name comes twice, a hard link leads nowhere, or a file has no digest.
    """
    inodes: dict[bytes, Inode] = {}
    links: dict[bytes, bytes] = {}
    for entry in entries:
        path = entry.path
        if path in inodes or path in links:
            raise InputError(f"{paths.show(path)} appears twice in the dump")
        above = inodes.get(paths.parent(path))
        if path != paths.ROOT and (above is None or not above.is_directory):
            raise InputError(f"{paths.show(path)} comes before its directory, or that is no directory")
        if entry.hardlink is not None:
            links[path] = entry.hardlink
        else:
            inodes[path] = _inode(entry)
    if paths.ROOT not in inodes or not inodes[paths.ROOT].is_directory:
        raise InputError("the dump has no root directory")
    _follow(links)
    inodes, links = canonical_links(inodes, links)
    return Tree(entries=in_order(inodes), links=in_order(links))
