"""Members as a tree in memory: names, hard links and duplicates resolved without touching a file system.

What is decided here, where readers of tar disagree, is written down in docs/adr/0031-archive-members.md.
"""

from __future__ import annotations

import functools
import stat

from cfsbuild import limits
from cfsbuild.nodes.tar import faults, members
from cfsbuild.nodes.tar.members import Member
from cfsbuild.tree import paths
from cfsbuild.tree.inode import Inode
from cfsbuild.tree.layer import Layer, make_layer

_TYPES = {
    members.REGULAR: stat.S_IFREG,
    members.SYMLINK: stat.S_IFLNK,
    members.CHARACTER: stat.S_IFCHR,
    members.BLOCK_DEVICE: stat.S_IFBLK,
    members.DIRECTORY: stat.S_IFDIR,
    members.FIFO: stat.S_IFIFO,
}

_NO_NAMES = frozenset({b"", b".", b".."})

METADATA_BYTES = 512 * 2**20
"""Most bytes of names (those of implicit parents included), link targets, attributes and inline content."""


def normal_name(name: bytes) -> bytes:
    """Return the path inside the archive's root that a member's name or hard link target means.

    Absolute names mean the same as relative ones; `.` and empty components are dropped. Raises `InputError`
    for `..`, an empty name, and names over the limits.
    """
    if not name:
        raise faults.malformed(faults.NAME, "a member has no name")
    head, _, last = name.rpartition(b"/")
    if last in _NO_NAMES or len(name) > limits.PATH_BYTES:
        return _normal(name)
    directory = _normal(head)
    paths.check_name(last)
    path = paths.join(directory, last)
    if len(path) > limits.PATH_BYTES or path.count(b"/") > limits.PATH_DEPTH:
        return paths.normalise(path)
    return path


# The members of a directory mostly follow each other.
@functools.lru_cache(maxsize=8)
def _normal(name: bytes) -> bytes:
    parts = [part for part in name.split(b"/") if part not in {b"", b"."}]
    if b".." in parts:
        raise faults.refused(
            faults.NAME,
            f"{paths.show(name)!r} contains '..'",
            resolution="Make the archive again from the directory itself, without '..' in names.",
        )
    return paths.normalise(b"/".join(parts))


def make_inode(member: Member, *, digest: bytes = b"", content: bytes = b"") -> Inode:
    """Return what `member`, which is no hard link, is. Raises `InputError`."""
    target = member.link if member.type == members.SYMLINK else b""
    if member.type == members.SYMLINK and (not target or len(target) > limits.PATH_BYTES or b"\0" in target):
        raise faults.malformed(
            faults.NAME,
            f"the target of symbolic link {paths.show(member.name)!r} is empty, too long or has NUL",
        )
    major, minor = member.device
    if not (0 <= major < 1 << 12 and 0 <= minor < 1 << 20):
        raise faults.malformed(
            faults.NUMBER, f"device {major}:{minor} of {paths.show(member.name)!r} is no device"
        )
    is_device = member.type in {members.CHARACTER, members.BLOCK_DEVICE}
    return Inode(
        mode=_TYPES[member.type] | member.mode,
        uid=member.uid,
        gid=member.gid,
        mtime_ns=member.mtime_ns,
        size=len(target) or member.size,
        digest=digest,
        content=content,
        target=target,
        rdev=(minor & 0xFF) | major << 8 | (minor & ~0xFF) << 12 if is_device else 0,
        xattrs=member.xattrs,
    )


class TreeModel:
    """The tree that the members so far make.

    A later member replaces an earlier one of the same name, except that a directory neither replaces nor is
    replaced by anything else. No name leads through anything but directories. A hard link is a further name
    of the inode that its target's name has at that moment.
    """

    def __init__(self) -> None:
        self._inodes: list[Inode] = []
        self._names: dict[bytes, int] = {}
        self._directories: set[bytes] = {paths.ROOT}
        self._candidates: set[bytes] = set()
        self._budget = METADATA_BYTES

    def add(self, path: bytes, inode: Inode, *, included: bool = True) -> None:
        """Add or replace a name; one that is not `included` counts only if something below it is there.

        Raises `InputError`.
        """
        if not included:
            self._candidates.add(path)
        self._make_way(path, is_directory=inode.is_directory)
        self._spend(len(inode.target) + len(inode.content) + sum(len(n) + len(v) for n, v in inode.xattrs))
        self._names[path] = len(self._inodes)
        self._inodes.append(inode)

    def link(self, path: bytes, target: bytes) -> None:
        """Add a further name of the inode that `target` names. Raises `InputError`."""
        number = self._names.get(target)
        if number is None or path == target:
            raise faults.refused(
                faults.LINK,
                f"hard link {paths.show(path)} points to {paths.show(target)}, "
                + ("itself" if path == target else "which is not in the archive before it"),
                resolution="Make the archive so that it holds the file before its links, or include both.",
            )
        if self._inodes[number].is_directory:
            raise faults.malformed(faults.LINK, f"hard link {paths.show(path)} points to a directory")
        self._make_way(path, is_directory=False)
        self._names[path] = number

    def _make_way(self, path: bytes, *, is_directory: bool) -> None:
        """Check that `path` can be added; parents that no member declares become implicit directories."""
        self._spend(len(path))
        known = self._directories
        directory = paths.parent(path)
        if directory not in known:
            for ancestor in paths.ancestors(path):
                if ancestor not in known:
                    if ancestor in self._names:
                        raise faults.refused(
                            faults.NAME,
                            f"{paths.show(path)} leads through {paths.show(ancestor)}, which is no directory",
                            resolution="Name the directory itself, not a symbolic link to it.",
                        )
                    self._spend(len(ancestor))
                    known.add(ancestor)
        if is_directory:
            if path in self._names and path not in known:
                raise faults.malformed(faults.TYPE, f"directory {paths.show(path)} replaces something else")
            known.add(path)
        elif path in known:
            raise faults.malformed(
                faults.TYPE, f"{paths.show(path)} replaces a directory with something else"
            )

    def _spend(self, size: int) -> None:
        """Count bytes that stay in memory."""
        self._budget -= size
        if self._budget < 0:
            raise faults.over_limit(f"names, link targets and attributes of more than {METADATA_BYTES} bytes")

    def _drop_candidates(self) -> None:
        """Forget directories that were not selected and lead to nothing that was."""
        if not self._candidates:
            return
        needed = set()
        for name in self._names:
            if name not in self._candidates:
                directory = paths.parent(name)
                while directory not in needed:
                    needed.add(directory)
                    directory = paths.parent(directory)
        for name in self._candidates - needed:
            del self._names[name]

    def layer(self, target: bytes) -> Layer:
        """Return the layer with everything below `target`. Raises `InputError` for paths over the limits."""
        self._drop_candidates()
        first_names: dict[int, bytes] = {}
        entries: dict[bytes, Inode] = {}
        links: dict[bytes, bytes] = {}
        for name, number in self._names.items():
            path = name
            if target != paths.ROOT:
                path = target if name == paths.ROOT else paths.normalise(target + name)
            first = first_names.setdefault(number, path)
            if first is path:
                entries[path] = self._inodes[number]
            else:
                links[path] = first
        return make_layer(entries, links=links)
