"""The kind `file`: one regular file, from text in the recipe, a template or a local file."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import msgspec

from cfsbuild import limits
from cfsbuild.errors import BuildError, Problem
from cfsbuild.fsverity.digest import digest_bytes
from cfsbuild.nodes import metadata
from cfsbuild.nodes.kind import Fingerprint, NodeContext, NodeKind
from cfsbuild.nodes.metadata import Seconds, XattrTable
from cfsbuild.recipe.model import NodeSpec
from cfsbuild.recipe.types import LocalPath, Mode, Owner, TreePath, parse_mode
from cfsbuild.tree.inode import Inode
from cfsbuild.tree.layer import Layer, make_layer


class FileParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One regular file. Give exactly one of `content`, `source` and `template`."""

    target: TreePath
    content: Annotated[
        str | None,
        msgspec.Meta(description="The file's text. Variables are filled in, unless `raw` is true."),
    ] = None
    source: Annotated[
        LocalPath | None, msgspec.Meta(description="A local file whose bytes are taken as they are.")
    ] = None
    template: Annotated[
        LocalPath | None, msgspec.Meta(description="A local Jinja2 template; the file is what it renders to.")
    ] = None
    raw: Annotated[bool, msgspec.Meta(description="Take `content` literally, with braces and all.")] = False
    mode: Mode = "0644"
    owner: Owner = "root"
    group: Owner = "root"
    mtime: Annotated[Seconds, msgspec.Meta(description="Default: 0, whatever the source's time is.")] = 0
    xattrs: XattrTable = {}


def check(spec: NodeSpec) -> Iterator[Problem]:
    """Find contradictions, a missing source and bad xattrs."""
    params: FileParams = spec.params
    # A template's text arrives in `content`, which then was not written by the user.
    content = params.content is not None and (params.template is None or "content" in spec.origins)
    given = {
        "content": content,
        "source": params.source is not None,
        "template": params.template is not None,
    }
    yield from metadata.exactly_one(spec, given.items())
    if params.raw and not content:
        yield Problem(
            f"{spec.name}: raw is about content, and there is none", "", "leave it out", spec.origin_of("raw")
        )
    yield from metadata.root_problems(spec, params.target, "a file")
    if params.source is not None:
        yield from _source_problems(spec, params.source)
    yield from metadata.xattr_problems(spec, params.xattrs)


def _source_problems(spec: NodeSpec, source: str) -> Iterator[Problem]:
    path = spec.resolve("source", source)
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        yield Problem(f"{spec.name}: cannot read {path}: {why}", "", "", spec.origin_of("source"))
        return
    if stat.S_ISDIR(mode):
        yield Problem(
            f"{spec.name}: {path} is a directory", "", 'use kind = "tree"', spec.origin_of("source")
        )
    elif not stat.S_ISREG(mode):
        yield Problem(f"{spec.name}: {path} is not a regular file", "", "", spec.origin_of("source"))


def gather(context: NodeContext, params: FileParams) -> Fingerprint:
    """Read the source once: its content goes to the sink, its digest into the key."""
    if params.source is None:
        return Fingerprint()
    digest, inode = take_file(context, context.spec.resolve("source", params.source), "source")
    return Fingerprint(digests={"source": digest.hex()}, payload=inode)


def take_file(context: NodeContext, path: Path, key: str) -> tuple[bytes, Inode]:
    """Take a local file in; return its raw digest and an inode that has only size and content.

    Raises `BuildError` if it cannot be read, is not a regular file, or changes meanwhile.
    """
    origin = context.spec.origin_of(key)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise BuildError(f"cannot open {path}: {error.strerror}", origin=origin, reason="source") from error
    try:
        before = os.fstat(fd)
        if not stat.S_ISREG(before.st_mode):
            raise BuildError(f"{path} is not a regular file", origin=origin, reason="source")
        digest, inode = _take_fd(context, fd, before.st_size)
        after = os.fstat(fd)
    except OSError as error:
        raise BuildError(f"cannot read {path}: {error.strerror}", origin=origin, reason="source") from error
    finally:
        os.close(fd)
    if _signature(before) != _signature(after) or inode.size != after.st_size:
        raise BuildError(
            f"{path} changed while it was read",
            resolution="build again when nothing writes to it",
            origin=origin,
            reason="source-changed",
        )
    return digest, inode


def _take_fd(context: NodeContext, fd: int, size: int) -> tuple[bytes, Inode]:
    if size > limits.INLINE_BYTES:
        digest, length = context.sink.add_fd(fd)
        if length > limits.INLINE_BYTES:
            return digest, Inode(mode=stat.S_IFREG, size=length, digest=digest)
        return digest, Inode(mode=stat.S_IFREG, size=length)
    content = os.read(fd, limits.INLINE_BYTES + 1)
    inode = Inode(mode=stat.S_IFREG, size=len(content), content=content)
    return digest_bytes(content, context.sink.algorithm), inode


def _signature(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def produce(context: NodeContext, params: FileParams, fingerprint: Fingerprint) -> Layer:
    """Return the layer with the file."""
    mode = parse_mode(params.mode)
    inode: Inode
    if params.source is not None:
        inode = fingerprint.payload
    elif params.content is None:
        raise BuildError(
            f"{context.spec.name}: template {params.template} was not rendered",
            origin=context.spec.origin_of("template"),
            reason="template",
        )
    else:
        inode = metadata.regular_file(metadata.to_bytes(params.content), context.sink, mode=mode)
    inode = msgspec.structs.replace(inode, mode=stat.S_IFREG | mode, mtime_ns=params.mtime * 10**9)
    return make_layer({metadata.tree_path(params.target): metadata.attributed(inode, params, context.owners)})


KIND = NodeKind(
    name="file",
    version=1,
    summary="One regular file: text in the recipe, a rendered template, or a local file.",
    params=FileParams,
    produce=produce,
    gather=gather,
    check=check,
    owner_names=metadata.owner_names,
    path_keys=("source", "template"),
)
