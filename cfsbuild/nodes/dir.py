"""The kind `dir`: directories that are declared, with mode and owner."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from typing import Annotated

import msgspec

from cfsbuild.errors import Problem
from cfsbuild.nodes import metadata
from cfsbuild.nodes.kind import Fingerprint, NodeContext, NodeKind
from cfsbuild.nodes.metadata import XattrTable
from cfsbuild.recipe.model import NodeSpec
from cfsbuild.recipe.types import Mode, Owner, TreePath, parse_mode
from cfsbuild.tree.inode import Inode
from cfsbuild.tree.layer import Layer, make_layer


class DirParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One or several directories, all alike. Give exactly one of `target` and `targets`."""

    target: Annotated[TreePath | None, msgspec.Meta(description="The directory.")] = None
    targets: Annotated[list[TreePath], msgspec.Meta(description="Several directories.")] = []
    mode: Mode = "0755"
    owner: Owner = "root"
    group: Owner = "root"
    xattrs: XattrTable = {}


def check(spec: NodeSpec) -> Iterator[Problem]:
    """Find contradictions and bad xattrs."""
    params: DirParams = spec.params
    given = {"target": params.target is not None, "targets": bool(params.targets)}
    yield from metadata.exactly_one(spec, given.items())
    seen: set[bytes] = set()
    for index, target in enumerate(params.targets):
        path = metadata.tree_path(target)
        if path in seen:
            yield Problem(
                f"{spec.name}: {target} is listed twice", "", "", spec.origin_of(f"targets.{index}")
            )
        seen.add(path)
    yield from metadata.xattr_problems(spec, params.xattrs)


def produce(context: NodeContext, params: DirParams, fingerprint: Fingerprint) -> Layer:
    """Return the layer with the directories."""
    del fingerprint
    inode = metadata.attributed(Inode(mode=stat.S_IFDIR | parse_mode(params.mode)), params, context.owners)
    targets = params.targets if params.target is None else [params.target]
    return make_layer({metadata.tree_path(target): inode for target in targets})


KIND = NodeKind(
    name="dir",
    version=1,
    summary="Directories with a mode and an owner. Parents that nobody declares are 0755 root:root.",
    params=DirParams,
    produce=produce,
    check=check,
    owner_names=metadata.owner_names,
)
