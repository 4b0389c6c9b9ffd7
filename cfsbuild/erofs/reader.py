"""Reading a composefs image (formats 0 and 1, and 2 of older composefs-rs) as the tree that it describes.

The input is hostile until proven good: every offset is checked against its bounds, no byte belongs to two
structures, each directory is entered once, and the work is linear in the size of the image.
"""

from __future__ import annotations

import stat
from collections.abc import Collection, Iterator

import msgspec

from cfsbuild import limits
from cfsbuild.erofs import damage
from cfsbuild.erofs import format as fmt
from cfsbuild.erofs.extents import Extents
from cfsbuild.erofs.reader_directories import Child, read_children
from cfsbuild.erofs.reader_entries import (
    as_whiteout,
    is_marked,
    is_whiteout,
    make_entry,
    without_parent_markers,
)
from cfsbuild.erofs.reader_inodes import ImageInode, InodeReader
from cfsbuild.erofs.superblock import Superblock, parse_superblock
from cfsbuild.errors import InputError
from cfsbuild.fsverity.algorithm import Algorithm
from cfsbuild.tree import paths
from cfsbuild.tree.dump import DumpEntry

PATHS_BYTES_FREE = 32 * 2**20
PATHS_BYTES_RATIO = 16
"""All paths of an image together may be this much, plus this many times its size: directories with long
paths cannot make a small image large in memory."""


class ImageInfo:
    """An image that can be read, and what is known before reading all of it."""

    __slots__ = ("_algorithm", "_data", "_superblock", "_top_level")

    def __init__(self, data: bytes, superblock: Superblock, top_level: frozenset[bytes]) -> None:
        self._data = data
        self._superblock = superblock
        self._top_level = top_level
        self._algorithm: Algorithm | None = None

    @property
    def format(self) -> int:
        """Return the composefs format: 0, 1 or 2."""
        return self._superblock.format

    @property
    def has_acl(self) -> bool:
        """Say whether the header promises POSIX ACLs."""
        return self._superblock.has_acl

    @property
    def inodes(self) -> int:
        """Return the number of inodes, those that the format adds included, as the superblock has it."""
        return self._superblock.inodes

    @property
    def xattr_offset(self) -> int:
        """Return the offset of the block in which shared attributes begin; inodes lie before its end."""
        return self._superblock.xattr_offset

    @property
    def size(self) -> int:
        """Return the size of the image in bytes."""
        return len(self._data)

    @property
    def algorithm(self) -> Algorithm:
        """Return the algorithm of the files' digests; SHA-256 if no file has one.

        Reads up to the first digest, so raises `InputError` if the image is damaged before it.
        """
        if self._algorithm is None:
            self._algorithm = next(
                (
                    Algorithm.SHA256
                    if len(entry.digest) == Algorithm.SHA256.digest_size
                    else Algorithm.SHA512
                    for entry in _Walk(self._data, self._superblock, frozenset()).entries()
                    if entry.digest is not None
                ),
                Algorithm.SHA256,
            )
        return self._algorithm

    def entries(self) -> Iterator[DumpEntry]:
        """Yield every name in depth-first order, with the conventions of `composefs-info dump`.

        What the format itself adds is not shown: the 256 whiteouts at the root, overlay attributes, and the
        markers of whiteouts, which come back as character devices 0/0. The second and further names of an
        inode have `hardlink` set to the first, and repeat its other fields.

        Raises `InputError` with a `reason` as soon as something is wrong, and at the end for what only the
        whole can show (overlaps, wrong number of inodes).
        """
        return _Walk(self._data, self._superblock, self._top_level).entries()


def read_image(data: bytes | bytearray | memoryview, *, top_level: Collection[bytes] = ()) -> ImageInfo:
    """Return the image in `data`; of the root's children only those named in `top_level`, if any are given.

    Raises `InputError` unless header and superblock are those of a composefs image. `data` is copied if it
    can change.
    """
    data = bytes(data)
    return ImageInfo(data, parse_superblock(data), frozenset(top_level))


class _Walk:
    """One pass over an image."""

    def __init__(self, data: bytes, superblock: Superblock, top_level: frozenset[bytes]) -> None:
        self._data = data
        self._superblock = superblock
        self._legacy = superblock.format == fmt.FORMAT_LEGACY
        self._top_level = top_level
        self._extents = Extents(len(data))
        self._inodes = InodeReader(data, superblock, self._extents)
        # Inodes with several names are read a second time, once, rather than all kept: claims of their own.
        self._again = InodeReader(data, superblock, Extents(len(data)))
        self._first_names: dict[int, bytes] = {}
        self._linked: dict[int, DumpEntry] = {}
        self._peeked: dict[int, ImageInode] = {}
        self._whiteouts: set[int] = set()
        self._generated = 0
        self._paths_budget = PATHS_BYTES_FREE + PATHS_BYTES_RATIO * len(data)
        self._entries_budget = limits.TREE_ENTRIES
        self._digest_size = 0
        self._here = paths.ROOT

    def entries(self) -> Iterator[DumpEntry]:
        """Yield all entries; say in an error where it was found."""
        try:
            yield from self._entries()
        except InputError as error:
            if not error.details:
                error.details = f"Found at {paths.show(self._here)}."
            raise

    def _entries(self) -> Iterator[DumpEntry]:
        root_nid = self._superblock.root_nid
        root = self._inodes.read(root_nid)
        if not stat.S_ISDIR(root.mode):
            raise damage.damaged(damage.TYPE, "its root is not a directory")
        self._first_names[root_nid] = paths.ROOT
        children, has_whiteouts = self._open(root, root_nid, root_nid)
        if self._top_level:
            children = [child for child in children if child[0] in self._top_level]
        yield self._directory(paths.ROOT, root, has_whiteouts=has_whiteouts, root=True)
        # One frame per directory being walked: its path with a slash, nid, children, whiteouts or not.
        stack = [(paths.ROOT, root_nid, iter(children), has_whiteouts)]
        while stack:
            prefix, directory_nid, remaining, has_whiteouts = stack[-1]
            for child in remaining:
                name, nid, dirent_type = child
                path = prefix + name
                self._here = path
                if nid in self._first_names:
                    yield self._further_name(path, nid, dirent_type)
                    continue
                inode = self._read(nid, dirent_type)
                if stat.S_ISDIR(inode.mode):
                    self._note(nid, path)
                    children, holds_whiteouts = self._open(inode, nid, directory_nid)
                    yield self._directory(path, inode, has_whiteouts=holds_whiteouts)
                    self._check_depth(len(stack))
                    stack.append((path + b"/", nid, iter(children), holds_whiteouts))
                    break
                if len(stack) == 1 and self._is_generated(name, inode):
                    continue
                self._note(nid, path)
                if has_whiteouts and is_whiteout(inode):
                    self._whiteouts.add(nid)
                yield self._entry(path, nid, inode)
            else:
                stack.pop()
        self._here = paths.ROOT
        self._check_whole()

    def _read(self, nid: int, dirent_type: int) -> ImageInode:
        """Return an inode that was not met before."""
        inode = self._peeked.pop(nid) if nid in self._peeked else self._inodes.read(nid)
        if fmt.FILE_TYPES[stat.S_IFMT(inode.mode)] != dirent_type:
            raise damage.damaged(damage.TYPE, "a directory entry has another file type than its inode")
        return inode

    def _open(self, inode: ImageInode, nid: int, parent_nid: int) -> tuple[list[Child], bool]:
        """Return the children of a directory, and whether whiteouts are among them."""
        children = read_children(self._data, inode, nid=nid, parent_nid=parent_nid)
        if (
            self._legacy
            or not inode.xattrs.kept
            or not is_marked(inode, image_format=self._superblock.format)
        ):
            return children, False
        for _, child_nid, dirent_type in children:
            if dirent_type == fmt.FILE_TYPES[stat.S_IFREG] and child_nid not in self._first_names:
                self._peeked[child_nid] = self._peeked.get(child_nid) or self._inodes.read(child_nid)
        return children, any(
            is_whiteout(self._peeked[child_nid]) for _, child_nid, _ in children if child_nid in self._peeked
        )

    def _note(self, nid: int, path: bytes) -> None:
        """Remember the first name of an inode."""
        self._first_names[nid] = path
        self._count(path)

    def _count(self, path: bytes) -> None:
        """Stop when there are too many names, or too long ones."""
        if len(path) > limits.PATH_BYTES:
            raise damage.over_limit(f"a path of {len(path)} bytes, at most {limits.PATH_BYTES} are read")
        self._paths_budget -= len(path)
        self._entries_budget -= 1
        if self._entries_budget < 0:
            raise damage.over_limit(f"more than {limits.TREE_ENTRIES} names")
        if self._paths_budget < 0:
            raise damage.over_limit("its paths are far longer than the image itself")

    def _check_depth(self, depth: int) -> None:
        if depth > limits.PATH_DEPTH:
            raise damage.over_limit(f"directories more than {limits.PATH_DEPTH} levels deep")

    def _is_generated(self, name: bytes, inode: ImageInode) -> bool:
        """Say whether a child of the root is one of the 256 whiteouts that the format adds."""
        if self._legacy or len(name) != 2 or inode.rdev or not stat.S_ISCHR(inode.mode):
            return False
        generated = name in fmt.ROOT_WHITEOUTS
        self._generated += generated
        return generated

    def _directory(
        self, path: bytes, inode: ImageInode, *, has_whiteouts: bool, root: bool = False
    ) -> DumpEntry:
        entry = make_entry(self._data, path, inode, root=root and not self._legacy)
        if has_whiteouts:
            entry = msgspec.structs.replace(entry, xattrs=without_parent_markers(entry.xattrs))
        return entry

    def _entry(self, path: bytes, nid: int, inode: ImageInode) -> DumpEntry:
        """Return the entry of anything but a directory."""
        entry = make_entry(self._data, path, inode)
        if entry.digest is not None and len(entry.digest) != self._digest_size:
            if self._digest_size:
                raise damage.damaged(damage.DIGEST, "it mixes digests of different algorithms")
            self._digest_size = len(entry.digest)
        if nid in self._whiteouts:
            mode = stat.S_IFCHR | stat.S_IMODE(inode.mode)
            entry = msgspec.structs.replace(entry, mode=mode, xattrs=as_whiteout(entry.xattrs))
        return entry

    def _further_name(self, path: bytes, nid: int, dirent_type: int) -> DumpEntry:
        """Return the entry of a hard link: a further name of an inode that was met before."""
        self._count(path)
        entry = self._linked.get(nid)
        if entry is None:
            inode = self._again.read(nid)
            if stat.S_ISDIR(inode.mode):
                raise damage.damaged(damage.LOOP, "a directory has a second name")
            entry = msgspec.structs.replace(self._entry(path, nid, inode), hardlink=self._first_names[nid])
            self._linked[nid] = entry
        type_mode = stat.S_IFREG if nid in self._whiteouts else stat.S_IFMT(entry.mode)
        if fmt.FILE_TYPES[type_mode] != dirent_type:
            raise damage.damaged(damage.TYPE, "a directory entry has another file type than its inode")
        return msgspec.structs.replace(entry, path=path)

    def _check_whole(self) -> None:
        """Raise `InputError` for what only a complete walk can show."""
        self._extents.check()
        found = len(self._first_names) + self._generated
        if found != self._superblock.inodes and not self._top_level:
            raise damage.damaged(
                damage.COUNT, f"it has {found} inodes, its superblock says {self._superblock.inodes}"
            )
