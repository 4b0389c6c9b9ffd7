"""The storage root key of this machine's TPM: sessions are salted to it, and things are sealed under it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from cfsbuild.errors import TpmError, VerificationError
from cfsbuild.trust.tpm import commands, response_codes
from cfsbuild.trust.tpm.commands import Loaded
from cfsbuild.trust.tpm.connection import Tpm
from cfsbuild.trust.tpm.numbers import PERSISTENT_SRK
from cfsbuild.trust.tpm.offline import check_parent
from cfsbuild.trust.tpm.response_codes import ResponseError
from cfsbuild.trust.tpm.session import Session


def storage_key(tpm: Tpm, *, name: bytes | None = None) -> Loaded:
    """Return the storage root key, which lies at 0x81000001.

    It is read and never made again from a template: Windows and Linux make different ones. Raises
    `TpmError` (reason `srk-missing`, `tpm-key-kind`), `InputError` (`parent`) for a key under which nothing
    can be sealed; with a `name`, `VerificationError` (`srk-name`) for a key of another Name, which is
    what something between this machine and its TPM would have.
    """
    try:
        key = commands.read_public(tpm, PERSISTENT_SRK)
    except ResponseError as error:
        if not error.is_of(response_codes.HANDLE):
            raise
        raise TpmError(
            "the TPM has no storage root key",
            details=f"there is nothing at 0x{PERSISTENT_SRK:08x}",
            resolution="`cfsbuild enroll --create-srk` makes one",
            reason="srk-missing",
        ) from error
    check_parent(key.public)
    if name is not None and key.name != name:
        raise VerificationError(
            "the TPM's storage root key is another one",
            details=f"expected {name.hex()}\nfound    {key.name.hex()}",
            resolution="the TPM was cleared or replaced, or something stands between",
            reason="srk-name",
        )
    return key


@contextlib.contextmanager
def as_owner() -> Iterator[None]:
    """Say of what needs the owner's authorization and fails that the owner has a password (`owner-auth`)."""
    try:
        yield
    except ResponseError as error:
        if not error.is_of(response_codes.BAD_AUTH, response_codes.AUTH_FAIL):
            raise
        raise TpmError(
            "the owner of the TPM has a password",
            details=error.brief,
            resolution="take it away while this is done: tpm2_changeauth -c owner -p PASSWORD",
            reason="owner-auth",
        ) from error


@contextlib.contextmanager
def salted_session(tpm: Tpm, key: Loaded | None = None, *, policy: bool = False) -> Iterator[Session]:
    """Give a session salted to the storage root key (read before, or read now); it ends with the block."""
    session = commands.start_session(tpm, key or storage_key(tpm), policy=policy)
    with tpm.holding(session.entity.handle):
        yield session
