"""Where passphrases come from: the terminal, a file descriptor or a file; never an argument or a variable."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from cfsbuild.errors import UsageError

Function = TypeVar("Function", bound=Callable[..., Any])

_BYTES = 1023


def passphrase_options(function: Function) -> Function:
    """Add `--passphrase-fd` and `--passphrase-file`, as parameters of those names."""
    from_fd = click.option(
        "--passphrase-fd",
        metavar="N",
        type=click.IntRange(min=0, max=2**31 - 1),
        help="Read the key's passphrase from file descriptor N.",
    )
    from_file = click.option(
        "--passphrase-file",
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="Read the key's passphrase from FILE.",
    )
    return from_fd(from_file(function))


def given_passphrase(fd: int | None, file: Path | None) -> bytes:
    """Return the passphrase that an option points to, without its newline; empty if there is no such option.

    Raises `UsageError` for two of them, a file that others can read, no bytes or more than 1023.
    """
    if fd is not None and file is not None:
        raise UsageError("--passphrase-fd and --passphrase-file are given", reason="passphrase")
    if fd is None and file is None:
        return b""
    try:
        data = _read(os.dup(fd) if fd is not None else os.open(file or "", os.O_RDONLY | os.O_CLOEXEC), file)
    except OSError as error:
        raise UsageError(
            f"the passphrase cannot be read: {error.strerror}",
            details=str(file or f"file descriptor {fd}"),
            reason="passphrase",
        ) from error
    return _checked(data.removesuffix(b"\n").removesuffix(b"\r"))


def _checked(passphrase: bytes) -> bytes:
    if not passphrase or len(passphrase) > _BYTES or b"\0" in passphrase:
        raise UsageError(f"a passphrase has 1 to {_BYTES} bytes, none of them NUL", reason="passphrase")
    return passphrase


def _read(fd: int, path: Path | None) -> bytes:
    with open(fd, "rb") as file:
        status = os.fstat(fd)
        if path is not None and stat.S_ISREG(status.st_mode) and status.st_mode & 0o077:
            raise UsageError(
                f"others can read the passphrase in {path}",
                resolution=f"chmod 600 {path}",
                reason="passphrase",
            )
        return file.read(_BYTES + 3)


def ask_passphrase(what: str, *, twice: bool = False) -> bytes:
    """Ask at the terminal. Raises `UsageError` where there is none."""
    if not sys.stdin.isatty():
        raise UsageError(
            f"{what} needs a passphrase, and there is no terminal to ask at",
            resolution="use --passphrase-fd or --passphrase-file",
            reason="passphrase",
        )
    try:
        text: str = click.prompt(
            f"Passphrase for {what}", hide_input=True, confirmation_prompt=twice, err=True
        )
        return _checked(text.encode())
    except UnicodeError as error:
        raise UsageError(
            "what was typed is not text",
            resolution="use --passphrase-fd or --passphrase-file",
            reason="passphrase",
        ) from error
