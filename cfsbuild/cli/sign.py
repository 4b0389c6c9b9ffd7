"""`cfsbuild sign`: signatures of images, made here or elsewhere, in files beside them."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from cfsbuild.cli.images import Image, image_argument, open_image
from cfsbuild.cli.output import note, write_json, write_lines
from cfsbuild.cli.output_file import replace_file
from cfsbuild.cli.passphrases import ask_passphrase, given_passphrase, passphrase_options
from cfsbuild.cli.settings import Settings, common_options, pass_settings
from cfsbuild.cli.signatures import file_of, read_limited, signature_file
from cfsbuild.errors import BuildError, StoreError, UsageError

if TYPE_CHECKING:
    from cfsbuild.trust.keys import PrivateKey, PublicKey
    from cfsbuild.trust.statement import ImageStatement

SIGNED_VERSION = 1
_SIGNATURE_BYTES = 1 << 16
_COMMAND_SECONDS = 120

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


class Signed(msgspec.Struct, frozen=True, kw_only=True):
    """What was signed, by whom, and the file that says so. `keys` are all signers that the file names."""

    version: int = SIGNED_VERSION
    name: str
    image_version: str
    digest: str
    file: str
    keys: list[str]


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """How to sign: exactly one of `keys`, `export`, `attach` and `hook` is given."""

    keys: tuple[Path, ...]
    export: Path | None
    attach: Path | None
    hook: str | None
    public_key: Path | None
    certificate: Path | None


@click.command("sign")
@common_options("json", "store")
@click.option(
    "--key",
    "keys",
    metavar="FILE",
    multiple=True,
    type=FILE,
    help="Sign by the private key in FILE (may be repeated).",
)
@click.option(
    "--export",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Write the bytes to sign, for a key that is elsewhere.",
)
@click.option("--attach", metavar="FILE", type=FILE, help="Put in a signature made elsewhere.")
@click.option(
    "--with", "hook", metavar="COMMAND", help="Give the bytes to COMMAND, which prints the signature."
)
@click.option(
    "--public-key",
    metavar="FILE",
    type=FILE,
    help="The public key of who signs, for --attach and --with.",
)
@click.option(
    "--fsverity",
    "certificate",
    metavar="CERT",
    type=FILE,
    help="Make a PKCS#7 fs-verity signature, as `fsverity sign` does.",
)
@click.option("--name", help="What the image is called [the recipe's name, else the file's].")
@click.option("--image-version", metavar="TEXT", help="Its version [the recipe's, else empty].")
@click.option(
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="The signature file [IMAGE.dsse or .p7s].",
)
@passphrase_options
@image_argument()
@pass_settings
def command(  # noqa: PLR0913 (one parameter an option)
    settings: Settings,
    image: str,
    *,
    keys: tuple[Path, ...],
    export: Path | None,
    attach: Path | None,
    hook: str | None,
    public_key: Path | None,
    certificate: Path | None,
    name: str | None,
    image_version: str | None,
    output: Path | None,
    passphrase_fd: int | None,
    passphrase_file: Path | None,
) -> None:
    """Sign IMAGE: that an image of this name and version has this digest.

    The signature is a file beside the image, and nothing is built again. Signing once more, by another key,
    adds to the file.
    """
    choice = Choice(
        keys=keys, export=export, attach=attach, hook=hook, public_key=public_key, certificate=certificate
    )
    _check(choice)
    opened = open_image(settings, image)
    given = given_passphrase(passphrase_fd, passphrase_file)
    privates = [_private(path, given) for path in keys]
    if certificate is not None:
        _sign_fsverity(settings, opened, privates[0], certificate, output)
        return
    statement = _statement(image, opened, name, image_version)
    if export is not None:
        _export(settings, statement, export)
        return
    target = output or signature_file(opened, ".dsse")
    _sign(settings, opened, statement, target, _envelopes(statement, privates, choice))


def _check(choice: Choice) -> None:
    ways = [choice.keys, choice.export, choice.attach, choice.hook]
    if sum(way not in {None, ()} for way in ways) != 1:
        raise UsageError(
            "exactly one of --key, --export, --attach and --with says how to sign",
            resolution="`cfsbuild key new NAME` makes a key; then --key NAME.key",
            reason="usage",
        )
    if (choice.public_key is not None) != bool(choice.attach or choice.hook):
        raise UsageError(
            "--public-key goes with --attach and --with: what was made elsewhere is verified first",
            reason="usage",
        )
    if choice.certificate is not None and len(choice.keys) != 1:
        raise UsageError("--fsverity needs one --key", reason="usage")


def _private(path: Path, given: bytes) -> PrivateKey:
    from cfsbuild.trust import key_files, process  # noqa: PLC0415 (help needs no cryptography)

    process.forbid_core_dumps()
    return key_files.read_private_key(path, lambda: given or ask_passphrase(str(path)))


def _statement(text: str, image: Image, name: str | None, version: str | None) -> ImageStatement:
    """Return what is to be signed of the image that the argument `text` means."""
    from cfsbuild.trust.statement import ImageStatement  # noqa: PLC0415

    known_name, known_version = image.reference or image.path.stem, ""
    if text.endswith(".toml"):
        from cfsbuild.cli.recipes import load  # noqa: PLC0415 (recipes only)

        recipe = load(Path(text), (), ())[0]
        known_name, known_version = recipe.name, recipe.version
    return ImageStatement(
        name=known_name if name is None else name,
        version=known_version if version is None else version,
        image=file_of(image),
    )


def _envelopes(statement: ImageStatement, privates: list[PrivateKey], choice: Choice) -> list[bytes]:
    """Return one envelope for each signature."""
    from cfsbuild.trust import dsse  # noqa: PLC0415
    from cfsbuild.trust.statement import PAYLOAD_TYPE, encode_statement  # noqa: PLC0415

    payload = encode_statement(statement)
    if privates:
        return [dsse.sign(PAYLOAD_TYPE, payload, private) for private in privates]
    public, signature = _elsewhere(choice, dsse.pae(PAYLOAD_TYPE, payload))
    return [dsse.attach(PAYLOAD_TYPE, payload, public, signature)]


def _export(settings: Settings, statement: ImageStatement, file: Path) -> None:
    from cfsbuild.trust import dsse  # noqa: PLC0415
    from cfsbuild.trust.statement import PAYLOAD_TYPE, encode_statement  # noqa: PLC0415

    _write(file, dsse.pae(PAYLOAD_TYPE, encode_statement(statement)))
    note(settings, f"sign {file} as it is, then --attach the signature:")
    note(settings, f"  Ed25519  openssl pkeyutl -sign -rawin -inkey KEY -in {file} -out SIGNATURE")
    note(settings, f"  P-256    openssl dgst -sha256 -sign KEY -out SIGNATURE {file}")


def _sign(
    settings: Settings, image: Image, statement: ImageStatement, target: Path, envelopes: list[bytes]
) -> None:
    """Put signatures into the file `target`."""
    from cfsbuild.trust import dsse  # noqa: PLC0415

    envelope = _present(settings, target, envelopes[0])
    for other in envelopes:
        envelope = dsse.merge(envelope, other) or envelope
    _write(target, envelope)
    result = Signed(
        name=statement.name,
        image_version=statement.version,
        digest=image.digest(),
        file=str(target),
        keys=[signature.keyid for signature in dsse.decode(envelope).signatures],
    )
    if settings.json:
        write_json(result)
        return
    note(settings, f"{result.name} {result.image_version}".rstrip() + f": signed by {', '.join(result.keys)}")
    write_lines([result.file])


def _present(settings: Settings, target: Path, envelope: bytes) -> bytes:
    """Return the signature file that is there with `envelope` added; just that if it is of something else."""
    from cfsbuild.trust import dsse  # noqa: PLC0415

    try:
        present = read_limited(target, dsse.ENVELOPE_BYTES)
    except FileNotFoundError:
        return envelope
    merged = dsse.merge(present, envelope)
    if merged is None:
        note(settings, f"note: {target} was of another image or version: replaced")
    return merged or envelope


def _elsewhere(choice: Choice, message: bytes) -> tuple[PublicKey, bytes]:
    """Return the public key and the signature that was made, or is made now, outside of this program."""
    from cfsbuild.trust import key_files  # noqa: PLC0415

    public = key_files.read_public_key(choice.public_key or Path())
    if choice.attach is not None:
        return public, read_limited(choice.attach, _SIGNATURE_BYTES)
    return public, _run(choice.hook or "", message)


def _run(hook: str, message: bytes) -> bytes:
    """Return what the command prints that gets `message` on its standard input."""
    try:
        arguments = shlex.split(hook)
        done = subprocess.run(
            arguments, input=message, stdout=subprocess.PIPE, timeout=_COMMAND_SECONDS, check=False
        )
    except (ValueError, IndexError, OSError, subprocess.TimeoutExpired) as error:
        raise UsageError(f"{hook!r} cannot be run: {error}", reason="hook") from error
    if done.returncode != 0:
        raise BuildError(f"{arguments[0]} made no signature: exit status {done.returncode}", reason="hook")
    return done.stdout


def _sign_fsverity(
    settings: Settings, image: Image, private: PrivateKey, certificate: Path, output: Path | None
) -> None:
    from cfsbuild.cli.images import algorithm_of_digest  # noqa: PLC0415
    from cfsbuild.trust import fsverity_signature  # noqa: PLC0415

    digest = bytes.fromhex(image.digest())
    signature = fsverity_signature.sign_digest(
        private, fsverity_signature.read_certificate(certificate), digest, algorithm_of_digest(digest)
    )
    target = output or signature_file(image, fsverity_signature.SUFFIX)
    _write(target, signature)
    if settings.json:
        write_json({"version": SIGNED_VERSION, "digest": digest.hex(), "file": str(target)})
    else:
        write_lines([str(target)])


def _write(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, [data])
    except OSError as error:
        raise StoreError(
            f"{path} cannot be written: {os.strerror(error.errno or 0)}", reason="output"
        ) from error
