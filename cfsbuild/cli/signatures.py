"""Signature files: where they lie, and whether one vouches for an image."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cfsbuild.cli.images import Image, image_digest
from cfsbuild.errors import InputError, UsageError, VerificationError

if TYPE_CHECKING:
    from cfsbuild.trust.statement import ImageFile

OUTPUT = Path("out")
DSSE_SUFFIX = ".dsse"
PKCS7_SUFFIX = ".p7s"

_KEY_ID = re.compile(r"[0-9a-fA-F]{32}")


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
    """Which keys signed an image, and what they call it; `certified` is the id of a certificate's key."""

    keys: list[str]
    name: str
    version: str
    certified: str


class Trust(NamedTuple):
    """What whoever verifies asks for: keys, how many of them (1), what the image must be called.

    And apart from them the certificate of who must have signed the fs-verity digest. `revoked` are files of
    public keys, or ids.
    """

    keys: tuple[Path, ...]
    threshold: int | None
    file: Path | None
    name: str | None
    version: str | None
    certificate: Path | None
    certified_file: Path | None
    revoked: tuple[str, ...]


def check_trust(trust: Trust) -> None:
    """Raise `UsageError` when something is asked about signatures, and no key is trusted."""
    about_keys = (trust.threshold, trust.file, trust.name, trust.version)
    if not trust.keys and any(asked is not None for asked in about_keys):
        raise UsageError(
            "--threshold, --signature, --name and --image-version are about who signed",
            resolution="add the key that is trusted: --key PUB",
            reason="usage",
        )
    if trust.certificate is None and trust.certified_file is not None:
        raise UsageError(
            "--fsverity-signature is about who signed",
            resolution="add the certificate that is trusted: --fsverity-certificate CERT",
            reason="usage",
        )
    if trust.revoked and not trust.keys and trust.certificate is None:
        raise UsageError(
            "--revoked takes trust away, and none is given",
            resolution="add the key that is trusted: --key PUB",
            reason="usage",
        )


def check_signatures(image: Image, trust: Trust) -> tuple[Signers, list[VerificationError]]:
    """Return who of those that are trusted signed the image, and what is wrong with that.

    Raises `UsageError` and `InputError` for what is no public key and no certificate.
    """
    revoked = [revoked_id(text) for text in trust.revoked]
    signers, faults = Signers([], "", "", ""), []
    if trust.keys:
        try:
            signers = _check_document(image, trust, revoked)
        except VerificationError as error:
            faults.append(error)
    if trust.certificate is not None:
        try:
            signers = signers._replace(certified=_check_certified(image, trust.certificate, trust, revoked))
        except VerificationError as error:
            faults.append(error)
    return signers, faults


def _check_document(image: Image, trust: Trust, revoked: list[str]) -> Signers:
    from cfsbuild.trust import dsse, key_files, statement  # noqa: PLC0415 (help needs no cryptography)

    trusted = [key_files.read_public_key(path) for path in trust.keys]
    data = _read(image, trust.file or signature_file(image, DSSE_SUFFIX), "--signature", dsse.ENVELOPE_BYTES)
    opened = dsse.verify(data, statement.PAYLOAD_TYPE, trusted, trust.threshold or 1, revoked=revoked)
    signed = statement.decode_statement(opened.payload)
    statement.check_is_about(signed, file_of(image, statement.digest_hex(signed.image)), image.name)
    statement.check_is_called(signed, trust.name, trust.version)
    return Signers(list(opened.key_ids), signed.name, signed.version, "")


def _check_certified(image: Image, certificate: Path, trust: Trust, revoked: list[str]) -> str:
    from cfsbuild.fsverity.digest import digest_bytes  # noqa: PLC0415 (help hashes nothing)
    from cfsbuild.trust import fsverity_signature  # noqa: PLC0415 (help needs no cryptography)

    signer = fsverity_signature.read_certificate(certificate)
    fsverity_signature.certified_key(signer)
    path = trust.certified_file or signature_file(image, PKCS7_SUFFIX)
    data = _read(image, path, "--fsverity-signature", fsverity_signature.SIGNATURE_BYTES)
    return fsverity_signature.verify(
        data, signer, lambda algorithm: digest_bytes(image.data, algorithm), revoked=revoked
    )


def revoked_id(text: str) -> str:
    """Return the id of the key that `--revoked` names. Raises `UsageError`, `InputError` for none."""
    from cfsbuild.trust import key_files, keys  # noqa: PLC0415 (help needs no cryptography)

    if _KEY_ID.fullmatch(text):
        return text.lower()
    path = Path(text)
    if not path.is_file():
        raise UsageError(
            f"{text!r} is neither a file nor the id of a key",
            resolution="name the public key, or the 32 hex digits that `cfsbuild key show` prints",
            reason="usage",
        )
    return keys.key_id(key_files.read_public_key(path))


def _read(image: Image, path: Path, option: str, limit: int) -> bytes:
    from cfsbuild.trust import files  # noqa: PLC0415 (help needs no cryptography)

    try:
        return files.read_regular(path, limit=limit)
    except FileNotFoundError:
        raise VerificationError(
            f"{image.name} is not signed",
            details=f"looked for {path}",
            resolution=f"name the signature file with {option}",
            reason="signature-missing",
        ) from None
    except InputError as error:
        raise VerificationError(error.brief, details=error.details, reason="malformed") from error
