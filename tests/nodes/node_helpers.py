"""Running a node kind by hand: a spec from plain data, an object store in memory, a context."""

from __future__ import annotations

import os
import stat

import msgspec

from cfsbuild.errors import Origin
from cfsbuild.events import ignore
from cfsbuild.fsverity.algorithm import Algorithm
from cfsbuild.fsverity.digest import digest_bytes
from cfsbuild.nodes.kind import NodeContext, Owners
from cfsbuild.nodes.registry import NODE_KINDS
from cfsbuild.recipe.model import NodeSpec
from cfsbuild.tree.layer import Layer, Tree
from cfsbuild.tree.merge import Contribution, merge


class Objects:
    """An object sink that keeps contents in memory."""

    algorithm = Algorithm.SHA256

    def __init__(self):
        self.contents: dict[bytes, bytes] = {}

    def add_bytes(self, data, /):
        digest = digest_bytes(data, self.algorithm)
        self.contents[digest] = data
        return digest

    def add_fd(self, fd, /):
        with open(fd, "rb", closefd=False) as file:
            data = file.read()
        return self.add_bytes(data), len(data)

    def content(self, inode) -> bytes:
        return self.contents[inode.digest] if inode.digest else inode.content


def spec(kind, *, name="node", file="recipe.toml", needs=(), **params) -> NodeSpec:
    """Return a spec whose every parameter seems to be written at a line of its own."""
    origins = {"": Origin(file, 1, f"nodes.{name}")}
    origins.update({key: Origin(file, 2 + i, f"nodes.{name}.{key}") for i, key in enumerate(params)})
    converted = msgspec.convert(params, NODE_KINDS[kind].params)
    return NodeSpec(name=name, kind=kind, params=converted, needs=tuple(needs), origins=origins)


def problems(kind, **params) -> list[str]:
    """Return the briefs of what `check` finds."""
    return [problem.brief for problem in NODE_KINDS[kind].check(spec(kind, **params))]


def context(node, objects, tree=None, **fields) -> NodeContext:
    return NodeContext(
        spec=node,
        sink=objects,
        owners=fields.pop("owners", Owners()),
        epoch=0,
        jobs=1,
        listener=ignore,
        input=tree,
        read_object=lambda digest: objects.contents[digest],
        **fields,
    )


def run(kind, objects=None, tree=None, *, owners=None, image_tree=None, **params) -> Layer:
    """Check, gather and produce."""
    node = spec(kind, **params)
    assert list(NODE_KINDS[kind].check(node)) == []
    kinds = NODE_KINDS[kind]
    given = context(node, objects or Objects(), tree, owners=owners or Owners(), image_tree=image_tree)
    return kinds.produce(given, node.params, kinds.gather(given, node.params))


def tree_of(*layers: Layer) -> Tree:
    """Merge layers, each of which reads all before it."""
    parts = [
        Contribution(node=str(i), kind="test", layer=layer, needs=frozenset(map(str, range(i))), reads=True)
        for i, layer in enumerate(layers)
    ]
    return merge(parts).tree


def unpack(layer, objects, root):
    """Write the files, directories and links of a layer below `root`."""
    for path, inode in layer.entries.items():
        place = root / os.fsdecode(path[1:])
        place.parent.mkdir(parents=True, exist_ok=True)
        if inode.is_directory:
            place.mkdir(exist_ok=True)
        elif inode.is_symlink:
            place.symlink_to(os.fsdecode(inode.target))
        else:
            place.write_bytes(objects.content(inode))
            place.chmod(stat.S_IMODE(inode.mode))
