"""`cfsbuild import`: an image or a dump from elsewhere into the store."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from cfsbuild.cli import render
from cfsbuild.cli.contents import first_of_each_object, object_name, open_object
from cfsbuild.cli.images import Image, objects_option, open_image
from cfsbuild.cli.output import note, write_json, write_lines
from cfsbuild.cli.settings import Settings, common_options, pass_settings
from cfsbuild.cli.stores import open_store
from cfsbuild.errors import StoreError, UsageError, VerificationError
from cfsbuild.tree import paths
from cfsbuild.tree.dump import DumpEntry

if TYPE_CHECKING:
    from cfsbuild.store.store import Store
    from cfsbuild.store.transaction import Transaction

IMPORT_VERSION = 1
MISSING_SHOWN = 10


class Imported(msgspec.Struct, frozen=True, kw_only=True):
    """What came of an import. `added` and `missing` count objects."""

    version: int = IMPORT_VERSION
    name: str
    digest: str
    objects: int
    added: int
    missing: int


@click.command("import")
@common_options("json", "store")
@click.option("--name", metavar="NAME", help="What to call the image (default: the file's name).")
@objects_option("Take missing objects from DIR (may be repeated).")
@click.option("--allow-missing", is_flag=True, help="Import the image even if objects are missing.")
@click.option(
    "--format", "form", type=click.IntRange(0, 1), default=1, help="Image format to make of a dump."
)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE")
@pass_settings
def command(  # noqa: PLR0913 (one parameter an option)
    settings: Settings,
    file: Path,
    *,
    name: str | None,
    objects: tuple[Path, ...],
    allow_missing: bool,
    form: int,
) -> None:
    """Take FILE, a composefs image or a dump, into the store, and print its digest.

    An image is checked completely first, and stored byte for byte. Its objects must be in the store already,
    or in one of the directories given by --objects.
    """
    if file.suffix == ".toml":
        raise UsageError(f"{file} is a recipe", resolution=f"cfsbuild build {file}")
    opened = open_image(settings, str(file))
    reference = name or file.stem
    with open_store(settings, read_only=False) as store:
        before = store.resolve(reference)
        data = _image_bytes(store, opened, form)
        needed = first_of_each_object(opened.listing())
        with store.transaction() as transaction:
            added, missing = _take_objects(transaction, needed, objects)
            if missing and not allow_missing:
                raise _missing(opened, missing, file.parent / "objects")
            digest = transaction.put_image(data, list(needed))
            transaction.set_ref(reference, digest)
            transaction.commit()
    if before is not None and before != digest:
        note(settings, f"note: {reference} stood for another image, {before.hex()}")
    result = Imported(
        name=reference, digest=digest.hex(), objects=len(needed), added=added, missing=len(missing)
    )
    if settings.json:
        write_json(result)
        return
    counts = f"{render.count(len(needed), 'object')}, {added:,} new, {len(missing):,} missing"
    note(settings, f"{reference}: {counts}")
    write_lines([result.digest])


def _image_bytes(store: Store, opened: Image, form: int) -> bytes:
    """Return the image to store: the file as it is, or what its dump describes."""
    if opened.kind == "dump":
        from cfsbuild.erofs.writer import write_image  # noqa: PLC0415 (dumps only)

        return bytes(write_image(opened.entries(), format=form, algorithm=store.algorithm))
    from cfsbuild.erofs.verify import verify_image  # noqa: PLC0415 (images only)
    from cfsbuild.store.meta import check_algorithm  # noqa: PLC0415

    try:
        verify_image(opened.data)
    except VerificationError as error:
        error.brief = f"{opened.name}: {error.brief}"
        raise
    if any(entry.digest is not None for entry in opened.entries()):
        check_algorithm(store.algorithm, opened.read().algorithm, str(store.path))
    return opened.data


def _take_objects(
    transaction: Transaction, needed: dict[bytes, DumpEntry], directories: tuple[Path, ...]
) -> tuple[int, list[DumpEntry]]:
    """Add what the store lacks; return how many were added, and the entries of those that are nowhere."""
    added = 0
    missing = []
    for digest, entry in needed.items():
        if transaction.known(digest, entry.size):
            continue
        try:
            fd = open_object(directories, entry)
        except StoreError:
            missing.append(entry)
            continue
        try:
            found, _ = transaction.add_fd(fd)
        finally:
            os.close(fd)
        if found != digest:
            raise VerificationError(
                f"the content of {paths.show(entry.path)} is damaged",
                details=f"object {object_name(digest)} has the digest {found.hex()}",
                reason="object-damaged",
            )
        added += 1
    return added, missing


def _missing(opened: Image, missing: list[DumpEntry], beside: Path) -> StoreError:
    shown = [f"{object_name(e.digest or b'')}  {paths.show(e.path)}" for e in missing[:MISSING_SHOWN]]
    more = [f"… and {len(missing) - MISSING_SHOWN:,} more"] if len(missing) > MISSING_SHOWN else []
    return StoreError(
        f"{render.count(len(missing), 'object')} of {opened.name} are not in the store"
        if len(missing) > 1
        else f"an object of {opened.name} is not in the store",
        details="\n".join(shown + more),
        resolution=f"take them from beside it: --objects {beside}"
        if beside.is_dir()
        else "name directories that have them with --objects, or pass --allow-missing",
        reason="object-missing",
    )
