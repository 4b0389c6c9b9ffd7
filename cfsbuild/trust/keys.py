"""Keys: which kinds there are, how they sign, and what names them.

The list of kinds is fixed, and no document chooses among them: the key does.
"""

from __future__ import annotations

import enum
from typing import TypeAlias

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

from cfsbuild.errors import InputError

PrivateKey: TypeAlias = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
PublicKey: TypeAlias = ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey | rsa.RSAPublicKey

KEY_ID_BYTES = 16

_EXPONENT = 65537


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
    """Return a key's kind. Raises `InputError` (reason `key-algorithm`) for one that is not on the list."""
    if isinstance(key, ed25519.Ed25519PrivateKey | ed25519.Ed25519PublicKey):
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


def sign(private: PrivateKey, message: bytes) -> bytes:
    """Return the signature of `message`: raw for Ed25519, DER for P-256, PKCS#1 v1.5 for RSA; SHA-256.

    The same key and message give the same bytes, for P-256 where the library can (RFC 6979).
    """
    if isinstance(private, ed25519.Ed25519PrivateKey):
        return private.sign(message)
    if isinstance(private, rsa.RSAPrivateKey):
        return private.sign(message, padding.PKCS1v15(), hashes.SHA256())
    try:
        return private.sign(message, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
    except UnsupportedAlgorithm:
        return private.sign(message, ec.ECDSA(hashes.SHA256()))


def verifies(public: PublicKey, message: bytes, signature: bytes) -> bool:
    """Say whether `signature`, in the form that `sign` gives, is of `message` and by this key's owner."""
    try:
        if isinstance(public, ed25519.Ed25519PublicKey):
            public.verify(signature, message)
        elif isinstance(public, rsa.RSAPublicKey):
            public.verify(signature, message, padding.PKCS1v15(), hashes.SHA256())
        else:
            public.verify(signature, message, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True
