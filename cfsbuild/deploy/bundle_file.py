"""A bundle's file: signed, or signed and sealed to this machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cfsbuild.errors import InputError, UsageError, VerificationError
from cfsbuild.trust import dsse, files, sealed, sealing, unseal_policy, unsealing
from cfsbuild.trust.enrolment import Enrolment
from cfsbuild.trust.storage_key import storage_key
from cfsbuild.trust.tpm.connection import Tpm
from cfsbuild.trust.unseal_policy import UnsealPolicy

_DOCUMENT = b'{"generation":'
"""How the document in a bundle begins: its first field by name."""


def is_sealed(path: Path) -> bool:
    """Say whether a file's name is that of a sealed bundle."""
    return path.name.endswith(sealed.SUFFIX)


def read_envelope(path: Path) -> bytes:
    """Return a signed bundle's bytes, nothing verified.

    Raises `VerificationError`, reason `malformed`, or `signature-missing` for a document that is not signed.
    """
    data = _read(path, dsse.ENVELOPE_BYTES)
    if data.startswith(_DOCUMENT):
        raise VerificationError(
            f"{path} is not signed",
            resolution="`cfsbuild sign` makes the .bundle of it",
            reason="signature-missing",
        )
    return data


def unseal_envelope(
    path: Path,
    tpm: Tpm | None,
    *,
    policy: Path | None = None,
    enrolled: Enrolment | None = None,
    pin: Callable[[], bytes] = unsealing.no_pin,
) -> bytes:
    """Return the signed bundle in a sealed one, nothing verified: anyone can seal to this machine.

    `policy` is the file of the unseal policy, NAME.policy.json beside it if none is named. Raises what
    `unsealing.unseal` raises; `VerificationError` (reason `tpm-missing`), `UsageError` (`policy-missing`).
    """
    if tpm is None:
        raise VerificationError(
            f"{path} is sealed, and there is no TPM to open it",
            resolution="name it: --tpm DEVICE",
            reason="tpm-missing",
        )
    data = _read(path, sealed.SEALED_BYTES)
    sealed.parse(data)
    document = read_policy(path, tpm, policy)
    name = None if enrolled is None else bytes.fromhex(enrolled.srk.name)
    return unsealing.unseal(tpm, data, document, pin=pin, srk_name=name)


def read_policy(path: Path, tpm: Tpm, given: Path | None = None) -> UnsealPolicy:
    """Return the policy of a sealed bundle: `given`, or beside it, for all machines or for this one.

    Raises `UsageError` (reason `policy-missing`), `VerificationError` (reason `malformed`), `TpmError`.
    """
    place = given
    if place is None:
        name = path.name.removesuffix(sealed.SUFFIX)
        place = path.with_name(name + unseal_policy.SUFFIX)
        if not place.exists():
            machine = sealing.machine_id_of(storage_key(tpm).name)
            place = path.with_name(f"{name}.{machine}{unseal_policy.SUFFIX}")
    try:
        return unseal_policy.decode(_read(place, unseal_policy.POLICY_BYTES))
    except FileNotFoundError as error:
        raise UsageError(
            f"there is no policy beside {path}" if given is None else f"there is no policy {given}",
            details=f"looked for {place}",
            resolution="name it: --policy FILE",
            reason="policy-missing",
        ) from error


def _read(path: Path, limit: int) -> bytes:
    try:
        return files.read_regular(path, limit=limit)
    except InputError as error:
        raise VerificationError(error.brief, details=error.details, reason="malformed") from error
