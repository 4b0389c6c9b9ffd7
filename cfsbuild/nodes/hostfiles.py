"""Files of the building machine that go to the same place in the tree, with the links that lead to them."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

import msgspec

from cfsbuild.errors import BuildError
from cfsbuild.nodes import metadata
from cfsbuild.nodes.file import take_file
from cfsbuild.nodes.hostroot import HostRoot
from cfsbuild.nodes.kind import Fingerprint, NodeContext
from cfsbuild.tree.inode import Inode
from cfsbuild.tree.layer import Layer, document_digest, encode_layer, make_layer


class HostFiles:
    """Collects a layer. Everything belongs to root, times are 0, modes 0755 or 0644 by the executable bit.

    A path is taken with every symbolic link on its way, so that it leads to its file in the tree as well.
    What is below one of the directories of `moved` (without links) goes below another one in the tree.
    `root` is whose files they are, all paths are paths in it: this machine's own unless another is given.
    """

    def __init__(
        self,
        context: NodeContext,
        key: str,
        *,
        moved: Mapping[Path, str] | None = None,
        root: HostRoot | None = None,
    ) -> None:
        self.root = root or HostRoot()
        self._context = context
        # Of two directories, one inside the other, the inner one says where.
        self._moved = sorted((moved or {}).items(), key=lambda item: len(item[0].parts), reverse=True)
        self._key = key
        self._entries: dict[bytes, Inode] = {}

    def take(self, path: Path) -> Path:
        """Take in the file at the absolute `path`; return its path without symbolic links.

        Raises `BuildError` if it cannot be read or is not a regular file.
        """
        self._context.observe(self.root.shown(path))
        name = self._moved_name(path)
        real = self._follow(path) if name is None else path.resolve()
        name = name or os.fsencode(real)
        if name not in self._entries:
            place = self.root.place(real)
            _, inode = take_file(self._context, place, self._key)
            mode = 0o755 if place.stat().st_mode & stat.S_IXUSR else 0o644
            self._entries[name] = msgspec.structs.replace(inode, mode=stat.S_IFREG | mode)
        return real

    def link(self, path: str, to: str) -> None:
        """Add a symbolic link. Raises `BuildError` if there is something else at `path` already."""
        target = os.fsencode(to)
        inode = Inode(mode=stat.S_IFLNK | 0o777, size=len(target), target=target)
        if self._entries.setdefault(os.fsencode(path), inode) != inode:
            raise BuildError(
                f"{self._context.spec.name}: {path} is to be a link to {to}, and something else",
                resolution="leave one of them out",
                origin=self._context.spec.origin_of(self._key),
                reason="link-taken",
            )

    def put(self, path: str, content: bytes, *, mode: int = 0o644) -> None:
        """Add a file with `content`, in place of what was taken in for that path."""
        inode = metadata.regular_file(content, self._context.sink, mode=mode)
        self._entries[metadata.tree_path(path)] = inode

    def directory(self, path: str) -> None:
        """Add a directory of root, mode 0755."""
        self._entries.setdefault(metadata.tree_path(path), Inode(mode=stat.S_IFDIR | 0o755))

    def fingerprint(self, name: str) -> Fingerprint:
        """Return everything that was taken in as a layer, which `produce` gives, and its digest as `name`."""
        layer = make_layer(self._entries)
        return Fingerprint(digests={name: document_digest(encode_layer(layer))}, payload=layer)

    def _moved_name(self, path: Path) -> bytes | None:
        if not self._moved:
            return None
        real = path.resolve()
        for directory, place in self._moved:
            if real.is_relative_to(directory):
                return os.fsencode(f"{place}/{real.relative_to(directory)}")
        return None

    def _follow(self, path: Path) -> Path:
        """Return `path` with its links followed, each of which is added to the tree."""
        followed = self.root.follow(path, self._context.spec.origin_of(self._key))
        for link, target in followed.links:
            self.link(link, target)
        return followed.path


def produce(context: NodeContext, params: msgspec.Struct, fingerprint: Fingerprint) -> Layer:
    """Return the layer of `HostFiles.fingerprint`."""
    del context, params
    layer: Layer = fingerprint.payload
    return layer
