"""`cfsbuild sign`: signatures of images, made here or elsewhere, in files beside them."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from cfsbuild.cli.images import Image, image_argument, open_image
from cfsbuild.cli.output import note, write_json, write_lines
from cfsbuild.cli.output_file import replace_file
from cfsbuild.cli.passphrases import ask_passphrase, given_passphrase, passphrase_options
from cfsbuild.cli.settings import Settings, common_options, pass_settings
from cfsbuild.cli.signatures import DSSE_SUFFIX, file_of, signature_file
from cfsbuild.errors import BuildError, StoreError, UsageError
from cfsbuild.fsverity.algorithm import algorithm_of_digest

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
    if keys:
        _forbid_core_dumps()
    given = given_passphrase(passphrase_fd, passphrase_file)
    privates = [_private(path, given) for path in keys]
    if certificate is not None:
        _sign_fsverity(settings, opened, privates[0], certificate, output)
        return
    target = output or signature_file(opened, DSSE_SUFFIX)
    present = _present(target)
    statement = _statement(image, opened, present, name, image_version)
    if export is not None:
        _export(settings, statement, export)
        return
    envelopes = _envelopes(statement, privates, choice)
    _finish(settings, statement, target, _added(settings, target, present, envelopes))


def _check(choice: Choice) -> None:
    ways = [choice.keys, choice.export, choice.attach, choice.hook]
    if sum(way not in {None, ()} for way in ways) != 1:
        raise UsageError(
            "exactly one of --key, --export, --attach and --with says how to sign",
            resolution="`cfsbuild key new NAME` makes a key; then --key NAME.key",
            reason="usage",
        )
    if (choice.public_key is not None) != (choice.attach is not None or choice.hook is not None):
        raise UsageError(
            "--public-key goes with --attach and --with: what was made elsewhere is verified first",
            reason="usage",
        )
    if choice.certificate is not None and len(choice.keys) != 1:
        raise UsageError("--fsverity needs one --key", reason="usage")


def _forbid_core_dumps() -> None:
    from cfsbuild.trust import process  # noqa: PLC0415 (help needs no cryptography)

    process.forbid_core_dumps()


def _private(path: Path, given: bytes) -> PrivateKey:
    from cfsbuild.trust import key_files  # noqa: PLC0415 (help needs no cryptography)

    return key_files.read_private_key(path, lambda: given or ask_passphrase(str(path)))


def _statement(
    text: str, image: Image, present: bytes | None, name: str | None, version: str | None
) -> ImageStatement:
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
        name=known_name if name is None else name,
        version=known_version if version is None else version,
        image=file,
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
    if settings.json:
        write_json({"version": SIGNED_VERSION, "file": str(file)})
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


def _finish(settings: Settings, statement: ImageStatement, target: Path, envelope: bytes) -> None:
    """Write the signature file, and say what is in it."""
    from cfsbuild.trust import dsse  # noqa: PLC0415
    from cfsbuild.trust.statement import digest_hex  # noqa: PLC0415

    _write(target, envelope)
    result = Signed(
        name=statement.name,
        image_version=statement.version,
        digest=digest_hex(statement.image),
        file=str(target),
        keys=[signature.keyid for signature in dsse.decode(envelope).signatures],
    )
    if settings.json:
        write_json(result)
        return
    note(settings, f"{result.name} {result.image_version}".rstrip() + f": signed by {', '.join(result.keys)}")
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


def _elsewhere(choice: Choice, message: bytes) -> tuple[PublicKey, bytes]:
    """Return the public key and the signature that was made, or is made now, outside of this program."""
    from cfsbuild.trust import dsse, files, key_files  # noqa: PLC0415

    public = key_files.read_public_key(choice.public_key or Path())
    dsse.check_key(public)
    if choice.attach is not None:
        return public, files.read_regular(choice.attach, limit=_SIGNATURE_BYTES)
    return public, _run(choice.hook or "", message)


def _run(hook: str, message: bytes) -> bytes:
    """Return what the command prints that gets `message` on its standard input; it has two minutes."""
    try:
        arguments = shlex.split(hook)
        process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    except (ValueError, IndexError, OSError) as error:
        raise UsageError(f"{hook!r} cannot be run: {error}", reason="hook") from error
    patience = threading.Timer(_COMMAND_SECONDS, process.kill)
    patience.start()
    with process:
        try:
            made = _converse(process, message)
        except BaseException:
            process.kill()
            raise
        finally:
            patience.cancel()
        if len(made) > _SIGNATURE_BYTES:
            process.kill()
            raise BuildError(f"{arguments[0]} printed more than a signature", reason="hook")
    if process.returncode != 0:
        raise BuildError(f"{arguments[0]} made no signature: exit status {process.returncode}", reason="hook")
    return made


def _converse(process: subprocess.Popen[bytes], message: bytes) -> bytes:
    if process.stdin is None or process.stdout is None:
        return b""
    # Who reads nothing may still sign: what it prints is verified.
    with contextlib.suppress(BrokenPipeError), process.stdin as pipe:
        pipe.write(message)
    return process.stdout.read(_SIGNATURE_BYTES + 1)


def _sign_fsverity(
    settings: Settings, image: Image, private: PrivateKey, certificate: Path, output: Path | None
) -> None:
    from cfsbuild.trust import fsverity_signature  # noqa: PLC0415

    image.read()
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
