"""Sealing to a TPM that is not here: all that is needed is the public area of one of its storage keys.

What comes out is what TPM2_Duplicate would give (part 1, 23.3, without an inner wrapper): TPM2_Import makes
an object of it under that storage key, and TPM2_Unseal releases the data when the policy holds.
Anyone can do this who has the public area: what a TPM releases proves nothing about who sealed it.
"""

from __future__ import annotations

import hashlib
import hmac
import os

import msgspec

from cfsbuild.errors import InputError, UsageError
from cfsbuild.trust.tpm import cfb
from cfsbuild.trust.tpm.kdf import kdfa, secret_for
from cfsbuild.trust.tpm.numbers import Alg, Attribute
from cfsbuild.trust.tpm.structures import (
    EccPublic,
    KeyedHashPublic,
    Public,
    RsaPublic,
    Symmetric,
    encode_public,
    name_of,
    public_key,
)
from cfsbuild.trust.tpm.wire import sized, u16

SECRET_BYTES = 128
"""Most bytes that a TPM seals (MAX_SYM_DATA)."""
AUTH_BYTES = 32
"""Longest auth value: that of the digest in the object's Name."""

_DIGEST_BYTES = 32
_STORAGE_KEY = Attribute.FIXED_TPM | Attribute.FIXED_PARENT | Attribute.RESTRICTED | Attribute.DECRYPT


class SealedObject(msgspec.Struct, frozen=True):
    """What TPM2_Import takes: TPMT_PUBLIC, and the contents of TPM2B_PRIVATE and TPM2B_ENCRYPTED_SECRET."""

    public: bytes
    duplicate: bytes
    seed: bytes


def seal(secret: bytes, parent: Public, auth_policy: bytes, auth: bytes = b"") -> SealedObject:
    """Return `secret` (1 to 128 bytes), sealed under a policy's digest to the TPM that has the key `parent`.

    With `auth` (a PIN, at most 32 bytes, not ending in NUL) the policy must have PolicyAuthValue, and wrong
    guesses count towards the TPM's lockout; without it, a lockout that others cause does not matter.
    Raises `UsageError` (reason `secret`, `pin` or `policy`) for other lengths, `InputError` (`parent`,
    `tpm-structure`) for a parent that can have no sealed children.
    """
    _check(secret, auth_policy, auth)
    check_parent(parent)
    salt = os.urandom(_DIGEST_BYTES)
    attributes = Attribute.ADMIN_WITH_POLICY | (0 if auth else Attribute.NO_DA)
    public = KeyedHashPublic(
        attributes=attributes, auth_policy=auth_policy, unique=hashlib.sha256(salt + secret).digest()
    )
    seed, encrypted_seed = secret_for(parent, b"DUPLICATE")
    sensitive = u16(Alg.KEYEDHASH) + sized(auth) + sized(salt) + sized(secret)
    duplicate = _wrap(seed, name_of(public), sized(sensitive), _symmetric_bits(parent))
    return SealedObject(encode_public(public), duplicate, encrypted_seed)


def check_parent(parent: Public) -> None:
    """Raise `InputError` (reason `parent` or `tpm-structure`) unless this is a storage key that we can use.

    That is a whole key on P-256 or of RSA-2048 with SHA-256 and AES in CFB mode, which never left its TPM.
    """
    wrong = ""
    if not isinstance(parent, EccPublic | RsaPublic):
        wrong = "it is no key"
    elif parent.name_alg != Alg.SHA256:
        wrong = f"its Name is not of SHA-256 but of algorithm {parent.name_alg:#x}"
    elif parent.attributes & (_STORAGE_KEY | Attribute.SIGN) != _STORAGE_KEY:
        wrong = f"it is not a storage key of one TPM only (attributes {parent.attributes:#x})"
    elif parent.symmetric not in {Symmetric(bits=128), Symmetric(bits=256)}:
        wrong = "it does not encrypt its children with AES in CFB mode"
    elif isinstance(parent, RsaPublic) and (parent.bits != 2048 or parent.exponent not in {0, 65537}):
        wrong = f"it is an RSA key of {parent.bits} bits, exponent {parent.exponent}"
    if wrong:
        raise InputError("nothing can be sealed to this TPM key", details=wrong, reason="parent")
    public_key(parent)


def _check(secret: bytes, auth_policy: bytes, auth: bytes) -> None:
    if not 1 <= len(secret) <= SECRET_BYTES:
        raise UsageError(
            f"a TPM seals 1 to {SECRET_BYTES} bytes, not {len(secret)}",
            resolution="encrypt what is longer, and seal the key",
            reason="secret",
        )
    if len(auth_policy) != _DIGEST_BYTES:
        raise UsageError(f"a policy's digest has {_DIGEST_BYTES} bytes", reason="policy")
    if len(auth) > AUTH_BYTES or auth.endswith(b"\0"):
        raise UsageError(f"a PIN has at most {AUTH_BYTES} bytes, the last not NUL", reason="pin")


def _symmetric_bits(parent: Public) -> int:
    if isinstance(parent, KeyedHashPublic) or parent.symmetric is None:
        return 0
    return parent.symmetric.bits


def _wrap(seed: bytes, name: bytes, sensitive: bytes, bits: int) -> bytes:
    """Return the outer wrapper: integrity, then what is encrypted (part 1, 22.4)."""
    key = kdfa(seed, b"STORAGE", name, b"", bits)
    encrypted = cfb.encrypt(key, bytes(16), sensitive)
    integrity_key = kdfa(seed, b"INTEGRITY", b"", b"", 8 * _DIGEST_BYTES)
    return sized(hmac.digest(integrity_key, encrypted + name, "sha256")) + encrypted
