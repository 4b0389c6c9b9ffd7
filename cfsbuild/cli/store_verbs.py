"""`cfsbuild store`: make, describe, check, clean and seal the object store."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from cfsbuild.cli import store_text
from cfsbuild.cli.completing import complete_reference
from cfsbuild.cli.listeners import listening
from cfsbuild.cli.output import note, write_json, write_lines
from cfsbuild.cli.settings import Settings, common_options, pass_settings
from cfsbuild.cli.stores import open_store
from cfsbuild.errors import Problem, UsageError, VerificationError
from cfsbuild.fsverity.algorithm import Algorithm

if TYPE_CHECKING:
    from cfsbuild.store.findings import Finding
    from cfsbuild.store.store import Store

IMAGES_VERSION = 1
_DURATION_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


class Duration(click.ParamType[float]):
    """A number of seconds, or of the unit that follows it: `s`, `m`, `h`, `d` or `w`."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return seconds."""
        text = str(value)
        number, unit = (text[:-1], text[-1]) if text[-1:] in _DURATION_UNITS else (text, "s")
        if not (number.isascii() and number.isdigit() and len(number) <= 9):
            self.fail(f"{text!r} is no duration; write for example 90s, 10m, 12h, 30d or 4w", param, ctx)
        return float(int(number) * _DURATION_UNITS[unit])


class Initialised(msgspec.Struct, frozen=True, kw_only=True):
    """The store that `store init` made or found."""

    version: int = 1
    path: str
    algorithm: str
    verity: bool
    verity_reason: str


class StoredImage(msgspec.Struct, frozen=True):
    """One line of `store info --images`. `name` is empty for an image that no reference names."""

    name: str
    digest: str


class RemovedNames(msgspec.Struct, frozen=True, kw_only=True):
    """What `store rm` removed. `unnamed` are the digests of images that have no name now."""

    version: int = 1
    dry_run: bool
    removed: list[StoredImage]
    unnamed: list[str]


class DamagedStoreError(VerificationError):
    """fsck found damage that is not mended. The report itself stands on standard output."""

    def __init__(self, store: Path, damage: list[Finding], *, repairing: bool) -> None:
        resolution = (
            "build the images again, or name a store that has the objects: --from DIR"
            if repairing
            else "mend it: cfsbuild store fsck --repair, if possible with --from another store"
        )
        noun = "thing is" if len(damage) == 1 else "things are"
        super().__init__(
            f"{len(damage)} {noun} damaged in store {store}", resolution=resolution, reason="store-damaged"
        )
        self._resolution = resolution

    def problems(self) -> tuple[Problem, ...]:
        """Return one problem: the findings were written out already."""
        return (Problem(self.brief, resolution=self._resolution),)


@click.group("store")
def command() -> None:
    """Make, inspect, check and clean the object store."""


@command.command("init")
@common_options("json", "store")
@click.option(
    "--digest",
    type=click.Choice([algorithm.value for algorithm in Algorithm]),
    default=Algorithm.SHA256.value,
    show_default=True,
    help="The digest that names objects; it cannot be changed later.",
)
@click.option("--shared", is_flag=True, help="Make directories as the umask says, instead of mode 0700.")
@click.argument("directory", required=False, type=click.Path(path_type=Path), metavar="[DIR]")
@pass_settings
def init(settings: Settings, *, directory: Path | None, digest: str, shared: bool) -> None:
    """Make a store at DIR (default: where the configuration says).

    A store that is there stays as it is.
    """
    from cfsbuild.store.store import Store  # noqa: PLC0415 (help needs no store)

    path = (directory or settings.store_path).absolute()
    with Store.init(path, Algorithm(digest), shared=shared or settings.shared_store) as store:
        made = Initialised(
            path=str(path),
            algorithm=store.algorithm.value,
            verity=store.requires_verity,
            verity_reason=store.no_verity_reason,
        )
    if settings.json:
        write_json(made)
        return
    write_lines([str(path)])
    if not made.verity:
        note(settings, f"fs-verity is not enforced: {made.verity_reason}")


@command.command("info")
@common_options("json", "store")
@click.option("--images", "only_images", is_flag=True, help="List digest and name of every image instead.")
@pass_settings
def info(settings: Settings, *, only_images: bool) -> None:
    """Say what is in the store, how much images share, whether the kernel enforces content.

    An image with several names is listed once for each; one without a name stays until gc removes it.
    """
    from cfsbuild.store.info import store_info  # noqa: PLC0415 (help needs no store)

    if only_images:
        with open_store(settings) as store:
            listed = _images(store)
        if settings.json:
            write_json({"version": IMAGES_VERSION, "images": listed})
        else:
            write_lines(f"{image.digest}  {image.name or '-'}" for image in listed)
        return
    with open_store(settings, read_only=False) as store:
        facts = store_info(store)
    if settings.json:
        write_json(facts)
    else:
        write_lines(store_text.info_lines(facts))


def _images(store: Store) -> list[StoredImage]:
    """Return images by name, then those without one by digest."""
    names = sorted(store.refs().items())
    named = {digest for _, digest in names}
    return [StoredImage(name, digest.hex()) for name, digest in names] + [
        StoredImage("", digest.hex()) for digest in store.images() if digest not in named
    ]


@command.command("fsck")
@common_options("json", "store", "jobs", "progress")
@click.option("--repair", is_flag=True, help="Mend what can be mended; nothing is deleted.")
@click.option(
    "--from",
    "sources",
    metavar="DIR",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Take replacements from the store DIR (may be repeated; with --repair).",
)
@pass_settings
def fsck(settings: Settings, *, repair: bool, sources: tuple[Path, ...]) -> None:
    """Hash every object and check every document, link and name. Exit status 5 if damage is left.

    With --repair, damaged and missing objects come from the stores given with --from, verified before
    anything is replaced; what cannot be replaced moves to cfsbuild/trash/quarantine-… in the store.
    """
    from cfsbuild.store.fsck import check_store, repair_store  # noqa: PLC0415 (help needs no store)

    if sources and not repair:
        raise click.UsageError("--from needs --repair")
    with (
        open_store(settings, read_only=False) as store,
        _opened(sources) as others,
        listening(settings) as listener,
    ):
        if repair:
            report = repair_store(store, sources=others, threads=settings.job_count, listener=listener)
        else:
            report = check_store(store, threads=settings.job_count, listener=listener)
    if settings.json:
        write_json(report)
    else:
        write_lines(store_text.fsck_lines(report))
    damage = [finding for finding in report.findings if finding.damage and not finding.repaired]
    if damage:
        raise DamagedStoreError(store.path, damage, repairing=repair)


@contextlib.contextmanager
def _opened(paths: tuple[Path, ...]) -> Iterator[list[Store]]:
    """Yield the stores at `paths`, open for reading."""
    from cfsbuild.store.store import Store  # noqa: PLC0415 (help needs no store)

    with contextlib.ExitStack() as stack:
        # Whoever can write there changes nothing here: what is read is verified.
        yield [stack.enter_context(Store.open(path, read_only=True, shared=True)) for path in paths]


@command.command("rm")
@common_options("json", "store", "dry_run", "quiet")
@click.argument("names", metavar="NAME...", nargs=-1, required=True, shell_complete=complete_reference)
@pass_settings
def rm(settings: Settings, *, names: tuple[str, ...]) -> None:
    """Remove the names of images from the store: all of them, or none if one does not exist.

    Writes digest and NAME of each. Images and their contents stay until `store gc` finds them unused.
    """
    with open_store(settings, read_only=settings.dry_run) as store:
        named = {name: store.resolve(name) for name in names}
        unknown = [name for name, digest in named.items() if digest is None]
        if unknown:
            raise _no_references(store, unknown)
        removed = [
            StoredImage(name, digest.hex())
            for name, digest in named.items()
            if digest is not None and (settings.dry_run or store.remove_ref(name))
        ]
        stay = {digest.hex() for name, digest in store.refs().items() if name not in named}
    unnamed = sorted({image.digest for image in removed} - stay)
    if settings.json:
        write_json(RemovedNames(dry_run=settings.dry_run, removed=removed, unnamed=unnamed))
        return
    write_lines(f"{image.digest}  {image.name}" for image in removed)
    if unnamed and not settings.dry_run:
        noun = "image has" if len(unnamed) == 1 else "images have"
        note(
            settings,
            f"{len(unnamed)} {noun} no name now: `cfsbuild store gc` frees what nothing else needs, "
            "once it is older than --keep-age",
        )


def _no_references(store: Store, names: list[str]) -> UsageError:
    from cfsbuild.recipe.problems import suggestion  # noqa: PLC0415 (only to complain)

    known = store.refs()
    hints = [suggestion(name, known, what="names of images") for name in names]
    several = "\n".join(f"{name}: {hint}" for name, hint in zip(names, hints, strict=True))
    return UsageError(
        f"there is no name {', '.join(names)} in the store {store.path}: nothing was removed",
        details=several if len(names) > 1 else "",
        resolution=hints[0] if len(names) == 1 else "",
        reason="no-image",
    )


@command.command("gc")
@common_options("json", "store", "dry_run", "verbose", "progress")
@click.option(
    "--grace",
    type=Duration(),
    default="10m",
    show_default=True,
    help="How long removed objects stay in the trash, from where a build takes them back.",
)
@click.option(
    "--keep-age",
    type=Duration(),
    default="30d",
    show_default=True,
    help="How long node results and unnamed images live after their last use.",
)
@click.option(
    "--wait", type=Duration(), default="60s", show_default=True, help="How long to wait for builds."
)
@pass_settings
def gc(settings: Settings, *, grace: float, keep_age: float, wait: float) -> None:
    """Remove what no reference, lease or recent build needs.

    With -n only say what would go, and why the rest stays.
    """
    from cfsbuild.store.gc import collect  # noqa: PLC0415 (help needs no store)

    with open_store(settings, read_only=settings.dry_run) as store, listening(settings) as listener:
        report = collect(
            store,
            dry_run=settings.dry_run,
            grace=grace,
            keep_age=keep_age,
            wait=wait,
            listener=listener,
        )
    if settings.json:
        write_json(report)
    else:
        write_lines(store_text.gc_lines(report, verbose=settings.verbose > 0))
    if report.foreign:
        note(settings, "composefs-rs keeps streams in this store: objects are left to `cfsctl gc`")


@command.command("enable-verity")
@common_options("json", "store", "progress")
@pass_settings
def enable_verity(settings: Settings) -> None:
    """Turn fs-verity on for every object, and promise it for new ones.

    Exit status 5 if objects are damaged.
    """
    from cfsbuild.store.enforce import enable_all  # noqa: PLC0415 (help needs no store)

    with open_store(settings, read_only=False) as store, listening(settings) as listener:
        report = enable_all(store, listener=listener)
    if settings.json:
        write_json(report)
    else:
        write_lines([f"fs-verity is enabled for {report.objects} objects"])
    if report.damaged:
        raise VerificationError(
            f"{len(report.damaged)} objects are damaged, so fs-verity is not promised for the store",
            details="\n".join(report.damaged),
            resolution="run cfsbuild store fsck --repair, then this again",
            reason="store-damaged",
        )
