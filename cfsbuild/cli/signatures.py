"""Signature files: where they lie, and whether one vouches for an image."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cfsbuild.cli.images import Image, image_digest
from cfsbuild.errors import InputError, UsageError, VerificationError

if TYPE_CHECKING:
    from cfsbuild.trust.statement import ImageFile

OUTPUT = Path("out")
DSSE_SUFFIX = ".dsse"


def signature_file(image: Image, suffix: str) -> Path:
    """Return where the signature of an image is kept: beside its file, in `out/` for one of the store."""
    if not image.expected:
        return image.path.with_name(image.path.name + suffix)
    return OUTPUT / f"{image.reference or image.expected}.cfs{suffix}"


def file_of(image: Image, like: str = "") -> ImageFile:
    """Return how documents describe the image's file.

    By the algorithm that gives digests like `like` (hex), else the store's or that of the image's objects.
    Raises `InputError`, and `UsageError` for a format that is not signed.
    """
    from cfsbuild.trust.statement import image_file  # noqa: PLC0415 (help needs no cryptography)

    form = image.read().format
    digest = image_digest(image.name, image.data, like) if like else image.digest()
    return image_file(bytes.fromhex(digest), form, len(image.data))


class Signers(NamedTuple):
    """Which keys signed an image, and what they call it."""

    keys: list[str]
    name: str
    version: str


class Trust(NamedTuple):
    """What whoever verifies asks for: keys, how many of them (1), what the image must be called."""

    keys: tuple[Path, ...]
    threshold: int | None
    file: Path | None
    name: str | None
    version: str | None


def check_trust(trust: Trust) -> None:
    """Raise `UsageError` when something is asked about signatures, and no key is trusted."""
    if not trust.keys and any(asked is not None for asked in trust[1:]):
        raise UsageError(
            "--threshold, --signature, --name and --image-version are about who signed",
            resolution="add the key that is trusted: --key PUB",
            reason="usage",
        )


def check_signature(image: Image, trust: Trust) -> Signers:
    """Return who of those that are trusted signed the image.

    Raises `VerificationError` if they are too few, or signed another image or name; `UsageError` and
    `InputError` for what is no public key.
    """
    from cfsbuild.trust import dsse, key_files, statement  # noqa: PLC0415 (help needs no cryptography)

    trusted = [key_files.read_public_key(path) for path in trust.keys]
    path = trust.file or signature_file(image, DSSE_SUFFIX)
    opened = dsse.verify(_read(image, path), statement.PAYLOAD_TYPE, trusted, trust.threshold or 1)
    signed = statement.decode_statement(opened.payload)
    statement.check_is_about(signed, file_of(image, statement.digest_hex(signed.image)), image.name)
    statement.check_is_called(signed, trust.name, trust.version)
    return Signers(list(opened.key_ids), signed.name, signed.version)


def _read(image: Image, path: Path) -> bytes:
    from cfsbuild.trust import dsse, files  # noqa: PLC0415 (help needs no cryptography)

    try:
        return files.read_regular(path, limit=dsse.ENVELOPE_BYTES)
    except FileNotFoundError:
        raise VerificationError(
            f"{image.name} is not signed",
            details=f"looked for {path}",
            resolution="name the signature file with --signature",
            reason="signature-missing",
        ) from None
    except InputError as error:
        raise VerificationError(error.brief, details=error.details, reason="malformed") from error
