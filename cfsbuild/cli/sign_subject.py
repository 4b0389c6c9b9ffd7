"""What `cfsbuild sign` signs: what an image is, or a mount bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cfsbuild.cli.images import Image
from cfsbuild.cli.sign_choice import Choice
from cfsbuild.cli.signatures import DSSE_SUFFIX, file_of, signature_file
from cfsbuild.errors import UsageError

if TYPE_CHECKING:
    from cfsbuild.trust.statement import ImageStatement

BUNDLE_SUFFIX = ".bundle"
DOCUMENT_SUFFIX = ".bundle.json"


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """A document to sign, the file that its signatures are in, and what people call what it is about.

    `digest` is that of the image, in hex.
    """

    payload_type: str
    payload: bytes
    target: Path
    name: str
    version: str
    digest: str


def image_subject(text: str, image: Image, choice: Choice) -> Subject:
    """Return the statement about the image that the argument `text` means."""
    from cfsbuild.trust import statement as statements  # noqa: PLC0415 (help needs no cryptography)

    target = choice.output or signature_file(image, DSSE_SUFFIX)
    statement = _statement(text, image, present_envelope(target), choice)
    return Subject(
        payload_type=statements.PAYLOAD_TYPE,
        payload=statements.encode_statement(statement),
        target=target,
        name=statement.name,
        version=statement.version,
        digest=statements.digest_hex(statement.image),
    )


def bundle_subject(path: Path, choice: Choice) -> Subject | None:
    """Return the mount bundle in a file, signed or not; None if its name is not that of one.

    Raises `UsageError` if the options give it another name, `VerificationError` for what is no bundle.
    """
    if not path.name.endswith((BUNDLE_SUFFIX, DOCUMENT_SUFFIX)) or not path.is_file():
        return None
    from cfsbuild.trust import bundle as bundles  # noqa: PLC0415 (as above)
    from cfsbuild.trust import dsse, files, statement  # noqa: PLC0415

    if choice.name is not None or choice.version is not None:
        raise UsageError("a bundle says itself what it is called", reason="usage")
    data = files.read_regular(path, limit=dsse.ENVELOPE_BYTES)
    if path.name.endswith(BUNDLE_SUFFIX):
        _, data = dsse.unverified(data)
    bundle = bundles.decode_bundle(data)
    return Subject(
        payload_type=bundles.payload_type_of(bundle),
        payload=data,
        target=choice.output or path.with_name(path.name.removesuffix(".json")),
        name=bundle.name,
        version=bundle.version,
        digest=statement.digest_hex(bundle.image),
    )


def present_envelope(target: Path) -> bytes | None:
    """Return the signature file that is there; None for none, an empty one, and what is no regular file."""
    from cfsbuild.trust import dsse, files  # noqa: PLC0415

    if not target.is_file():
        return None
    return files.read_regular(target, limit=dsse.ENVELOPE_BYTES) or None


def _statement(text: str, image: Image, present: bytes | None, choice: Choice) -> ImageStatement:
    """Return what is to be signed of the image that the argument `text` means.

    Without other words it is called as in the signatures that are there, so that one more is added to them.
    """
    from cfsbuild.trust.statement import ImageStatement  # noqa: PLC0415

    known_name, known_version = image.reference or image.path.stem, ""
    file = file_of(image)
    signed = None if present is None else _signed_as(present)
    if signed is not None and signed.image == file:
        known_name, known_version = signed.name, signed.version
    elif Path(text).suffix == ".toml":
        from cfsbuild.cli.recipes import load  # noqa: PLC0415 (recipes only)

        recipe = load(Path(text), (), ())[0]
        known_name, known_version = recipe.name, recipe.version
    return ImageStatement(
        name=known_name if choice.name is None else choice.name,
        version=known_version if choice.version is None else choice.version,
        image=file,
    )


def _signed_as(envelope: bytes) -> ImageStatement | None:
    """Return what an envelope states, unverified; None if that is nothing of an image."""
    from cfsbuild.trust import dsse  # noqa: PLC0415
    from cfsbuild.trust.statement import PAYLOAD_TYPE, decode_statement  # noqa: PLC0415

    kind, payload = dsse.unverified(envelope)
    return decode_statement(payload) if kind == PAYLOAD_TYPE else None
