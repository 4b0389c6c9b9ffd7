"""The kind `archive`: a tar archive, compressed or not, read as a stream and never unpacked to disk."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from cfsbuild import limits
from cfsbuild.errors import BuildError, InputError, Problem, VerificationError
from cfsbuild.events import Progress
from cfsbuild.fsverity.digest import Hasher
from cfsbuild.nodes import metadata
from cfsbuild.nodes.decompress import decompressed, detect
from cfsbuild.nodes.kind import Fingerprint, NodeContext, NodeKind
from cfsbuild.nodes.tar import faults, members
from cfsbuild.nodes.tar.contents import Contents
from cfsbuild.nodes.tar.members import Member, TarReader
from cfsbuild.nodes.tar.model import TreeModel, make_inode, normal_name
from cfsbuild.nodes.tar.selection import Selection
from cfsbuild.nodes.tar.stream import ByteStream
from cfsbuild.recipe.model import NodeSpec
from cfsbuild.recipe.types import Glob, LocalPath, Owner, TreePath
from cfsbuild.tree import paths
from cfsbuild.tree.layer import Layer

_READ = 1 << 20
_PROGRESS_STEP = 16 << 20
_COMPRESSIONS = {"tar": "none", "tar.gz": "gzip", "tar.bz2": "bzip2", "tar.xz": "xz", "tar.zst": "zstd"}

Format = Literal["auto", "tar", "tar.gz", "tar.bz2", "tar.xz", "tar.zst"]


class ArchiveParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The members of a tar archive, with their owners, modes, times and extended attributes."""

    source: Annotated[LocalPath, msgspec.Meta(description="The archive: a local file.")]
    target: Annotated[
        TreePath, msgspec.Meta(description="The directory that the archive's root becomes.")
    ] = "/"
    format: Annotated[
        Format, msgspec.Meta(description="How the archive is compressed; `auto` looks at its first bytes.")
    ] = "auto"
    sha256: (
        Annotated[
            str,
            msgspec.Meta(
                description="What the archive file's SHA-256 must be, in hexadecimal.",
                pattern="^[0-9a-fA-F]{64}$",
            ),
        ]
        | None
    ) = None
    strip_components: Annotated[
        int,
        msgspec.Meta(description="Leading components to drop from every name.", ge=0, le=limits.PATH_DEPTH),
    ] = 0
    include: Annotated[
        tuple[Glob, ...],
        msgspec.Meta(description="Take only these names and what is below them; without it, everything."),
    ] = ()
    exclude: Annotated[
        tuple[Glob, ...], msgspec.Meta(description="Leave out these names and what is below them.")
    ] = ()
    owner: Annotated[
        Owner | None, msgspec.Meta(description="Owner of everything, instead of the members'.")
    ] = None
    group: Annotated[
        Owner | None, msgspec.Meta(description="Group of everything, instead of the members'.")
    ] = None


class _Source:
    """The archive file: read once, in order, and hashed on the way."""

    def __init__(self, path: Path, fd: int, context: NodeContext) -> None:
        self._path = path
        self._fd = fd
        self._context = context
        self._hasher = Hasher(context.sink.algorithm)
        self._head: bytes | None = None
        self._reported = 0
        self.size = os.fstat(fd).st_size

    def head(self) -> bytes:
        """Return the first bytes, which `read` gives again."""
        if self._head is None:
            self._head = self._next(512)
        return self._head

    def read(self, size: int) -> bytes:
        """Return at least one and at most `size` bytes; nothing at the end."""
        if self._head:
            data, self._head = self._head[:size], self._head[size:]
            return data
        return self._next(size)

    def _next(self, size: int) -> bytes:
        try:
            data = os.read(self._fd, size)
        except OSError as error:
            raise _unreadable(self._context.spec, self._path, error) from error
        self._hasher.update(data)
        done = self._hasher.size
        if done - self._reported >= _PROGRESS_STEP:
            self._reported = done
            self._context.listener(
                Progress(job=self._context.spec.name, unit="bytes", done=done, total=self.size)
            )
        return data

    def digest(self) -> str:
        """Return the fs-verity digest of the whole file, in hex; reads what is left."""
        while self._next(_READ):
            pass
        return self._hasher.digest().hex()


def check(spec: NodeSpec) -> Iterator[Problem]:
    """Find a missing source."""
    params: ArchiveParams = spec.params
    path = spec.resolve("source", params.source)
    origin = spec.origin_of("source")
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        yield Problem(f"{spec.name}: cannot read {path}: {why}", "", "", origin)
        return
    if not stat.S_ISREG(mode):
        resolution = 'use kind = "tree"' if stat.S_ISDIR(mode) else ""
        yield Problem(f"{spec.name}: {path} is not a regular file", "", resolution, origin)


def gather(context: NodeContext, params: ArchiveParams) -> Fingerprint:
    """Hash the archive file; compare it with `sha256`. Raises `VerificationError` if it is another file."""
    path, fd = _open(context.spec, params)
    try:
        digest = _digests(context, fd, path, params.sha256)
    except OSError as error:
        raise _unreadable(context.spec, path, error) from error
    finally:
        os.close(fd)
    return Fingerprint(digests={"source": digest})


def _digests(context: NodeContext, fd: int, path: Path, expected: str | None) -> str:
    hasher = Hasher(context.sink.algorithm)
    if expected is None:
        while data := os.read(fd, _READ):
            hasher.update(data)
        return hasher.digest().hex()
    import hashlib  # noqa: PLC0415 (only when asked for)

    sha256 = hashlib.sha256()
    while data := os.read(fd, _READ):
        hasher.update(data)
        sha256.update(data)
    if sha256.hexdigest() != expected.lower():
        raise VerificationError(
            f"{path} is not the archive that the recipe expects",
            details=f"sha256 expected: {expected.lower()}\nsha256 found:    {sha256.hexdigest()}",
            resolution="Fetch the archive again; if it was meant to change, change sha256 in the recipe.",
            origin=context.spec.origin_of("sha256"),
            reason=faults.DIGEST_MISMATCH,
        )
    return hasher.digest().hex()


def produce(context: NodeContext, params: ArchiveParams, fingerprint: Fingerprint) -> Layer:
    """Read the archive as a stream; contents go to the sink, everything else into the layer."""
    path, fd = _open(context.spec, params)
    try:
        source = _Source(path, fd, context)
        layer = _read(context, params, source)
        digest = source.digest()
    except InputError as error:
        error.details = "\n".join(filter(None, (f"In {path}.", error.details)))
        error.origin = error.origin or context.spec.origin_of("source")
        raise
    finally:
        os.close(fd)
    if digest != fingerprint.digests.get("source"):
        raise BuildError(
            f"source changed while building: {path}",
            resolution="Build again when nothing writes to the archive.",
            origin=context.spec.origin_of("source"),
            reason="source-changed",
        )
    return layer


def _open(spec: NodeSpec, params: ArchiveParams) -> tuple[Path, int]:
    """Return path and descriptor of the archive. Raises `BuildError`."""
    path = spec.resolve("source", params.source)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise _unreadable(spec, path, error) from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise BuildError(f"{path} is not a regular file", origin=spec.origin_of("source"), reason="source")
    return path, fd


def _unreadable(spec: NodeSpec, path: Path, error: OSError) -> BuildError:
    return BuildError(
        f"cannot read {path}: {error.strerror}", origin=spec.origin_of("source"), reason="source"
    )


def _read(context: NodeContext, params: ArchiveParams, source: _Source) -> Layer:
    """Return the layer that the archive describes."""
    compression = detect(source.head()) if params.format == "auto" else _COMPRESSIONS[params.format]
    reader = TarReader(ByteStream(decompressed(source.read, compression)))
    allowance = limits.EXPANSION_FREE_BYTES + limits.EXPANSION_RATIO * source.size
    contents = Contents(reader, context.sink, sparse_budget=min(limits.INPUT_BYTES, allowance))
    selection = Selection(strip=params.strip_components, include=params.include, exclude=params.exclude)
    model = TreeModel()
    owner = _Ownership(context, params)
    text_acls = 0
    for member in reader:
        name = normal_name(member.name)
        path = selection.rename(name)
        if path is None or selection.excludes(path):
            continue
        included = selection.includes(path)
        if not included and member.type != members.DIRECTORY:
            continue
        text_acls += member.has_text_acl
        if member.type == members.HARD_LINK:
            model.link(path, _link_target(member, selection))
            continue
        digest = content = b""
        if member.type == members.REGULAR and member.size:
            digest, content = contents.take(member)
        model.add(path, make_inode(owner(member), digest=digest, content=content), included=included)
    if text_acls:
        context.note(f"POSIX ACLs of {text_acls} archive members are in text form, which is not read")
    return model.layer(metadata.tree_path(params.target))


def _link_target(member: Member, selection: Selection) -> bytes:
    """Return the path of the name that a hard link points to."""
    target = selection.rename(normal_name(member.link))
    if target is None:
        raise faults.refused(
            faults.LINK,
            f"hard link {paths.show(member.name)!r} points to {paths.show(member.link)!r}, "
            "of which strip_components leaves nothing",
            resolution="Lower strip_components, or exclude the link.",
        )
    return target


class _Ownership:
    """Replaces owner and group of members if the recipe says so."""

    def __init__(self, context: NodeContext, params: ArchiveParams) -> None:
        self._uid = None if params.owner is None else metadata.user_id(params.owner, context.owners)
        self._gid = None if params.group is None else metadata.group_id(params.group, context.owners)

    def __call__(self, member: Member) -> Member:
        if self._uid is None and self._gid is None:
            return member
        return msgspec.structs.replace(
            member,
            uid=member.uid if self._uid is None else self._uid,
            gid=member.gid if self._gid is None else self._gid,
        )


KIND = NodeKind(
    name="archive",
    version=1,
    summary="The members of a tar archive: gzip, bzip2, xz and zstd, streamed, hostile until proven good.",
    params=ArchiveParams,
    produce=produce,
    gather=gather,
    check=check,
    owner_names=metadata.owner_names,
    path_keys=("source",),
    static=False,
)
