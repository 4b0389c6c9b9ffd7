"""What every `Tree` promises, checked entry by entry."""

from __future__ import annotations

from cfsbuild.errors import InputError
from cfsbuild.tree import paths
from cfsbuild.tree.layer import Tree


def check_tree(tree: Tree) -> None:
    """Raise `InputError` unless `tree` keeps what `Tree` promises: parents, order, sound links."""
    for mapping in (tree.entries, tree.links):
        order: list[bytes] = list(mapping)
        if order != sorted(order, key=paths.depth_first):
            raise InputError("tree is not in depth-first order")
    for path in (paths.ROOT, *tree.entries, *tree.links):
        if path != paths.normalise(path):
            raise InputError(f"tree holds {paths.show(path)}, which is not a normal path")
        parent = tree.entries.get(paths.parent(path))
        if parent is None or not parent.is_directory:
            raise InputError(f"tree has no directory above {paths.show(path)}")
    for link, first in tree.links.items():
        inode = tree.entries.get(first)
        if inode is None or inode.is_directory or link in tree.entries:
            raise InputError(f"tree has a hard link {paths.show(link)} to nothing that can have one")
        if paths.depth_first(first) > paths.depth_first(link):
            raise InputError(f"tree has {paths.show(first)} before its first name {paths.show(link)}")
