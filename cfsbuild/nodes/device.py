"""The kind `device`: one device node or fifo. It exists in the image only, so no privilege is needed."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import Annotated, Literal

import msgspec

from cfsbuild.errors import Problem
from cfsbuild.nodes import metadata
from cfsbuild.nodes.kind import Fingerprint, NodeContext, NodeKind
from cfsbuild.nodes.metadata import Seconds, XattrTable
from cfsbuild.recipe.model import NodeSpec
from cfsbuild.recipe.types import Mode, Owner, TreePath, parse_mode
from cfsbuild.tree.inode import Inode
from cfsbuild.tree.layer import Layer, make_layer

_TYPES = {"char": stat.S_IFCHR, "block": stat.S_IFBLK, "fifo": stat.S_IFIFO}


class DeviceParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One character device, block device or fifo."""

    target: TreePath
    type: Annotated[Literal["char", "block", "fifo"], msgspec.Meta(description="What it is.")]
    major: Annotated[
        Annotated[int, msgspec.Meta(ge=0, le=0xFFF)] | None,
        msgspec.Meta(description="Major number; not for a fifo."),
    ] = None
    minor: Annotated[
        Annotated[int, msgspec.Meta(ge=0, le=0xFFFFF)] | None,
        msgspec.Meta(description="Minor number; not for a fifo."),
    ] = None
    mode: Mode = "0600"
    owner: Owner = "root"
    group: Owner = "root"
    mtime: Seconds = 0
    xattrs: XattrTable = {}


def check(spec: NodeSpec) -> Iterator[Problem]:
    """Find missing or superfluous numbers, and bad xattrs."""
    params: DeviceParams = spec.params
    for key, value in (("major", params.major), ("minor", params.minor)):
        if params.type == "fifo" and value is not None:
            yield Problem(f"{spec.name}: a fifo has no {key} number", "", "leave it out", spec.origin_of(key))
        elif params.type != "fifo" and value is None:
            yield Problem(
                f"{spec.name}: a {params.type} device needs a {key} number",
                "",
                f"add {key} = …",
                spec.origin_of("type"),
            )
    yield from metadata.root_problems(spec, params.target, "a device")
    yield from metadata.xattr_problems(spec, params.xattrs)


def produce(context: NodeContext, params: DeviceParams, fingerprint: Fingerprint) -> Layer:
    """Return the layer with the device."""
    del fingerprint
    inode = Inode(
        mode=_TYPES[params.type] | parse_mode(params.mode),
        mtime_ns=params.mtime * 10**9,
        rdev=0 if params.type == "fifo" else os.makedev(params.major or 0, params.minor or 0),
    )
    return make_layer({metadata.tree_path(params.target): metadata.attributed(inode, params, context.owners)})


KIND = NodeKind(
    name="device",
    version=1,
    summary="One character device, block device or fifo.",
    params=DeviceParams,
    produce=produce,
    check=check,
    owner_names=metadata.owner_names,
)
