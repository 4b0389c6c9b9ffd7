"""The composefs image: in the store under a reference, and as a file with its dump and manifest."""

from __future__ import annotations

from typing import Annotated

import msgspec

from cfsbuild.targets.kind import OutFile, TargetContext, TargetKind, TargetOutput


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
    entries = list(to_dump(tree, epoch=recipe.epoch))
    image = write_image(entries, format=recipe.format, algorithm=context.algorithm)
    raw = context.sink.put_image(image, {inode.digest for inode in tree.entries.values() if inode.digest})
    context.sink.set_ref(name, raw)
    digest = raw.hex()
    files = [OutFile(name=f"{name}.cfs", image=digest)]
    if params.dump:
        from cfsbuild.tree.dump import format_entries  # noqa: PLC0415

        files.append(OutFile(name=f"{name}.dump", data=format_entries(entries)))
    if params.manifest:
        from cfsbuild.targets.manifest import encode_manifest, make_manifest  # noqa: PLC0415

        manifest = make_manifest(name, digest, context.source)
        files.append(OutFile(name=f"{name}.manifest.json", data=encode_manifest(manifest)))
    return TargetOutput(digest=digest, reference=name, files=tuple(files))


KIND = TargetKind(
    name="image",
    version=1,
    summary="A composefs image in the store, and as a file.",
    params=ImageParams,
    emit=emit,
)
