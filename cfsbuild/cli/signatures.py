"""Signature files: where they lie, and whether one vouches for an image."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cfsbuild.cli.images import Image
from cfsbuild.errors import InputError, VerificationError

if TYPE_CHECKING:
    from cfsbuild.trust.statement import ImageFile

OUTPUT = Path("out")


def signature_file(image: Image, suffix: str) -> Path:
    """Return where the signature of an image is kept: beside its file, in `out/` for one of the store."""
    if not image.expected:
        return image.path.with_name(image.path.name + suffix)
    return OUTPUT / f"{image.reference or image.expected}.cfs{suffix}"


def file_of(image: Image) -> ImageFile:
    """Return how documents describe the image's file. Raises `InputError`, `UsageError` (no known format)."""
    from cfsbuild.trust.statement import image_file  # noqa: PLC0415 (help needs no cryptography)

    return image_file(bytes.fromhex(image.digest()), image.read().format, len(image.data))


def read_limited(path: Path, limit: int) -> bytes:
    """Return a file's content. Raises `InputError` for more than `limit` bytes, `OSError`."""
    with path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise InputError(f"{path} is too long", details=f"more than {limit} bytes", reason="malformed")
    return data


def check_signature(
    image: Image, public_keys: tuple[Path, ...], threshold: int, file: Path | None
) -> list[str]:
    """Return the ids of those of `public_keys` that signed the image, at least `threshold`.

    Raises `VerificationError` if they are fewer, or signed another image; `UsageError` and `InputError` for
    what is no public key.
    """
    from cfsbuild.trust import dsse, key_files, statement  # noqa: PLC0415 (help needs no cryptography)

    trusted = [key_files.read_public_key(path) for path in public_keys]
    path = file or signature_file(image, dsse.SUFFIX)
    try:
        data = read_limited(path, dsse.ENVELOPE_BYTES)
    except FileNotFoundError:
        raise VerificationError(
            f"{image.name} is not signed",
            details=f"looked for {path}",
            resolution="name the signature file with --signature",
            reason="signature-missing",
        ) from None
    opened = dsse.verify(data, statement.PAYLOAD_TYPE, trusted, threshold)
    signed = statement.decode_statement(opened.payload)
    statement.check_is_about(signed, file_of(image), image.name)
    return list(opened.key_ids)
