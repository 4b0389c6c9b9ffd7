"""`cfsbuild verify`: an image's structure, its digest, and every object that it names."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec

from cfsbuild.cli import render
from cfsbuild.cli.contents import object_directories, object_name
from cfsbuild.cli.images import (
    Image,
    check_image_digest,
    image_argument,
    image_digest,
    objects_option,
    open_image,
)
from cfsbuild.cli.output import write_json, write_lines
from cfsbuild.cli.settings import Settings, common_options, pass_settings
from cfsbuild.cli.signatures import Trust, check_signatures, check_trust
from cfsbuild.cli.verify_bundle import is_bundle, verify_bundle_file
from cfsbuild.errors import InputError, Problem, UsageError, VerificationError
from cfsbuild.fsverity.algorithm import Algorithm, algorithm_of_digest
from cfsbuild.tree import paths
from cfsbuild.tree.dump import DumpEntry

VERIFICATION_VERSION = 1


class Fault(msgspec.Struct, frozen=True):
    """One thing that is wrong. `reason` is a stable word (`docs/cli.md`, "verify")."""

    reason: str
    brief: str
    details: str = ""
    resolution: str = ""


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """What was checked, and what is wrong. `bytes` counts what was read; `signers` are ids of keys.

    `fsverity_signer` is the id of the certificate's key whose PKCS#7 signature is good.
    """

    version: int = VERIFICATION_VERSION
    image: str
    digest: str
    ok: bool
    objects: int = 0
    bytes: int = 0
    undigested: int = 0
    signers: list[str] = []
    signed_name: str = ""
    signed_version: str = ""
    fsverity_signer: str = ""
    faults: list[Fault] = []


class NotVerifiedError(VerificationError):
    """Carries every fault that was found."""

    def __init__(self, faults: list[Fault]) -> None:
        first = faults[0]
        super().__init__(first.brief, details=first.details, resolution=first.resolution, reason=first.reason)
        self._faults = faults

    def problems(self) -> tuple[Problem, ...]:
        """Return all faults."""
        return tuple(Problem(fault.brief, fault.details, fault.resolution) for fault in self._faults)


@click.command("verify")
@common_options("json", "store", "jobs")
@click.option("--digest", metavar="HEX", help="The digest that the image must have.")
@click.option("--structure", "only_structure", is_flag=True, help="Do not look at the objects.")
@objects_option("Also look for objects in DIR (may be repeated).")
@click.option(
    "--key",
    "keys",
    metavar="PUB",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Also check that the owner of the public key in PUB signed it (may be repeated).",
)
@click.option(
    "--threshold", metavar="N", type=click.IntRange(min=1), help="How many of the keys must have signed [1]."
)
@click.option(
    "--signature",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The signature file [IMAGE.dsse].",
)
@click.option(
    "--revoked",
    metavar="KEY",
    multiple=True,
    help="A key that must not count: a public key file or an id (may be repeated).",
)
@click.option(
    "--fsverity-certificate",
    "certificate",
    metavar="CERT",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Also check the PKCS#7 fs-verity signature by the key of the certificate in CERT.",
)
@click.option(
    "--fsverity-signature",
    "certified_file",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The PKCS#7 signature file [IMAGE.p7s].",
)
@click.option("--name", help="What the image must be called in the signature.")
@click.option("--image-version", metavar="TEXT", help="The version that the signature must name.")
@image_argument()
@pass_settings
def command(  # noqa: PLR0913 (one parameter an option)
    settings: Settings,
    image: str,
    *,
    digest: str | None,
    only_structure: bool,
    objects: tuple[Path, ...],
    keys: tuple[Path, ...],
    threshold: int | None,
    signature: Path | None,
    revoked: tuple[str, ...],
    certificate: Path | None,
    certified_file: Path | None,
    name: str | None,
    image_version: str | None,
) -> int:
    """Check that IMAGE is well-formed, has the right digest, and that every object it names is intact.

    Reads every byte. Exit status 5 if anything is wrong; every fault is listed. IMAGE can also be a signed
    mount bundle: then its signatures are checked, and what it says is shown.
    """
    trust = Trust(
        keys=keys,
        threshold=threshold,
        file=signature,
        name=name,
        version=image_version,
        certificate=certificate,
        certified_file=certified_file,
        revoked=revoked,
    )
    check_trust(trust)
    if is_bundle(Path(image)):
        if digest is not None or only_structure or objects:
            raise UsageError(
                "a bundle is no image: neither image nor objects are looked at",
                details="--digest, --structure and --objects are about images",
                reason="usage",
            )
        return verify_bundle_file(settings, Path(image), trust)
    directories = None if only_structure else object_directories(settings, objects)
    result = _verify(settings, image, digest or "", directories, trust)
    if settings.json:
        write_json(result)
        return 0 if result.ok else VerificationError.exit_code
    if result.faults:
        raise NotVerifiedError(result.faults)
    if not settings.quiet:
        write_lines(_lines(result, only_structure=only_structure))
    return 0


def _verify(
    settings: Settings, text: str, digest: str, directories: tuple[Path, ...] | None, trust: Trust
) -> Verification:
    """Return what was found; without `directories` no object is looked at."""
    image = _open(settings, text)
    if isinstance(image, Fault):
        return Verification(image=text, digest="", ok=False, faults=[image])
    actual, faults = _check_image(image, (digest or image.expected).lower())
    if faults:
        return Verification(image=image.name, digest=actual, ok=False, faults=faults)
    signers, wrong = check_signatures(image, trust)
    faults = [Fault(error.reason, error.brief, error.details, error.resolution) for error in wrong]
    found, undigested = _named_objects(image)
    total = 0
    if directories is None:
        found = {}
    elif found:
        checked, total = _object_faults(directories, found, settings.job_count)
        faults += checked
    return Verification(
        image=image.name,
        digest=actual,
        ok=not faults,
        objects=len(found),
        bytes=total,
        undigested=undigested,
        signers=signers.keys,
        signed_name=signers.name,
        signed_version=signers.version,
        fsverity_signer=signers.certified,
        faults=faults,
    )


def _open(settings: Settings, image: str) -> Image | Fault:
    """Return the image, or what is wrong with it if it is so wrong that it cannot be opened."""
    try:
        return open_image(settings, image)
    except (VerificationError, InputError) as error:
        return Fault(error.reason or "structure", error.brief, error.details, error.resolution)


def _check_image(image: Image, wanted: str) -> tuple[str, list[Fault]]:
    """Return the digest of the image file (empty if the file is damaged), and what is wrong with it."""
    from cfsbuild.erofs.verify import verify_image  # noqa: PLC0415 (help needs no reader)

    if image.kind == "dump":
        raise InputError(
            f"{image.name} is a dump, and has no digest", resolution="`cfsbuild import` makes an image of it"
        )
    try:
        verify_image(image.data)
    except (VerificationError, InputError) as error:
        return "", [Fault(error.reason or "structure", f"{image.name}: {error.brief}", error.details)]
    try:
        return check_image_digest(image, wanted), []
    except VerificationError as error:
        fault = Fault(error.reason, error.brief, error.details)
        return image_digest(image.name, image.data, wanted), [fault]


def _named_objects(image: Image) -> tuple[dict[bytes, DumpEntry], int]:
    """Return the first entry of each object that the image names, and how many files name none."""
    found: dict[bytes, DumpEntry] = {}
    undigested = 0
    for entry in image.entries():
        if entry.hardlink is not None or not stat.S_ISREG(entry.mode) or entry.content is not None:
            continue
        if entry.digest is not None:
            found.setdefault(entry.digest, entry)
        elif entry.size:
            undigested += 1
    return found, undigested


def _object_faults(
    directories: tuple[Path, ...], found: dict[bytes, DumpEntry], threads: int
) -> tuple[list[Fault], int]:
    """Check every object; return the faults (missing objects last) and how many bytes were read."""
    missing = dict(found)
    faults: list[Fault] = []
    total = 0
    for directory in directories:
        here = {digest: entry for digest, entry in missing.items() if _is_file(directory, digest)}
        for digest in here:
            del missing[digest]
        checked, size = _check_directory(directory, here, threads)
        faults += checked
        total += size
    faults += [_missing(digest, entry, directories) for digest, entry in missing.items()]
    return faults, total


def _is_file(directory: Path, digest: bytes) -> bool:
    try:
        return stat.S_ISREG(os.lstat(directory / object_name(digest)).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _check_directory(directory: Path, here: dict[bytes, DumpEntry], threads: int) -> tuple[list[Fault], int]:
    from cfsbuild.fsverity.digest import digest_files  # noqa: PLC0415 (help hashes nothing)

    faults: list[Fault] = []
    total = 0
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for algorithm in Algorithm:
            digests = [digest for digest in here if algorithm_of_digest(digest) is algorithm]
            names = [os.fsencode(object_name(digest)) for digest in digests]
            for digest, (actual, size) in zip(
                digests, digest_files(fd, names, algorithm, threads=threads), strict=True
            ):
                total += size
                entry = here[digest]
                if actual != digest:
                    faults.append(_damaged(digest, actual, entry, directory))
                elif size != entry.size:
                    faults.append(_wrong_size(size, entry))
    finally:
        os.close(fd)
    return faults, total


def _missing(digest: bytes, entry: DumpEntry, directories: tuple[Path, ...]) -> Fault:
    places = ", ".join(str(directory) for directory in directories) or "there is no store"
    return Fault(
        "object-missing",
        f"the content of {paths.show(entry.path)} is missing",
        f"object {object_name(digest)}, looked for in: {places}",
        "name the store with --store, or build or import the image again",
    )


def _damaged(digest: bytes, actual: bytes, entry: DumpEntry, directory: Path) -> Fault:
    return Fault(
        "object-damaged",
        f"the content of {paths.show(entry.path)} is damaged",
        f"{directory / object_name(digest)}\nhas the digest {actual.hex()}",
        "`cfsbuild store fsck --repair`, then build or import the image again",
    )


def _wrong_size(size: int, entry: DumpEntry) -> Fault:
    return Fault(
        "object-size",
        f"{paths.show(entry.path)} has {entry.size} bytes in the image, but its object has {size}",
        "the image was made with a wrong size",
    )


def _lines(result: Verification, *, only_structure: bool) -> Iterator[str]:
    yield f"{result.image}: ok"
    yield f"  digest   {result.digest}"
    if result.signers:
        yield f"  signed   as {result.signed_name} {result.signed_version}".rstrip()
    yield from (f"           by {signer}" for signer in result.signers)
    if result.fsverity_signer:
        yield f"  PKCS#7   by {result.fsverity_signer}"
    if only_structure:
        yield "  objects  not checked"
        return
    yield f"  objects  {render.count(result.objects, 'object')}, {render.size_text(result.bytes)} read"
    if result.undigested:
        files = render.count(result.undigested, "file")
        yield f"  warning  {files} without a digest: nothing vouches for them"
