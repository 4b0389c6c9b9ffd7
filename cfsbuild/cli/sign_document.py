"""`cfsbuild sign`: signed documents, made here or elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cfsbuild.cli.output import note, write_json, write_lines
from cfsbuild.cli.output_file import write_result
from cfsbuild.cli.settings import Settings
from cfsbuild.cli.sign_choice import SIGNED_VERSION, Choice
from cfsbuild.cli.sign_export import export
from cfsbuild.cli.sign_sources import made_elsewhere, private_keys
from cfsbuild.cli.sign_subject import Subject, present_envelope

if TYPE_CHECKING:
    from cfsbuild.trust.keys import PublicKey


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


def sign_document(settings: Settings, subject: Subject, choice: Choice) -> None:
    """Sign a document, or write what is to be signed."""
    present = present_envelope(subject.target)
    if choice.export is not None:
        from cfsbuild.trust import dsse  # noqa: PLC0415 (help needs no cryptography)

        commands = (
            "Ed25519  openssl pkeyutl -sign -rawin -inkey KEY -in {} -out SIGNATURE",
            "P-256    openssl dgst -sha256 -sign KEY -out SIGNATURE {}",
        )
        export(settings, choice.export, dsse.pae(subject.payload_type, subject.payload), commands)
        return
    public = _public_key(choice)
    if settings.dry_run:
        from cfsbuild.trust import dsse  # noqa: PLC0415 (help needs no cryptography)

        same = present is not None and dsse.unverified(present) == (subject.payload_type, subject.payload)
        _tell(settings, subject, present if same else None)
        return
    envelope = _added(settings, subject.target, present, _envelopes(subject, choice, public))
    write_result(subject.target, envelope)
    _tell(settings, subject, envelope)


def _public_key(choice: Choice) -> PublicKey | None:
    """Return the key of who signs elsewhere; None for a private key here."""
    from cfsbuild.trust import dsse, key_files  # noqa: PLC0415

    if choice.public_key is None:
        return None
    public = key_files.read_public_key(choice.public_key)
    dsse.check_key(public)
    return public


def _envelopes(subject: Subject, choice: Choice, public: PublicKey | None) -> list[bytes]:
    """Return one envelope for each signature."""
    from cfsbuild.trust import dsse  # noqa: PLC0415

    kind, payload = subject.payload_type, subject.payload
    if public is None:
        return [dsse.sign(kind, payload, private) for private in private_keys(choice)]
    signature = made_elsewhere(choice, dsse.pae(kind, payload))
    return [dsse.attach(kind, payload, public, signature)]


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


def _tell(settings: Settings, subject: Subject, envelope: bytes | None) -> None:
    """Say what is in the signature file, or in a dry run what would be signed."""
    from cfsbuild.trust import dsse  # noqa: PLC0415

    signers = [] if envelope is None else dsse.decode(envelope).signatures
    result = Signed(
        name=subject.name,
        image_version=subject.version,
        digest=subject.digest,
        file=str(subject.target),
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
