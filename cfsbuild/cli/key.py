"""`cfsbuild key`: make signing keys, and say what a key is."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from cfsbuild.cli.output import note, write_json, write_lines
from cfsbuild.cli.passphrases import ask_passphrase, given_passphrase, passphrase_options
from cfsbuild.cli.settings import Settings, common_options, pass_settings
from cfsbuild.errors import StoreError, UsageError

KEY_VERSION = 1
ALGORITHMS = ("ed25519", "p256", "rsa2048", "rsa3072")


class KeyFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a key is. `private` and `public` are the files that were written, empty for `key show`.

    In a dry run there is no key, and `id` is empty.
    """

    version: int = KEY_VERSION
    id: str
    algorithm: str
    private: str = ""
    public: str = ""
    dry_run: bool = False


@click.group("key")
def command() -> None:
    """Make signing keys, and say what a key is."""


@command.command("new")
@common_options("json", "dry_run")
@click.option(
    "--algorithm",
    type=click.Choice(ALGORITHMS),
    default="ed25519",
    show_default=True,
    help="Kind of key. The kernel's fs-verity signatures need rsa2048, rsa3072 or p256.",
)
@click.option("--encrypt", is_flag=True, help="Ask for a passphrase.")
@passphrase_options
@click.argument("name", metavar="NAME", type=click.Path(path_type=Path))
@pass_settings
def new(  # noqa: PLR0913 (one parameter an option)
    settings: Settings,
    name: Path,
    *,
    algorithm: str,
    encrypt: bool,
    passphrase_fd: int | None,
    passphrase_file: Path | None,
) -> None:
    """Make a key: NAME.key, which only its owner can read, and NAME.pub for those who verify.

    Prints the key's id, by which signatures name it.
    """
    from cfsbuild.trust import key_files, keys, process  # noqa: PLC0415 (help needs no cryptography)

    if settings.dry_run:
        private, public = key_files.key_pair_paths(name)
        _tell(
            settings,
            KeyFacts(id="", algorithm=algorithm, private=str(private), public=str(public), dry_run=True),
        )
        return
    process.forbid_core_dumps()
    passphrase = given_passphrase(passphrase_fd, passphrase_file)
    if encrypt and not passphrase:
        passphrase = ask_passphrase(str(name), twice=True)
    key = keys.generate(keys.KeyAlgorithm(algorithm))
    try:
        private, public = key_files.write_key_pair(name, key, passphrase)
    except OSError as error:
        raise StoreError(
            f"the key cannot be written: {error.strerror}", details=str(error.filename or name)
        ) from error
    if not settings.json:
        note(settings, f"{private} (keep it secret), {public}")
    _tell(
        settings,
        KeyFacts(
            id=keys.key_id(key.public_key()), algorithm=algorithm, private=str(private), public=str(public)
        ),
    )


@command.command("show")
@common_options("json")
@passphrase_options
@click.argument("file", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@pass_settings
def show(settings: Settings, file: Path, *, passphrase_fd: int | None, passphrase_file: Path | None) -> None:
    """Print the id and the kind of the key in FILE, public or private."""
    from cfsbuild.trust import key_files, keys, process  # noqa: PLC0415 (help needs no cryptography)

    try:
        public = key_files.read_public_key(file)
    except UsageError as error:
        if error.reason != "key-private":
            raise
        process.forbid_core_dumps()
        given = given_passphrase(passphrase_fd, passphrase_file)
        public = key_files.read_private_key(file, lambda: given or ask_passphrase(str(file))).public_key()
    _tell(settings, KeyFacts(id=keys.key_id(public), algorithm=keys.algorithm_of(public).value))


def _tell(settings: Settings, facts: KeyFacts) -> None:
    if settings.json:
        write_json(facts)
    elif facts.dry_run:
        write_lines([f"would make a key of kind {facts.algorithm}: {facts.private}, {facts.public}"])
    else:
        write_lines([f"{facts.id}  {facts.algorithm}"])
