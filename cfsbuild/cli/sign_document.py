"""`cfsbuild sign`: the signed document that says what an image is, made here or elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cfsbuild.cli.images import Image
from cfsbuild.cli.output import note, write_json, write_lines
from cfsbuild.cli.output_file import write_result
from cfsbuild.cli.settings import Settings
from cfsbuild.cli.sign_choice import SIGNED_VERSION, Choice, Exported
from cfsbuild.cli.sign_sources import made_elsewhere, private_keys
from cfsbuild.cli.signatures import DSSE_SUFFIX, file_of, signature_file

if TYPE_CHECKING:
    from cfsbuild.trust.keys import PublicKey
    from cfsbuild.trust.statement import ImageStatement


class Signed(msgspec.Struct, frozen=True, kw_only=True):
    """What was signed, by whom, and the file that says so.

    `keys` are all signers that the file names, those that it had before included; of a dry run only those.
    """

    version: int = SIGNED_VERSION
    name: str
    image_version: str
    digest: str
    file: str
    keys: list[str]
    dry_run: bool = False


def sign_document(settings: Settings, text: str, image: Image, choice: Choice) -> None:
    """Sign what the image is that the argument `text` means, or write what is to be signed."""
    from cfsbuild.trust.statement import encode_statement  # noqa: PLC0415 (help needs no cryptography)

    target = choice.output or signature_file(image, DSSE_SUFFIX)
    present = _present(target)
    statement = _statement(text, image, present, choice)
    payload = encode_statement(statement)
    if choice.export is not None:
        _export(settings, payload, choice.export)
        return
    public = _public_key(choice)
    if settings.dry_run:
        same = present is not None and _signed_as(present) == statement
        _tell(settings, statement, target, present if same else None)
        return
    envelope = _added(settings, target, present, _envelopes(payload, choice, public))
    write_result(target, envelope)
    _tell(settings, statement, target, envelope)


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


def _public_key(choice: Choice) -> PublicKey | None:
    """Return the key of who signs elsewhere; None for a private key here."""
    from cfsbuild.trust import dsse, key_files  # noqa: PLC0415

    if choice.public_key is None:
        return None
    public = key_files.read_public_key(choice.public_key)
    dsse.check_key(public)
    return public


def _envelopes(payload: bytes, choice: Choice, public: PublicKey | None) -> list[bytes]:
    """Return one envelope for each signature."""
    from cfsbuild.trust import dsse  # noqa: PLC0415
    from cfsbuild.trust.statement import PAYLOAD_TYPE  # noqa: PLC0415

    if public is None:
        return [dsse.sign(PAYLOAD_TYPE, payload, private) for private in private_keys(choice)]
    signature = made_elsewhere(choice, dsse.pae(PAYLOAD_TYPE, payload))
    return [dsse.attach(PAYLOAD_TYPE, payload, public, signature)]


def _export(settings: Settings, payload: bytes, file: Path) -> None:
    from cfsbuild.trust import dsse  # noqa: PLC0415
    from cfsbuild.trust.statement import PAYLOAD_TYPE  # noqa: PLC0415

    if not settings.dry_run:
        write_result(file, dsse.pae(PAYLOAD_TYPE, payload))
    if settings.json:
        write_json(Exported(file=str(file), dry_run=settings.dry_run))
        return
    if settings.dry_run:
        write_lines([f"would write the bytes to sign: {file}"])
        return
    note(settings, f"sign {file} as it is, then --attach the signature:")
    note(settings, f"  Ed25519  openssl pkeyutl -sign -rawin -inkey KEY -in {file} -out SIGNATURE")
    note(settings, f"  P-256    openssl dgst -sha256 -sign KEY -out SIGNATURE {file}")


def _added(settings: Settings, target: Path, present: bytes | None, envelopes: list[bytes]) -> bytes:
    """Return what is in the file `target`, if it is of the same, with the signatures of `envelopes`."""
    from cfsbuild.trust import dsse  # noqa: PLC0415

    envelope, *others = envelopes
    if present is not None:
        merged = dsse.merge(present, envelope)
        if merged is None:
            note(settings, f"note: {target} was of another image or version: replaced")
        envelope = merged or envelope
    for other in others:
        envelope = dsse.merge(envelope, other) or envelope
    return envelope


def _tell(settings: Settings, statement: ImageStatement, target: Path, envelope: bytes | None) -> None:
    """Say what is in the signature file, or in a dry run what would be signed."""
    from cfsbuild.trust import dsse  # noqa: PLC0415
    from cfsbuild.trust.statement import digest_hex  # noqa: PLC0415

    signers = [] if envelope is None else dsse.decode(envelope).signatures
    result = Signed(
        name=statement.name,
        image_version=statement.version,
        digest=digest_hex(statement.image),
        file=str(target),
        keys=[signature.keyid for signature in signers],
        dry_run=settings.dry_run,
    )
    called = f"{result.name} {result.image_version}".rstrip()
    if settings.json:
        write_json(result)
    elif settings.dry_run:
        write_lines([f"would sign {result.digest} as {called}: {result.file}"])
    else:
        note(settings, f"{called}: signed by {', '.join(result.keys)}")
        write_lines([result.file])


def _present(target: Path) -> bytes | None:
    """Return the signature file that is there; None for none, an empty one, and what is no regular file."""
    from cfsbuild.trust import dsse, files  # noqa: PLC0415

    if not target.is_file():
        return None
    return files.read_regular(target, limit=dsse.ENVELOPE_BYTES) or None


def _signed_as(envelope: bytes) -> ImageStatement | None:
    """Return what an envelope states, unverified; None if that is nothing of an image."""
    from cfsbuild.trust import dsse  # noqa: PLC0415
    from cfsbuild.trust.statement import PAYLOAD_TYPE, decode_statement  # noqa: PLC0415

    kind, payload = dsse.unverified(envelope)
    return decode_statement(payload) if kind == PAYLOAD_TYPE else None
