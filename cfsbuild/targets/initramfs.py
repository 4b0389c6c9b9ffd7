"""The first root file system of a machine: the tree as a cpio archive that Linux unpacks into memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, Literal

import msgspec

from cfsbuild.errors import BuildError
from cfsbuild.targets.kind import OutFile, TargetContext, TargetKind, TargetOutput
from cfsbuild.tree import paths
from cfsbuild.tree.layer import Tree

Compression = Literal["zstd", "gzip", "none"]
Compressor = Callable[[Iterable[bytes]], bytes]

_DEFAULT_LEVELS = {"zstd": 3, "gzip": 6, "none": 0}
_HIGHEST_LEVELS = {"zstd": 19, "gzip": 9, "none": 0}
"""Beyond 19 zstd needs more memory to unpack than Linux gives it."""


class InitramfsParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An initramfs (a cpio archive of the whole tree), written as NAME-VERSION.initrd."""

    compression: Annotated[
        Compression,
        msgspec.Meta(description="How the archive is compressed; the kernel must have been built with it."),
    ] = "zstd"
    level: Annotated[
        Annotated[int, msgspec.Meta(ge=1, le=19)] | None,
        msgspec.Meta(
            description="How hard to compress: 1 to 19 for zstd (default 3), 1 to 9 for gzip (default 6).",
        ),
    ] = None
    xattrs: Annotated[
        Literal["refuse", "drop"],
        msgspec.Meta(description="What to do with extended attributes, which such an archive cannot hold."),
    ] = "refuse"


def emit(context: TargetContext, params: InitramfsParams) -> TargetOutput:
    """Return the archive as a file for the output directory.

    Raises `BuildError` for what the archive or its compression cannot do.
    """
    from cfsbuild.fsverity.digest import digest_bytes  # noqa: PLC0415 (as in the image target)
    from cfsbuild.tree.cpio import write_cpio  # noqa: PLC0415

    compress = _compressor(params)
    if params.xattrs == "refuse":
        _check_xattrs(context.source.tree)
    recipe = context.recipe
    data = compress(write_cpio(context.source.tree, context.sink.read_object, epoch=recipe.epoch))
    file = OutFile(name=f"{recipe.image_name}.initrd", data=data)
    return TargetOutput(digest=digest_bytes(data, context.algorithm).hex(), files=(file,))


def _check_xattrs(tree: Tree) -> None:
    found = next((path for path, inode in tree.entries.items() if inode.xattrs), None)
    if found is not None:
        raise BuildError(
            f"an initramfs cannot hold the extended attributes of {paths.show(found)}",
            resolution='write xattrs = "drop" in the target to leave them out, of this file and all others',
            reason="xattrs",
        )


def _compressor(params: InitramfsParams) -> Compressor:
    """Return the function that compresses what an iterable yields. Raises `BuildError` for a bad level."""
    kind = params.compression
    level = _DEFAULT_LEVELS[kind] if params.level is None else params.level
    if level > _HIGHEST_LEVELS[kind]:
        raise BuildError(
            f"compression {kind!r} has no level {level}",
            resolution=f"give one up to {_HIGHEST_LEVELS[kind]}"
            if _HIGHEST_LEVELS[kind]
            else "leave level out",
            reason="compression-level",
        )
    return {"zstd": _zstd, "gzip": _gzip, "none": _plain}[kind](level)


def _zstd(level: int) -> Compressor:
    import zstandard  # noqa: PLC0415 (a cached target compresses nothing)

    def compress(chunks: Iterable[bytes]) -> bytes:
        # One thread: with more, the bytes would depend on their number.
        stream = zstandard.ZstdCompressor(level=level, write_checksum=True).compressobj()
        return b"".join([*map(stream.compress, chunks), stream.flush()])

    return compress


def _gzip(level: int) -> Compressor:
    import zlib  # noqa: PLC0415 (as above)

    def compress(chunks: Iterable[bytes]) -> bytes:
        # zlib's own gzip header has neither time nor name.
        stream = zlib.compressobj(level, wbits=31)
        return b"".join([*map(stream.compress, chunks), stream.flush()])

    return compress


def _plain(level: int) -> Compressor:
    del level
    return b"".join


KIND = TargetKind(
    name="initramfs",
    version=1,
    summary="An initramfs: the tree as a cpio archive that the kernel unpacks into memory.",
    params=InitramfsParams,
    emit=emit,
)
