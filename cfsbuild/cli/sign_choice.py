"""What the options of `cfsbuild sign` say, and which of them go together."""

from __future__ import annotations

from pathlib import Path

import msgspec

from cfsbuild.errors import UsageError

SIGNED_VERSION = 1


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """How to sign: exactly one of `keys`, `export`, `attach` and `hook` is given."""

    keys: tuple[Path, ...]
    export: Path | None
    attach: Path | None
    hook: str | None
    public_key: Path | None
    certificate: Path | None
    name: str | None
    version: str | None
    output: Path | None
    passphrase_fd: int | None
    passphrase_file: Path | None


def check(choice: Choice) -> None:
    """Raise `UsageError` for options that do not go together: none is ever ignored."""
    ways = [choice.keys, choice.export, choice.attach, choice.hook]
    if sum(way not in {None, ()} for way in ways) != 1:
        raise UsageError(
            "exactly one of --key, --export, --attach and --with says how to sign",
            resolution="`cfsbuild key new NAME` makes a key; then --key NAME.key",
            reason="usage",
        )
    elsewhere = choice.attach is not None or choice.hook is not None
    if choice.certificate is not None:
        _check_fsverity(choice)
    elif (choice.public_key is not None) != elsewhere:
        raise UsageError(
            "--public-key goes with --attach and --with: what was made elsewhere is verified first",
            reason="usage",
        )
    if choice.export is not None and choice.output is not None:
        raise UsageError(
            "--output names the signature file, and --export makes none",
            resolution="use it with --attach",
            reason="usage",
        )
    if not choice.keys and (choice.passphrase_fd is not None or choice.passphrase_file is not None):
        raise UsageError("a passphrase opens the key of --key, and there is none", reason="usage")


def _check_fsverity(choice: Choice) -> None:
    if len(choice.keys) > 1:
        raise UsageError("an fs-verity signature has one signer", resolution="name one --key", reason="usage")
    if choice.name is not None or choice.version is not None:
        raise UsageError(
            "an fs-verity signature names no image and no version",
            resolution="leave out --name and --image-version, or sign without --fsverity as well",
            reason="usage",
        )
    if choice.public_key is not None:
        raise UsageError("with --fsverity the certificate says the public key", reason="usage")
