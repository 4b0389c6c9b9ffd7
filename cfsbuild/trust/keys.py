"""Keys: which kinds there are, how they sign, and what names them.

The list of kinds is fixed, and no document chooses among them: the key does.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable
from typing import TypeAlias

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

from cfsbuild.errors import InputError, UsageError

PrivateKey: TypeAlias = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
PublicKey: TypeAlias = ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey | rsa.RSAPublicKey

KEY_ID_BYTES = 16
KEY_ID = re.compile(rf"[0-9a-f]{{{2 * KEY_ID_BYTES}}}")

_EXPONENT = 65537
_SHA256 = hashes.SHA256()
_P256_BYTES = 32

# Ed25519 (RFC 8032): the points of order 1, 2, 4 and 8, by their y. Whoever likes can sign for such a key.
_FIELD = 2**255 - 19
_Y_OF_ORDER_8 = 2707385501144840649318225287225658788936804267575313519463743609750303402022
_SMALL_ORDER_Y = frozenset({0, 1, _FIELD - 1, _Y_OF_ORDER_8, _FIELD - _Y_OF_ORDER_8})


class KeyAlgorithm(enum.Enum):
    """The kinds of keys; the values are what users write."""

    ED25519 = "ed25519"
    P256 = "p256"
    RSA2048 = "rsa2048"
    RSA3072 = "rsa3072"


_RSA_BITS = {KeyAlgorithm.RSA2048: 2048, KeyAlgorithm.RSA3072: 3072}


def generate(algorithm: KeyAlgorithm) -> PrivateKey:
    """Return a new key."""
    if algorithm is KeyAlgorithm.ED25519:
        return ed25519.Ed25519PrivateKey.generate()
    if algorithm is KeyAlgorithm.P256:
        return ec.generate_private_key(ec.SECP256R1())
    return rsa.generate_private_key(_EXPONENT, _RSA_BITS[algorithm])


def algorithm_of(key: object) -> KeyAlgorithm:
    """Return a key's kind.

    Raises `InputError`: reason `key-algorithm` for one that is not on the list, `key-weak` for an Ed25519 key
    by which anybody could sign.
    """
    if isinstance(key, ed25519.Ed25519PublicKey):
        _check_point(key)
        return KeyAlgorithm.ED25519
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return KeyAlgorithm.ED25519
    if isinstance(key, ec.EllipticCurvePrivateKey | ec.EllipticCurvePublicKey):
        if isinstance(key.curve, ec.SECP256R1):
            return KeyAlgorithm.P256
        raise _unknown(f"an elliptic curve key on {key.curve.name}")
    if isinstance(key, rsa.RSAPrivateKey | rsa.RSAPublicKey):
        public = key if isinstance(key, rsa.RSAPublicKey) else key.public_key()
        exponent = public.public_numbers().e
        for algorithm, bits in _RSA_BITS.items():
            if public.key_size == bits and exponent == _EXPONENT:
                return algorithm
        raise _unknown(f"an RSA key of {public.key_size} bits, exponent of {exponent.bit_length()} bits")
    raise _unknown(f"a key of type {type(key).__name__}")


def _check_point(public: ed25519.Ed25519PublicKey) -> None:
    """Raise `InputError` for a point of small order, and for one that is not written in the only way."""
    y = int.from_bytes(public.public_bytes_raw(), "little") & ((1 << 255) - 1)  # the top bit is the sign of x
    if y in _SMALL_ORDER_Y or y >= _FIELD:
        raise InputError(
            "this Ed25519 key is none that anybody owns",
            details="a point of small order, or one that is not written in its only form",
            resolution="`cfsbuild key new` makes a good one",
            reason="key-weak",
        )


def pss_only(what: str) -> InputError:
    """Return the error for an RSA key that says that it is for PSS only (id-RSASSA-PSS, RFC 4055)."""
    return _unknown(f"{what}, an RSA-PSS one,")


def _unknown(what: str) -> InputError:
    return InputError(
        f"{what} cannot be used",
        resolution=f"use one of {', '.join(algorithm.value for algorithm in KeyAlgorithm)}",
        reason="key-algorithm",
    )


def public_der(public: CertificatePublicKeyTypes) -> bytes:
    """Return a public key of any kind as SubjectPublicKeyInfo in DER."""
    return public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def key_id(public: PublicKey) -> str:
    """Return the name of a key: the first 16 bytes of SHA-256 of its SubjectPublicKeyInfo (DER), in hex."""
    digest = hashes.Hash(hashes.SHA256())
    digest.update(public_der(public))
    return digest.finalize()[:KEY_ID_BYTES].hex()


def key_ids(names: Iterable[str]) -> frozenset[str]:
    """Return the ids in a list of keys. Raises `UsageError` (reason `key-id`) for what `key_id` never gives.

    A revoked key whose id is written in another way would still count.
    """
    ids = frozenset(names)
    for name in sorted(ids):
        if not KEY_ID.fullmatch(name):
            raise UsageError(
                f"{name!r} is not the id of a key",
                resolution=f"it has {2 * KEY_ID_BYTES} digits, 0 to 9 and a to f",
                reason="key-id",
            )
    return ids


def sign(private: PrivateKey, message: bytes, digest: hashes.HashAlgorithm = _SHA256) -> bytes:
    """Return the signature of `message`: raw for Ed25519, DER for P-256, PKCS#1 v1.5 for RSA.

    P-256 and RSA hash the message by `digest`. The same key and message give the same bytes, for P-256 where
    the library can (RFC 6979).
    """
    if isinstance(private, ed25519.Ed25519PrivateKey):
        return private.sign(message)
    if isinstance(private, rsa.RSAPrivateKey):
        return private.sign(message, padding.PKCS1v15(), digest)
    try:
        return private.sign(message, ec.ECDSA(digest, deterministic_signing=True))
    except UnsupportedAlgorithm:
        return private.sign(message, ec.ECDSA(digest))


def verifies(
    public: PublicKey, message: bytes, signature: bytes, digest: hashes.HashAlgorithm = _SHA256
) -> bool:
    """Say whether `signature`, in the form that `sign` gives, is of `message` and by this key's owner."""
    try:
        if isinstance(public, ed25519.Ed25519PublicKey):
            public.verify(signature, message)
        elif isinstance(public, rsa.RSAPublicKey):
            public.verify(signature, message, padding.PKCS1v15(), digest)
        else:
            public.verify(signature, message, ec.ECDSA(digest))
    except InvalidSignature:
        return False
    return True


def in_our_form(
    public: PublicKey, message: bytes, signature: bytes, digest: hashes.HashAlgorithm = _SHA256
) -> bytes | None:
    """Return a signature that another program made in the form that `sign` gives; None if it is not good.

    PKCS#11 (and IEEE P1363) write those of P-256 as two numbers of 32 bytes.
    """
    if verifies(public, message, signature, digest):
        return signature
    if not isinstance(public, ec.EllipticCurvePublicKey) or len(signature) != 2 * _P256_BYTES:
        return None
    r, s = (int.from_bytes(half, "big") for half in (signature[:_P256_BYTES], signature[_P256_BYTES:]))
    signature = utils.encode_dss_signature(r, s)
    return signature if verifies(public, message, signature, digest) else None
