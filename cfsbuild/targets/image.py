"""The composefs image: in the store under a reference, and as a file with its dump and manifest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from io import BytesIO
from typing import TYPE_CHECKING, Annotated

import msgspec

from cfsbuild.begun import Begun
from cfsbuild.targets.kind import OutFile, PatchContext, TargetContext, TargetKind, TargetOutput
from cfsbuild.tree.inode import IMPLICIT_DIRECTORY, Inode
from cfsbuild.tree.layer import Tree, objects_of
from cfsbuild.tree.patching import replace_each
from cfsbuild.tree.paths import ROOT

if TYPE_CHECKING:
    from cfsbuild.tree.dump import DumpEntry


class ImageParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A composefs image (an EROFS file with the metadata of the whole tree)."""

    dump: Annotated[
        bool,
        msgspec.Meta(description="Whether to write NAME-VERSION.dump, the image as composefs-dump(5) text."),
    ] = True
    manifest: Annotated[
        bool,
        msgspec.Meta(description="Whether to write NAME-VERSION.manifest.json, the node of each path."),
    ] = True


def emit(context: TargetContext, params: ImageParams) -> TargetOutput:
    """Put the image into the store and return the files for the output directory."""
    from cfsbuild.erofs.writer import write_image  # noqa: PLC0415 (a cached image is not written)
    from cfsbuild.tree.flavour import to_dump  # noqa: PLC0415

    recipe = context.recipe
    name = recipe.image_name
    tree = context.source.tree
    entries: Iterable[DumpEntry] = to_dump(tree, epoch=recipe.epoch)
    lines = BytesIO()
    if params.dump:
        from cfsbuild.tree.dump import formatting  # noqa: PLC0415

        entries = formatting(entries, lines.write)
    image = write_image(entries, format=recipe.format, algorithm=context.algorithm)
    raw = context.sink.put_image(image, objects_of(tree.entries))
    del image
    context.sink.set_ref(name, raw)
    digest = raw.hex()
    files = [OutFile(name=f"{name}.cfs", image=digest)]
    if params.dump:
        files.append(OutFile(name=f"{name}.dump", data=lines.getvalue()))
    if params.manifest:
        from cfsbuild.targets.manifest import encode_manifest, make_manifest  # noqa: PLC0415

        manifest = make_manifest(name, digest, context.source)
        files.append(OutFile(name=f"{name}.manifest.json", data=encode_manifest(manifest)))
    return TargetOutput(digest=digest, reference=name, files=tuple(files))


def patch(context: PatchContext, params: ImageParams) -> TargetOutput | None:
    """Do what `emit` does, with the image, dump and manifest of last time, some files in them replaced."""
    recipe = context.recipe
    entries = [
        (_entry(change.path, change.old, recipe.epoch), _entry(change.path, change.new, recipe.epoch))
        for change in context.changes
    ]
    # Most of the time goes into the image, the rest into its dump.
    image = Begun(partial(_put_patched, context, entries), name="image")
    try:
        dump = _patched_dump(context, entries) if params.dump else bytearray()
        manifest = _written(context, ".manifest.json") if params.manifest else bytearray()
    finally:
        image.settle()
    patched, raw = image.result()
    if dump is None or manifest is None:
        return None
    if not patched and params.dump:
        raw = _put_rewritten(context, dump)
    if raw is None:
        return None
    if params.manifest and not replace_each(manifest, [(_named(context.base), _named(raw))]):
        return None
    name = recipe.image_name
    files = [OutFile(name=f"{name}.cfs", image=raw.hex())]
    if params.dump:
        files.append(OutFile(name=f"{name}.dump", data=dump))
    if params.manifest:
        files.append(OutFile(name=f"{name}.manifest.json", data=manifest))
    context.sink.set_ref(name, raw)
    return TargetOutput(digest=raw.hex(), reference=name, files=tuple(files))


def _patched_dump(context: PatchContext, entries: Sequence[tuple[DumpEntry, DumpEntry]]) -> bytearray | None:
    dump = _written(context, ".dump")
    lines = [(_line(old), _line(new)) for old, new in entries]
    return dump if dump is not None and replace_each(dump, lines, shared=1) else None


def _put_patched(
    context: PatchContext, entries: Sequence[tuple[DumpEntry, DumpEntry]]
) -> tuple[bool, bytes | None]:
    """Patch the last image and store it; return whether it could be patched, and its raw digest if stored."""
    from cfsbuild.erofs.patching import patch_image  # noqa: PLC0415 (a cached image is not written)

    image = context.image()
    if image is None or not patch_image(image, entries, algorithm=context.algorithm):
        return False, None
    # What was patched had the only inodes with the old contents.
    return True, context.sink.put_image_like(context.base, image, *_added_and_gone(context))


def _put_rewritten(context: PatchContext, dump: bytearray) -> bytes | None:
    """Store the image that the dump describes; return its raw digest, None where that cannot be done."""
    from cfsbuild.erofs.writer import write_dump  # noqa: PLC0415 (as above)

    image = write_dump(BytesIO(dump), format=context.recipe.format, algorithm=context.algorithm)
    added, gone = _added_and_gone(context)
    gone = {digest for digest in gone if digest.hex().encode() not in dump}
    return context.sink.put_image_like(context.base, image, added, gone)


def _added_and_gone(context: PatchContext) -> tuple[set[bytes], set[bytes]]:
    """Return the objects that the changed files have now, and those that only they had if nobody else did."""
    added = {change.new.digest for change in context.changes if change.new.digest}
    return added, {change.old.digest for change in context.changes if change.old.digest} - added


def _written(context: PatchContext, suffix: str) -> bytearray | None:
    return context.written(f"{context.recipe.image_name}{suffix}")


def _line(entry: DumpEntry) -> bytes:
    """Return an entry's line between the newlines around it."""
    from cfsbuild.tree.dump import format_entry  # noqa: PLC0415 (as above)

    return b"\n%b\n" % format_entry(entry)


def _entry(path: bytes, inode: Inode, epoch: int) -> DumpEntry:
    """Return the entry of a regular file with one name."""
    from cfsbuild.tree.flavour import to_dump  # noqa: PLC0415 (as above)

    above = [path[:end] for end, byte in enumerate(path) if byte == ord("/") and end]
    entries = dict.fromkeys([ROOT, *above], IMPLICIT_DIRECTORY) | {path: inode}
    *_, entry = to_dump(Tree(entries=entries), epoch=epoch)
    return entry


def _named(digest: bytes) -> bytes:
    return b'"digest":"%b"' % digest.hex().encode()


KIND = TargetKind(
    name="image",
    version=2,
    summary="A composefs image in the store, and as a file.",
    params=ImageParams,
    emit=emit,
    patch=patch,
)
