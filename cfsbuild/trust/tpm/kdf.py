"""Key derivation and secret sharing of TPM 2.0 with SHA-256.

KDFa derives from a secret, KDFe from a shared point (part 1, 11.4.10); a secret is shared with the owner of
a decryption key by RSA-OAEP or by ECDH and KDFe (part 1, B.10 and C.6).
"""

from __future__ import annotations

import hashlib
import hmac
import os
from typing import NamedTuple

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from cfsbuild.trust.tpm.structures import Public, coordinate, public_key
from cfsbuild.trust.tpm.wire import sized, u32

_HASH_BITS = 256


class SharedSecret(NamedTuple):
    """A secret of 32 bytes, and how the TPM gets it: encrypted to a key of it (TPMU_ENCRYPTED_SECRET)."""

    secret: bytes
    encrypted: bytes


def kdfa(key: bytes, label: bytes, party_u: bytes, party_v: bytes, bits: int) -> bytes:
    """Return `bits` (a multiple of 8) that follow from `key`; `label` is without its NUL."""
    context = label + b"\0" + party_u + party_v + u32(bits)
    blocks = [
        hmac.digest(key, u32(number) + context, "sha256") for number in range(1, 1 + -(-bits // _HASH_BITS))
    ]
    return b"".join(blocks)[: bits // 8]


def kdfe(shared_x: bytes, label: bytes, party_u_x: bytes, party_v_x: bytes, bits: int) -> bytes:
    """Return `bits` (a multiple of 8) that follow from a shared point; `label` is without its NUL.

    The coordinates are of the shared point, the key that was made for this, and the recipient's key, each as
    long as the curve's field: 32 bytes for P-256, leading zeros included.
    """
    context = shared_x + label + b"\0" + party_u_x + party_v_x
    blocks = [
        hashlib.sha256(u32(number) + context).digest() for number in range(1, 1 + -(-bits // _HASH_BITS))
    ]
    return b"".join(blocks)[: bits // 8]


def secret_for(public: Public, label: bytes) -> SharedSecret:
    """Return a fresh secret for the owner of a decryption key; `label`, without its NUL, says what for.

    Raises `InputError` (`tpm-structure`) for what is no whole key.
    """
    key = public_key(public)
    if isinstance(key, rsa.RSAPublicKey):
        secret = os.urandom(_HASH_BITS // 8)
        oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), label + b"\0")
        return SharedSecret(secret, key.encrypt(secret, oaep))
    ephemeral = ec.generate_private_key(key.curve)
    shared = ephemeral.exchange(ec.ECDH(), key)
    point = ephemeral.public_key().public_numbers()
    x, y = coordinate(point.x), coordinate(point.y)
    secret = kdfe(shared, label, x, coordinate(key.public_numbers().x), _HASH_BITS)
    return SharedSecret(secret, sized(x) + sized(y))
