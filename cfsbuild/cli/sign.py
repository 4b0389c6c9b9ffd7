"""`cfsbuild sign`: signatures of images, made here or elsewhere, in files beside them."""

from __future__ import annotations

from pathlib import Path

import click

from cfsbuild.cli.images import image_argument, open_image
from cfsbuild.cli.passphrases import passphrase_options
from cfsbuild.cli.settings import Settings, common_options, pass_settings
from cfsbuild.cli.sign_choice import Choice, check
from cfsbuild.cli.sign_document import sign_document
from cfsbuild.cli.sign_fsverity import sign_fsverity
from cfsbuild.cli.sign_subject import bundle_subject, image_subject
from cfsbuild.errors import UsageError

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("sign")
@common_options("json", "store", "dry_run")
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
    help="The public key of who signs, for --attach and --with (unless there is a CERT).",
)
@click.option(
    "--fsverity",
    "certificate",
    metavar="CERT",
    type=FILE,
    help="Make a PKCS#7 fs-verity signature by the key of the certificate in CERT, as `fsverity sign` does.",
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
    adds to the file. IMAGE can also be a mount bundle (.bundle.json, or .bundle to add to it). With -n no key
    is opened, no command is run, and nothing is written.
    """
    choice = Choice(
        keys=keys,
        export=export,
        attach=attach,
        hook=hook,
        public_key=public_key,
        certificate=certificate,
        name=name,
        version=image_version,
        output=output,
        passphrase_fd=passphrase_fd,
        passphrase_file=passphrase_file,
    )
    check(choice)
    bundle = bundle_subject(Path(image), choice)
    if bundle is not None:
        if certificate is not None:
            raise UsageError("an fs-verity signature is of an image, not of a bundle", reason="usage")
        sign_document(settings, bundle, choice)
        return
    opened = open_image(settings, image)
    if certificate is None:
        sign_document(settings, image_subject(image, opened, choice), choice)
    else:
        sign_fsverity(settings, opened, certificate, choice)
