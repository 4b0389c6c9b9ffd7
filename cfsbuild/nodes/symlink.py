"""The kind `symlink`: one symbolic link."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from typing import Annotated

import msgspec

from cfsbuild import limits
from cfsbuild.errors import Problem
from cfsbuild.nodes import metadata
from cfsbuild.nodes.kind import Fingerprint, NodeContext, NodeKind
from cfsbuild.nodes.metadata import Seconds, XattrTable
from cfsbuild.recipe.model import NodeSpec
from cfsbuild.recipe.types import Owner, TreePath
from cfsbuild.tree.inode import Inode
from cfsbuild.tree.layer import Layer, make_layer


class SymlinkParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One symbolic link."""

    target: Annotated[TreePath, msgspec.Meta(description="Where the link is in the image.")]
    to: Annotated[
        str,
        msgspec.Meta(
            description="What the link says, taken literally: relative to the link's directory, or absolute "
            "in the running system. It need not exist.",
            examples=["../usr/lib/os-release"],
            min_length=1,
        ),
    ]
    owner: Owner = "root"
    group: Owner = "root"
    mtime: Seconds = 0
    xattrs: XattrTable = {}


def check(spec: NodeSpec) -> Iterator[Problem]:
    """Find a text that no link can have, and bad xattrs."""
    params: SymlinkParams = spec.params
    text = metadata.to_bytes(params.to)
    if b"\0" in text or len(text) > limits.PATH_BYTES:
        yield Problem(
            f"{spec.name}: a link's text is at most {limits.PATH_BYTES} bytes long and has no NUL",
            origin=spec.origin_of("to"),
        )
    yield from metadata.root_problems(spec, params.target, "a symlink")
    yield from metadata.xattr_problems(spec, params.xattrs)


def produce(context: NodeContext, params: SymlinkParams, fingerprint: Fingerprint) -> Layer:
    """Return the layer with the link."""
    del fingerprint
    text = metadata.to_bytes(params.to)
    inode = Inode(mode=stat.S_IFLNK | 0o777, mtime_ns=params.mtime * 10**9, size=len(text), target=text)
    return make_layer({metadata.tree_path(params.target): metadata.attributed(inode, params, context.owners)})


KIND = NodeKind(
    name="symlink",
    version=1,
    summary="One symbolic link.",
    params=SymlinkParams,
    produce=produce,
    check=check,
    owner_names=metadata.owner_names,
)
