"""Credentials as systemd-creds encrypts them, but for the TPM of another machine.

The layout is that of systemd's src/shared/creds-util.c: little endian, padded to 8 bytes, in base64. In place
of a key that a TPM here wrapped is one that a TPM elsewhere can import; systemd 255 and later take both.
systemd makes its primary key anew for each credential, so what has to be known of the machine is not the
storage root key but that one (`legacy` in an enrolment).
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Mapping

import msgspec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cfsbuild.errors import InputError, UsageError
from cfsbuild.trust import key_files, pcr_signature
from cfsbuild.trust.keys import PublicKey
from cfsbuild.trust.registers import KERNEL_PCR
from cfsbuild.trust.tpm import offline, policy
from cfsbuild.trust.tpm.numbers import Alg
from cfsbuild.trust.tpm.structures import SYSTEMD_SIGNER, EccPublic, Public, name_of, signer_public
from cfsbuild.trust.tpm.wire import sized

SUFFIX = ".cred"
PAYLOAD_BYTES = 1 << 20
NEVER = (1 << 64) - 1

_BY_TPM = bytes.fromhex("0c7cc07b117645919c4b0bea08bc20fe")
_BY_TPM_AND_SIGNED_PCRS = bytes.fromhex("faf7eb9341e3412ca1a436f95a29362f")
_KEY_BYTES = 32
_IV_BYTES = 12
_TAG_BYTES = 16
_BLOCK_BYTES = 1
_NAME_BYTES = 255


class Conditions(msgspec.Struct, frozen=True):
    """When systemd opens a credential: registers have these values, and a key signed the one of PCR 11."""

    pcrs: Mapping[int, bytes]
    signer: PublicKey | None = None


def encrypt(
    payload: bytes, *, name: str, parent: Public, conditions: Conditions, not_after: int = NEVER
) -> bytes:
    """Return `payload` (at most 1 MiB) as a credential called `name`, for the TPM that has the key `parent`.

    `not_after` is in µs since 1970. Raises `UsageError` (reason `name`, `payload`, `pcr`, `key-algorithm`,
    `policy`), `InputError` (`parent`) for a parent that systemd would not make.
    """
    _check(payload, name, parent)
    secret, iv = os.urandom(_KEY_BYTES), os.urandom(_IV_BYTES)
    digest = policy_digest(conditions)
    sealed = offline.seal(secret, parent, digest)
    blob = sized(sealed.duplicate) + sized(sealed.public) + sized(sealed.seed)
    signer = conditions.signer
    kind = _BY_TPM if signer is None else _BY_TPM_AND_SIGNED_PCRS
    sizes = b"".join(map(_u32, (_KEY_BYTES, _BLOCK_BYTES, _IV_BYTES, _TAG_BYTES)))
    head = _padded(kind + sizes + iv)
    mask = sum(1 << number for number in conditions.pcrs)
    algorithms = _u16(Alg.SHA256) + _u16(Alg.ECC)
    head += _padded(_u64(mask) + algorithms + _u32(len(blob)) + _u32(len(digest)) + blob + digest)
    if signer is not None:
        pem = key_files.public_pem(signer)
        head += _padded(_u64(1 << KERNEL_PCR) + _u32(len(pem)) + pem)
    about = name.encode()
    inner = _padded(_u64(NEVER) + _u64(not_after) + _u32(len(about)) + about) + payload
    key = hashlib.sha256(secret).digest()
    return base64.encodebytes(head + AESGCM(key).encrypt(iv, inner, head))


def policy_digest(conditions: Conditions) -> bytes:
    """Return the digest of systemd's policy: PolicyAuthorize with an empty reference, then PolicyPCR."""
    digest = policy.START
    if conditions.signer is not None:
        pcr_signature.fingerprint(conditions.signer)  # raises for keys that systemd does not take
        digest = policy.authorize(name_of(signer_public(conditions.signer, SYSTEMD_SIGNER)), b"")
    if conditions.pcrs:
        digest = policy.pcr(digest, conditions.pcrs)
    if digest == policy.START:
        raise UsageError(
            "the credential would open in every state of the machine",
            resolution="name registers, or a policy key",
            reason="policy",
        )
    return digest


def _check(payload: bytes, name: str, parent: Public) -> None:
    if not (name.isascii() and name.isprintable() and 1 <= len(name) <= _NAME_BYTES):
        raise UsageError(f"a credential has a name in ASCII, of at most {_NAME_BYTES} bytes", reason="name")
    if "/" in name or name in {".", ".."}:
        raise UsageError(f"{name!r} is no name for a credential", reason="name")
    if len(payload) > PAYLOAD_BYTES:
        raise UsageError(f"a credential has at most {PAYLOAD_BYTES} bytes", reason="payload")
    if not isinstance(parent, EccPublic):
        raise InputError("systemd seals credentials to keys on P-256 only", reason="parent")


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 8)


def _u16(value: int) -> bytes:
    return value.to_bytes(2, "little")


def _u32(value: int) -> bytes:
    return value.to_bytes(4, "little")


def _u64(value: int) -> bytes:
    return value.to_bytes(8, "little")
