"""Where keys lie: private ones in PKCS#8 PEM that only their owner can read, public ones beside them."""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from cfsbuild.errors import InputError, UsageError
from cfsbuild.store import syscalls
from cfsbuild.trust.files import read_regular
from cfsbuild.trust.keys import PrivateKey, PublicKey, algorithm_of, pss_only

PRIVATE_SUFFIX = ".key"
PUBLIC_SUFFIX = ".pub"

_FILE_BYTES = 1 << 16
_BEGIN = b"-----BEGIN "
_PRIVATE = b"-----BEGIN PRIVATE KEY-----"
_ENCRYPTED = b"-----BEGIN ENCRYPTED PRIVATE KEY-----"
_PUBLIC = b"-----BEGIN PUBLIC KEY-----"
_RSASSA_PSS = bytes.fromhex("06092a864886f70d01010a")


def key_pair_paths(base: Path) -> tuple[Path, Path]:
    """Return where the private and the public key called BASE lie: BASE.key, BASE.pub.

    Raises `UsageError` if BASE is no name, or one of them is there: a key is never replaced.
    """
    if base.name in {"", ".."}:
        raise UsageError(f"{str(base)!r} is no name for a key", resolution="name a file", reason="name")
    paths = base.with_name(base.name + PRIVATE_SUFFIX), base.with_name(base.name + PUBLIC_SUFFIX)
    for path in paths:
        if os.path.lexists(path):
            raise _is_there(path)
    return paths


def public_keys_in(directory: Path) -> tuple[Path, ...]:
    """Return the files with public keys in `directory`, sorted; none where it does not exist."""
    return tuple(sorted(directory.glob(f"*{PUBLIC_SUFFIX}")))


def write_key_pair(base: Path, private: PrivateKey, passphrase: bytes = b"") -> tuple[Path, Path]:
    """Write BASE.key (mode 0600, encrypted if there is a passphrase) and BASE.pub; return both paths.

    Both are whole before either has its name, the private one first. Raises as `key_pair_paths`; `OSError`.
    """
    paths = key_pair_paths(base)
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase:
        encryption = serialization.BestAvailableEncryption(passphrase)
    secret = private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    public = public_pem(private.public_key())
    directory = os.open(base.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with _staged(directory, secret, 0o600) as first, _staged(directory, public, 0o644) as second:
            _name(directory, [(first, paths[0]), (second, paths[1])])
    finally:
        os.close(directory)
    return paths


@contextlib.contextmanager
def _staged(directory: int, data: bytes, mode: int) -> Iterator[str]:
    """Write a file of a name that nobody looks for; it is gone in the end unless it was renamed."""
    name = f".cfsbuild-key.{os.urandom(8).hex()}"
    try:
        syscalls.write_file(directory, name, data, mode=mode, sync=True)
        yield name
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=directory)


def _name(directory: int, files: list[tuple[str, Path]]) -> None:
    """Give staged files their names: all of them, or none after an error."""
    named: list[Path] = []
    try:
        for staged, path in files:
            try:
                syscalls.rename_new(directory, staged, directory, path.name)
            except FileExistsError:
                raise _is_there(path) from None
            named.append(path)
        os.fsync(directory)
    except BaseException:
        for path in named:
            os.unlink(path.name, dir_fd=directory)
        raise


def _is_there(path: Path) -> UsageError:
    return UsageError(
        f"{path} is there already",
        resolution="choose another name; a key that is replaced cannot be had back",
        reason="key-exists",
    )


def public_pem(public: PublicKey) -> bytes:
    """Return a public key as SubjectPublicKeyInfo in PEM."""
    return public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def read_private_key(path: Path, ask: Callable[[], bytes]) -> PrivateKey:
    """Return the private key in `path`; `ask` is called for the passphrase if it needs one.

    Raises `UsageError` for a file that others can read, or a wrong passphrase; `InputError` for what is no
    PKCS#8 PEM of a kind that `algorithm_of` knows; `OSError`.
    """
    if _form(read_regular(path, limit=_FILE_BYTES)) == _PUBLIC:
        raise UsageError(
            f"{path} is a public key",
            resolution=f"name the private one, which `key new` called NAME{PRIVATE_SUFFIX}",
            reason="key-public",
        )
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
    # An encrypted one does not show it; but its certificate does, and nothing is signed by RSA without one.
    _check_not_pss(path, data)
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
    _check_not_pss(path, data)
    algorithm_of(key)
    return key  # type: ignore[return-value]  # `algorithm_of` raises for all others


def _check_not_pss(path: Path, data: bytes) -> None:
    """Raise `InputError` for a key that is for RSA-PSS only: the library takes it for any RSA key."""
    body = data[data.index(_BEGIN) :].partition(b"\n")[2].partition(b"-----END")[0]
    with contextlib.suppress(binascii.Error):
        if _RSASSA_PSS in base64.b64decode(body):
            raise pss_only(f"the key in {path}")


def _malformed(path: Path) -> InputError:
    return InputError(f"the key in {path} is malformed", reason="key-form")


def _form(data: bytes) -> bytes:
    """Return the first line of the only PEM block in a file; empty if there is not exactly one."""
    if data.count(_BEGIN) != 1:
        return b""
    return data[data.index(_BEGIN) :].split(b"\n", 1)[0].rstrip(b"\r")
