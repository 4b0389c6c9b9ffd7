"""Key derivation of TPM 2.0 with SHA-256 (part 1, 11.4.10): KDFa of a secret, KDFe of a shared point."""

from __future__ import annotations

import hashlib
import hmac

from cfsbuild.trust.tpm.wire import u32

_HASH_BITS = 256


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
