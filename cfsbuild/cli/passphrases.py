"""Where passphrases and PINs come from: a terminal, a descriptor, a file; never an argument or a variable."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import click

from cfsbuild.errors import UsageError

Function = TypeVar("Function", bound=Callable[..., Any])


class Secret(NamedTuple):
    """What is asked for: its options (`--WORD-fd`), what messages call it, its longest length in bytes."""

    word: str
    noun: str
    limit: int


PASSPHRASE = Secret("passphrase", "passphrase", 1023)
PIN = Secret("pin", "PIN", 32)
"""Of a TPM; what is longer than a digest has no place in it."""


def passphrase_options(function: Function) -> Function:
    """Add `--passphrase-fd` and `--passphrase-file`, as parameters of those names."""
    return _options(PASSPHRASE, "the key's passphrase")(function)


def pin_options(function: Function) -> Function:
    """Add `--pin-fd` and `--pin-file`, as parameters of those names."""
    return _options(PIN, "the PIN")(function)


def _options(secret: Secret, what: str) -> Callable[[Function], Function]:
    from_fd = click.option(
        f"--{secret.word}-fd",
        metavar="N",
        type=click.IntRange(min=0, max=2**31 - 1),
        help=f"Read {what} from file descriptor N.",
    )
    from_file = click.option(
        f"--{secret.word}-file",
        metavar="FILE",
        type=click.Path(path_type=Path),
        help=f"Read {what} from FILE.",
    )
    return lambda function: from_fd(from_file(function))


def given_passphrase(fd: int | None, file: Path | None, secret: Secret = PASSPHRASE) -> bytes:
    """Return the passphrase that an option points to, without its newline; empty if there is no such option.

    Raises `UsageError` for two of them, a file that others can read, no bytes or more than there may be.
    """
    if fd is not None and file is not None:
        raise UsageError(f"--{secret.word}-fd and --{secret.word}-file are given", reason=secret.word)
    if fd is None and file is None:
        return b""
    try:
        where = os.dup(fd) if fd is not None else os.open(file or "", os.O_RDONLY | os.O_CLOEXEC)
        data = _read(where, file, secret)
    except OSError as error:
        raise UsageError(
            f"the {secret.noun} cannot be read: {error.strerror}",
            details=str(file or f"file descriptor {fd}"),
            reason=secret.word,
        ) from error
    return _checked(data.removesuffix(b"\n").removesuffix(b"\r"), secret)


def _checked(text: bytes, secret: Secret) -> bytes:
    if not text or len(text) > secret.limit or b"\0" in text:
        raise UsageError(
            f"a {secret.noun} has 1 to {secret.limit} bytes, none of them NUL", reason=secret.word
        )
    return text


def _read(fd: int, path: Path | None, secret: Secret) -> bytes:
    with open(fd, "rb") as file:
        status = os.fstat(fd)
        if path is not None and stat.S_ISREG(status.st_mode) and status.st_mode & 0o077:
            raise UsageError(
                f"others can read the {secret.noun} in {path}",
                resolution=f"chmod 600 {path}",
                reason=secret.word,
            )
        return file.read(secret.limit + 3)


def ask_passphrase(what: str, *, twice: bool = False, secret: Secret = PASSPHRASE) -> bytes:
    """Ask at the terminal. Raises `UsageError` where there is none."""
    elsewhere = f"use --{secret.word}-fd or --{secret.word}-file"
    if not sys.stdin.isatty():
        raise UsageError(
            f"{what} needs a {secret.noun}, and there is no terminal to ask at",
            resolution=elsewhere,
            reason=secret.word,
        )
    prompt = f"{secret.noun[:1].upper()}{secret.noun[1:]} for {what}"
    try:
        text: str = click.prompt(prompt, hide_input=True, confirmation_prompt=twice, err=True)
        return _checked(text.encode(), secret)
    except UnicodeError as error:
        raise UsageError("what was typed is not text", resolution=elsewhere, reason=secret.word) from error
