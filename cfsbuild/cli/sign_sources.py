"""Where signatures come from: a private key here, a file, a command that signs."""

from __future__ import annotations

import contextlib
import shlex
import subprocess
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cfsbuild.cli.passphrases import ask_passphrase, given_passphrase
from cfsbuild.cli.sign_choice import Choice
from cfsbuild.errors import BuildError, UsageError

if TYPE_CHECKING:
    from cfsbuild.trust.keys import PrivateKey

_SIGNATURE_BYTES = 1 << 16
_COMMAND_SECONDS = 120


def private_keys(choice: Choice) -> list[PrivateKey]:
    """Return the keys of `--key`; from now on nobody can look into this process."""
    from cfsbuild.trust import key_files, process  # noqa: PLC0415 (help needs no cryptography)

    process.forbid_core_dumps()
    given = given_passphrase(choice.passphrase_fd, choice.passphrase_file)
    return [key_files.read_private_key(path, partial(_passphrase, given, path)) for path in choice.keys]


def _passphrase(given: bytes, path: Path) -> bytes:
    return given or ask_passphrase(str(path))


def made_elsewhere(choice: Choice, message: bytes) -> bytes:
    """Return the signature of `message` in the file of `--attach`, or what the command of `--with` prints."""
    from cfsbuild.trust import files  # noqa: PLC0415 (help needs no cryptography)

    if choice.attach is not None:
        return files.read_regular(choice.attach, limit=_SIGNATURE_BYTES)
    return _run(choice.hook or "", message)


def _run(hook: str, message: bytes) -> bytes:
    """Return what the command prints that gets `message` on its standard input; it has two minutes."""
    try:
        arguments = shlex.split(hook)
        process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    except (ValueError, IndexError, OSError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"{hook!r} cannot be run: {why}", reason="hook") from error
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
