"""What is signed of an image: its name and version, and the digest, format and size of its file."""

from __future__ import annotations

from typing import Annotated, Literal, Protocol

import msgspec

from cfsbuild.errors import UsageError, VerificationError
from cfsbuild.fsverity.algorithm import algorithm_of_digest
from cfsbuild.trust import canonical

PAYLOAD_TYPE = "application/vnd.cfsbuild.image.v1+json"
STATEMENT_BYTES = 1 << 16

_FORMATS: tuple[Literal["erofs.v0", "erofs.v1"], ...] = ("erofs.v0", "erofs.v1")

_Text = Annotated[str, msgspec.Meta(pattern=r"\A[!-~]*\Z", max_length=255)]
_Digest = Annotated[
    str, msgspec.Meta(pattern=r"\Afsverity-(sha256-12:[0-9a-f]{64}|sha512-12:[0-9a-f]{128})\Z")
]


class ImageFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An image file: fs-verity digest as composefs-rs writes it (hash, log2 of the block size), bytes."""

    digest: _Digest
    format: Literal["erofs.v0", "erofs.v1"]
    size: Annotated[int, msgspec.Meta(ge=1, le=1 << 40)]


class ImageStatement(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """That an image of this name and version is this file; printable ASCII without spaces."""

    v: Literal[1] = 1
    type: Literal["cfsbuild.image"] = "cfsbuild.image"
    name: Annotated[_Text, msgspec.Meta(min_length=1)]
    version: _Text
    image: ImageFile


class Named(Protocol):
    """A signed document that names an image: a statement or a mount bundle."""

    @property
    def name(self) -> str:
        """Return what the image is called."""

    @property
    def version(self) -> str:
        """Return its version, which may be empty."""


def image_file(digest: bytes, image_format: int, size: int) -> ImageFile:
    """Return how documents describe an image file. Raises `UsageError` for a format other than 0 and 1."""
    if image_format not in range(len(_FORMATS)):
        raise UsageError(
            f"images of format {image_format} are not signed",
            resolution="import the image's dump: formats 0 and 1 can be signed",
            reason="format",
        )
    notation = algorithm_of_digest(digest).repository_name
    return ImageFile(f"{notation}:{digest.hex()}", _FORMATS[image_format], size)


def encode_statement(statement: ImageStatement) -> bytes:
    """Return a statement's only encoding. Raises `UsageError` for a name or version that it cannot have."""
    return canonical.encode_checked(
        statement,
        decode_statement,
        brief=f"{statement.name!r} {statement.version!r} cannot be signed",
        resolution="use printable ASCII without spaces for name and version",
        reason="name",
    )


def decode_statement(data: bytes) -> ImageStatement:
    """Return the statement that `data` encodes. Raises `VerificationError` (reason `malformed`)."""
    return canonical.decode(data, ImageStatement, what="the signed statement", limit=STATEMENT_BYTES)


def check_is_about(statement: ImageStatement, image: ImageFile, name: str) -> None:
    """Raise `VerificationError` (reason `signature-other-image`) if a statement is about another file."""
    if statement.image != image:
        raise VerificationError(
            f"the signature is not of {name}",
            details=f"signed   {_show(statement.image)}\npresent  {_show(image)}",
            reason="signature-other-image",
        )


def check_is_called(document: Named, name: str | None, version: str | None) -> None:
    """Raise `VerificationError` (reason `signature-other-name`) if another name or version was signed."""
    for what, signed, wanted in (("name", document.name, name), ("version", document.version, version)):
        if wanted is not None and signed != wanted:
            raise VerificationError(
                f"the signed {what} is another one",
                details=f"expected {wanted!r}\nsigned   {signed!r}",
                reason="signature-other-name",
            )


def digest_hex(image: ImageFile) -> str:
    """Return the digest of an image file as plain hex."""
    return image.digest.rpartition(":")[2]


def _show(image: ImageFile) -> str:
    return f"{image.digest}, {image.format}, {image.size} bytes"
