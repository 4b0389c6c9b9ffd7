"""From dump entries to the nodes of an image: names resolved, links followed, overlay's view added.

Composefs format, "Tree rewrite before layout": what overlayfs reads of the image (metacopy, redirect, opaque
and whiteout xattrs, the 256 whiteouts of the root) is put into the tree here, so that layout and emission
know nothing of overlayfs.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable

from cfsbuild import limits
from cfsbuild.erofs import format as fmt
from cfsbuild.errors import InputError
from cfsbuild.fsverity.algorithm import Algorithm
from cfsbuild.tree import paths
from cfsbuild.tree.dump import DumpEntry
from cfsbuild.tree.dumpfields import leads_out

IFMT = 0o170000
ESCAPED = fmt.OVERLAY_PREFIX + fmt.OVERLAY_ESCAPE
WHITEOUT = {ESCAPED + b"whiteout": b"", fmt.USER_WHITEOUT: b""}
HAS_WHITEOUTS = {ESCAPED + b"whiteouts": b"", fmt.USER_WHITEOUTS: b""}
OPAQUE = {ESCAPED + b"opaque": b"x", fmt.USER_OPAQUE: b"x"}


class Node:
    """An inode on its way into the image. Mutable: a million of these are filled in step by step.

    `children` (of directories only) are the names whose inodes have their place here; `aliases` are hard
    links to inodes that have theirs elsewhere, "." and ".." among them.
    """

    __slots__ = (
        "aliases",
        "children",
        "compact",
        "content",
        "gid",
        "ino",
        "mode",
        "mtime",
        "nblocks",
        "nid",
        "nlink",
        "padding",
        "rdev",
        "size",
        "tail",
        "target",
        "uid",
        "xattr_size",
        "xattrs",
    )

    def __init__(
        self, mode: int, *, owner: tuple[int, int], mtime: tuple[int, int], nlink: int, size: int
    ) -> None:
        self.mode = mode
        self.uid, self.gid = owner
        self.mtime = mtime
        self.nlink = nlink
        self.size = size
        self.rdev = 0
        self.children: dict[bytes, Node] | None = None
        self.aliases: dict[bytes, Node] = {}
        self.content: bytes | None = None
        self.target = b""
        self.xattrs: dict[bytes, bytes] = {}
        self.ino = self.nid = self.nblocks = self.tail = self.padding = self.xattr_size = 0
        self.compact = False


def _metacopy(digest: bytes | None, algorithm: Algorithm) -> bytes:
    """Return the value of overlay's metacopy xattr; empty without a digest."""
    if digest is None:
        return b""
    if len(digest) != algorithm.digest_size:
        raise InputError(
            f"digest of {len(digest)} bytes in an image of {algorithm.value} digests, "
            f"which have {algorithm.digest_size}"
        )
    return fmt.metacopy_header(algorithm) + digest


def _escaped(entry: DumpEntry) -> dict[bytes, bytes]:
    """Return the xattrs of `entry`, those that overlayfs would take for its own escaped by one level."""
    total = 12 + sum(7 + len(name) + len(value) for name, value in entry.xattrs)
    if total > limits.XATTR_INODE_BYTES:
        raise InputError(f"{paths.show(entry.path)} has {total} bytes of xattrs")
    result: dict[bytes, bytes] = {}
    for name, value in entry.xattrs:
        stored = ESCAPED + name[len(fmt.OVERLAY_PREFIX) :] if name.startswith(fmt.OVERLAY_PREFIX) else name
        if not 1 <= len(stored) <= limits.XATTR_NAME_BYTES or b"\0" in stored:
            raise InputError(
                f"{paths.show(entry.path)}: xattr name {paths.show(name)!r} is too long or malformed"
            )
        result[stored] = value
    return result


def node_of(entry: DumpEntry, algorithm: Algorithm) -> Node:
    """Return the node of an entry that is no hard link; raises `InputError` if an image cannot hold it."""
    mode, size = entry.mode, entry.size
    node = Node(
        mode,
        owner=(entry.uid, entry.gid),
        mtime=(entry.mtime_sec, entry.mtime_nsec),
        nlink=entry.nlink,
        size=size,
    )
    kind = mode & IFMT
    if entry.xattrs:
        node.xattrs = _escaped(entry)
    if kind == stat.S_IFDIR:
        node.children = {}
        node.size = 0
    elif kind == stat.S_IFREG:
        if size:
            _set_data(node, entry, algorithm)
    elif kind == stat.S_IFLNK:
        node.target = entry.payload or b""
        node.size = len(node.target)
        if not 1 <= node.size <= limits.PATH_BYTES:
            raise InputError(f"{paths.show(entry.path)}: symlink target is {node.size} bytes long")
    elif kind in {stat.S_IFCHR, stat.S_IFBLK}:
        node.rdev = entry.rdev
    elif kind not in {stat.S_IFIFO, stat.S_IFSOCK}:
        raise InputError(f"{paths.show(entry.path)}: mode {mode:o} has no valid file type")
    return node


def _set_data(node: Node, entry: DumpEntry, algorithm: Algorithm) -> None:
    """Give a regular file its content, or what leads overlayfs to it."""
    if entry.content:
        if len(entry.content) != node.size or node.size > limits.INLINE_BYTES_MAX:
            raise InputError(
                f"{paths.show(entry.path)}: {len(entry.content)} bytes inline for a size of {node.size}"
            )
        node.content = entry.content
        return
    if node.size > limits.FILE_BYTES:
        raise InputError(f"{paths.show(entry.path)}: {node.size} bytes are more than an image can describe")
    node.xattrs[fmt.METACOPY] = _metacopy(entry.digest, algorithm)
    if entry.payload:
        if leads_out(entry.payload):
            raise InputError(f"{paths.show(entry.path)}: backing path leads out of the object directory")
        if len(entry.payload) > limits.PATH_BYTES:
            raise InputError(f"{paths.show(entry.path)}: backing path is {len(entry.payload)} bytes long")
        node.xattrs[fmt.REDIRECT] = b"/" + entry.payload


class _Assembly:
    """Puts entries together as they come: parents before children, hard links anywhere below theirs."""

    def __init__(self, algorithm: Algorithm) -> None:
        self.algorithm = algorithm
        self.directories: dict[bytes, Node] = {}
        self.links: dict[bytes, bytes] = {}
        self.whiteouts: list[tuple[Node, Node]] = []
        self.flags = 0
        self.names = 0

    def add(self, entry: DumpEntry) -> None:
        """Take in one entry; raises `InputError` if it cannot stand where it says."""
        path = entry.path
        slash = path.rfind(b"/")
        name = path[slash + 1 :]
        self.names += 1
        if slash < 0 or len(path) > limits.PATH_BYTES or self.names > limits.TREE_ENTRIES:
            raise InputError(f"{paths.show(path)} is no valid path, or one name more than an image may have")
        above = self.directories.get(path[:slash] or paths.ROOT)
        if above is None or above.children is None:
            return self._add_root(entry)
        if not 1 <= len(name) <= limits.NAME_BYTES or name in {b".", b".."} or b"\0" in name:
            paths.check_name(name)
        if name in above.children or path in self.links:
            raise InputError(f"{paths.show(path)} appears twice")
        if entry.hardlink is not None:
            self.links[path] = entry.hardlink
            return None
        above.children[name] = node = self._node(entry)
        if node.children is not None:
            self.directories[path] = node
        elif node.rdev == 0 and node.mode & IFMT == stat.S_IFCHR:
            self.whiteouts.append((above, node))
        return None

    def _add_root(self, entry: DumpEntry) -> None:
        if self.directories or entry.path != paths.ROOT:
            raise InputError(f"{paths.show(entry.path)} comes before its directory, or that is no directory")
        root = self._node(entry)
        if root.children is None or entry.hardlink is not None:
            raise InputError("the root is not a directory")
        self.directories[paths.ROOT] = root

    def _node(self, entry: DumpEntry) -> Node:
        node = node_of(entry, self.algorithm)
        if node.xattrs and not self.flags and not fmt.ACL_NAMES.isdisjoint(node.xattrs):
            self.flags = fmt.FLAG_HAS_ACL
        return node

    def finish(self) -> Node:
        """Return the root of the whole tree, hard links followed and "." and ".." added."""
        root = self.directories.get(paths.ROOT)
        if root is None:
            raise InputError("the dump is empty")
        for path in self.links:
            directory = self.directories[paths.parent(path)]
            directory.aliases[paths.name(path)] = self._target(path)
        for path, node in self.directories.items():
            node.aliases[b"."] = node
            node.aliases[b".."] = self.directories[paths.parent(path)]
            subdirectories = sum(1 for child in (node.children or {}).values() if child.children is not None)
            node.nlink = 2 + subdirectories
        return root

    def _target(self, link: bytes) -> Node:
        """Return the inode that the hard link `link` leads to, perhaps by way of others."""
        chain = {link: None}
        path = self.links[link]
        while path in self.links:
            if path in chain:
                raise InputError(f"{paths.show(link)} is a hard link to itself")
            chain[path] = None
            path = self.links[path]
        # Long chains stay cheap: every link on the way now leads straight to the end.
        self.links.update(dict.fromkeys(chain, path))
        above = self.directories.get(paths.parent(path))
        target = (above.children or {}).get(paths.name(path)) if above else None
        if target is None or target.children is not None:
            raise InputError(f"{paths.show(link)} is a hard link to what is missing or a directory")
        return target


def assemble(
    entries: Iterable[DumpEntry], *, formats: tuple[int, int], algorithm: Algorithm
) -> tuple[Node, int, int]:
    """Return the root node of the tree that `entries` describe, the format version and the header's flags.

    The version is the smallest of the range `formats`, but 1 if the tree has a whiteout and 1 is in range.
    Raises `InputError` for anything that is not a tree or exceeds what an image can hold.
    """
    assembly = _Assembly(algorithm)
    for entry in entries:
        assembly.add(entry)
    root = assembly.finish()
    version = formats[0]
    if assembly.whiteouts and version < 1 <= formats[1]:
        version = 1
    for above, node in assembly.whiteouts:
        _escape_whiteout(above, node, version)
    root.xattrs[fmt.OPAQUE] = b"y"
    _add_stubs(root)
    return root, version, assembly.flags


def _escape_whiteout(above: Node, node: Node, version: int) -> None:
    """Turn a whiteout of the input into what overlayfs shows as one (and does not act upon itself)."""
    node.mode = stat.S_IFREG | node.mode & 0o7777
    node.size = 0
    node.xattrs.update(WHITEOUT)
    above.xattrs.update(HAS_WHITEOUTS)
    if version >= 1:
        above.xattrs.update(OPAQUE)


def _add_stubs(root: Node) -> None:
    """Add the whiteouts 00 to ff that hide an object store which is an ordinary lower layer."""
    children = root.children
    if children is None:
        return
    label = root.xattrs.get(b"security.selinux")
    for name in fmt.ROOT_WHITEOUTS:
        if name in children or name in root.aliases:
            continue
        stub = Node(stat.S_IFCHR | 0o644, owner=(root.uid, root.gid), mtime=root.mtime, nlink=1, size=0)
        if label is not None:
            stub.xattrs[b"security.selinux"] = label
        children[name] = stub
