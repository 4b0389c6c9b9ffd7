"""`cfsbuild sign --fsverity`: the PKCS#7 signature of an image's digest, made here or elsewhere."""

from __future__ import annotations

from pathlib import Path

import msgspec

from cfsbuild.cli.images import Image
from cfsbuild.cli.output import write_json, write_lines
from cfsbuild.cli.output_file import write_result
from cfsbuild.cli.settings import Settings
from cfsbuild.cli.sign_choice import SIGNED_VERSION, Choice
from cfsbuild.cli.sign_export import export
from cfsbuild.cli.sign_sources import made_elsewhere, private_keys
from cfsbuild.cli.signatures import PKCS7_SUFFIX, signature_file
from cfsbuild.fsverity.algorithm import algorithm_of_digest


class FsveritySigned(msgspec.Struct, frozen=True, kw_only=True):
    """The digest that was signed, by which key, and the file that says so."""

    version: int = SIGNED_VERSION
    digest: str
    key: str
    file: str
    dry_run: bool = False


def sign_fsverity(settings: Settings, image: Image, certificate: Path, choice: Choice) -> None:
    """Sign the image's digest by the key of the certificate, or write what is to be signed."""
    from cfsbuild.trust import fsverity_signature, keys  # noqa: PLC0415 (help needs no cryptography)

    image.read()
    signer = fsverity_signature.read_certificate(certificate)
    public = fsverity_signature.certified_key(signer)
    digest = bytes.fromhex(image.digest())
    algorithm = algorithm_of_digest(digest)
    message = fsverity_signature.formatted_digest(digest, algorithm)
    if choice.export is not None:
        command = f"openssl dgst -{algorithm.value} -sign KEY -out SIGNATURE {{}}"
        export(settings, choice.export, message, (command,))
        return
    target = choice.output or signature_file(image, PKCS7_SUFFIX)
    if not settings.dry_run:
        if choice.keys:
            (private,) = private_keys(choice)
            signature = fsverity_signature.sign_digest(private, signer, digest, algorithm)
        else:
            made = made_elsewhere(choice, message)
            signature = fsverity_signature.attach(made, signer, digest, algorithm)
        write_result(target, signature)
    result = FsveritySigned(
        digest=digest.hex(), key=keys.key_id(public), file=str(target), dry_run=settings.dry_run
    )
    _tell(settings, result)


def _tell(settings: Settings, result: FsveritySigned) -> None:
    if settings.json:
        write_json(result)
    elif result.dry_run:
        write_lines([f"would sign {result.digest} by {result.key}: {result.file}"])
    else:
        write_lines([result.file])
