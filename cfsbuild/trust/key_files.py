"""Where keys lie: private ones in PKCS#8 PEM that only their owner can read, public ones beside them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from cfsbuild.errors import InputError, UsageError
from cfsbuild.trust.files import read_regular
from cfsbuild.trust.keys import PrivateKey, PublicKey, algorithm_of

PRIVATE_SUFFIX = ".key"
PUBLIC_SUFFIX = ".pub"

_FILE_BYTES = 1 << 16
_BEGIN = b"-----BEGIN "
_PRIVATE = b"-----BEGIN PRIVATE KEY-----"
_ENCRYPTED = b"-----BEGIN ENCRYPTED PRIVATE KEY-----"
_PUBLIC = b"-----BEGIN PUBLIC KEY-----"


def write_key_pair(base: Path, private: PrivateKey, passphrase: bytes = b"") -> tuple[Path, Path]:
    """Write BASE.key (mode 0600, encrypted if there is a passphrase) and BASE.pub; return both paths.

    Never replaces a file: raises `UsageError` if one of them is there or BASE is no name, `OSError`.
    """
    if base.name in {"", ".."}:
        raise UsageError(f"{str(base)!r} is no name for a key", resolution="name a file", reason="name")
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase:
        encryption = serialization.BestAvailableEncryption(passphrase)
    secret = private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    files = (
        (base.with_name(base.name + PRIVATE_SUFFIX), secret, 0o600),
        (base.with_name(base.name + PUBLIC_SUFFIX), public_pem(private.public_key()), 0o644),
    )
    written: list[Path] = []
    try:
        for path, data, mode in files:
            _write_new(path, data, mode, written)
    except BaseException:
        for path in written:
            path.unlink(missing_ok=True)
        raise
    return files[0][0], files[1][0]


def _write_new(path: Path, data: bytes, mode: int, written: list[Path]) -> None:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    except FileExistsError:
        raise UsageError(
            f"{path} is there already",
            resolution="choose another name; a key that is replaced cannot be had back",
            reason="key-exists",
        ) from None
    written.append(path)
    with open(fd, "wb") as file:  # noqa: PTH123 (a descriptor)
        os.fchmod(fd, mode)
        file.write(data)
        file.flush()
        os.fsync(fd)


def public_pem(public: PublicKey) -> bytes:
    """Return a public key as SubjectPublicKeyInfo in PEM."""
    return public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def read_private_key(path: Path, ask: Callable[[], bytes]) -> PrivateKey:
    """Return the private key in `path`; `ask` is called for the passphrase if it needs one.

    Raises `UsageError` for a file that others can read, or a wrong passphrase; `InputError` for what is no
    PKCS#8 PEM of a kind that `algorithm_of` knows; `OSError`.
    """
    data = read_regular(path, limit=_FILE_BYTES, private=True)
    form = _form(data)
    if form not in {_PRIVATE, _ENCRYPTED}:
        raise InputError(
            f"{path} is not a private key in PKCS#8 PEM",
            resolution=f"openssl pkcs8 -topk8 -in {path} makes one of other private keys",
            reason="key-form",
        )
    try:
        key = serialization.load_pem_private_key(data, ask() if form == _ENCRYPTED else None)
    except (ValueError, TypeError) as error:
        if form == _ENCRYPTED:
            raise UsageError(
                f"the passphrase does not open {path}", details=str(error), reason="passphrase"
            ) from None
        raise _malformed(path) from error
    except UnsupportedAlgorithm as error:
        raise _malformed(path) from error
    algorithm_of(key)
    return key  # type: ignore[return-value]  # `algorithm_of` raises for all others


def read_public_key(path: Path) -> PublicKey:
    """Return the public key in `path`.

    Raises `UsageError` for a private key, `InputError` for what is no SubjectPublicKeyInfo in PEM of a kind
    that `algorithm_of` knows; `OSError`.
    """
    data = read_regular(path, limit=_FILE_BYTES)
    form = _form(data)
    if b"PRIVATE KEY" in form:
        raise UsageError(
            f"{path} is a private key",
            resolution="name the public one: who only verifies must not have the private one",
            reason="key-private",
        )
    if form != _PUBLIC:
        raise InputError(f"{path} is not a public key in PEM", reason="key-form")
    try:
        key = serialization.load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _malformed(path) from error
    algorithm_of(key)
    return key  # type: ignore[return-value]  # `algorithm_of` raises for all others


def _malformed(path: Path) -> InputError:
    return InputError(f"the key in {path} is malformed", reason="key-form")


def _form(data: bytes) -> bytes:
    """Return the first line of the only PEM block in a file; empty if there is not exactly one."""
    if data.count(_BEGIN) != 1:
        return b""
    return data[data.index(_BEGIN) :].split(b"\n", 1)[0].rstrip(b"\r")
