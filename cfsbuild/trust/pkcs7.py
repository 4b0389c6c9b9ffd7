"""PKCS#7 SignedData (RFC 2315) in the one form that `fsverity sign` writes, and nothing else.

One signer, named by the issuer and serial number of a certificate; no content, attributes or certificates.
All bytes but the signature follow from the certificate and the hash: what is read is compared with what would
be written, and taken apart only to say why it differs.
"""

from __future__ import annotations

from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from cfsbuild.errors import VerificationError
from cfsbuild.fsverity.algorithm import Algorithm
from cfsbuild.trust import canonical, der

WHAT = "the PKCS#7 signature"

_SIGNED_DATA = bytes.fromhex("06092a864886f70d010702")
_DATA = bytes.fromhex("06092a864886f70d010701")
_NULL = b"\x05\x00"
_VERSION_1 = b"\x02\x01\x01"
_RSA = der.encode(der.SEQUENCE, bytes.fromhex("06092a864886f70d010101"), _NULL)
_ECDSA = {
    Algorithm.SHA256: der.encode(der.SEQUENCE, bytes.fromhex("06082a8648ce3d040302")),
    Algorithm.SHA512: der.encode(der.SEQUENCE, bytes.fromhex("06082a8648ce3d040304")),
}
_HASH = {
    Algorithm.SHA256: der.encode(der.SEQUENCE, bytes.fromhex("0609608648016503040201"), _NULL),
    Algorithm.SHA512: der.encode(der.SEQUENCE, bytes.fromhex("0609608648016503040203"), _NULL),
}

# DER of two integers of up to 33 bytes; far fewer than eight bytes would be no signature.
_ECDSA_BYTES = range(8, 73)


class Parts(NamedTuple):
    """What a signature says: the hash of the message, the signature itself."""

    algorithm: Algorithm
    signature: bytes


def encode(certificate: x509.Certificate, parts: Parts) -> bytes:
    """Return the DER of a signature by the owner of `certificate`, an RSA or P-256 one."""
    return _encode(_signer_name(certificate), _key_algorithm(certificate, parts.algorithm), parts)


def _encode(signer_name: bytes, key_algorithm: bytes, parts: Parts) -> bytes:
    digest = _HASH[parts.algorithm]
    signature = der.encode(der.OCTET_STRING, parts.signature)
    signer = der.encode(der.SEQUENCE, _VERSION_1, signer_name, digest, key_algorithm, signature)
    signed_data = der.encode(
        der.SEQUENCE,
        _VERSION_1,
        der.encode(der.SET, digest),
        der.encode(der.SEQUENCE, _DATA),
        der.encode(der.SET, signer),
    )
    return der.encode(der.SEQUENCE, _SIGNED_DATA, der.encode(der.CONTEXT_0, signed_data))


def decode(data: bytes, certificate: x509.Certificate) -> Parts:
    """Return what `encode` made `data` of; the signature is not verified.

    Raises `VerificationError`: `malformed`, or what is in it that should not be: `signature-attached` (the
    content), `signature-certificates`, `signature-signers` (none or several), `signature-attributes`,
    `signature-other-signer` (another certificate's owner), `signature-algorithm`.
    """
    name, sizes = _signer_name(certificate), _signature_sizes(certificate)
    for algorithm in Algorithm:
        kind = _key_algorithm(certificate, algorithm)
        for size in sizes:
            parts = Parts(algorithm, data[-size:])
            if _encode(name, kind, parts) == data:
                return parts
    raise _why_not(data, certificate)


def loose_signature(data: bytes) -> bytes | None:
    """Return the signature of the only signer in SignedData of any form; None if `data` is none.

    For whoever verifies it next, and writes it again in the form of `encode`. Raises `VerificationError`
    (reason `signature-attributes`) if what it signs are attributes.
    """
    try:
        signer = der.elements(der.only(_fields(data)[-1].content, der.SEQUENCE))
    except (ValueError, IndexError):
        return None
    if _has_attributes(signer):
        raise _refusal("has attributes in it", "signature-attributes")
    return signer[-1].content if signer and signer[-1].tag == der.OCTET_STRING else None


def _signature_sizes(certificate: x509.Certificate) -> range:
    public = certificate.public_key()
    if isinstance(public, rsa.RSAPublicKey):
        size = (public.key_size + 7) // 8
        return range(size, size + 1)
    return _ECDSA_BYTES


def _key_algorithm(certificate: x509.Certificate, algorithm: Algorithm) -> bytes:
    return _RSA if isinstance(certificate.public_key(), rsa.RSAPublicKey) else _ECDSA[algorithm]


def _signer_name(certificate: x509.Certificate) -> bytes:
    """Return IssuerAndSerialNumber, from the certificate's own bytes."""
    fields = der.elements(der.only(certificate.tbs_certificate_bytes, der.SEQUENCE))
    # A certificate of version 1 does not say so.
    serial, _, issuer = fields[1:4] if fields[0].tag == der.CONTEXT_0 else fields[:3]
    return der.encode(der.SEQUENCE, issuer.whole, serial.whole)


def _fields(data: bytes) -> list[der.Element]:
    """Return the fields of SignedData; the last one holds the signers. Raises `ValueError`."""
    kind, content = der.elements(der.only(data, der.SEQUENCE))
    if kind.whole != _SIGNED_DATA or content.tag != der.CONTEXT_0:
        raise ValueError("not SignedData")
    fields = der.elements(der.only(content.content, der.SEQUENCE))
    if len(fields) < 4 or (fields[2].tag, fields[-1].tag) != (der.SEQUENCE, der.SET):
        raise ValueError("not the fields of SignedData")
    return fields


def _why_not(data: bytes, certificate: x509.Certificate) -> VerificationError:
    """Return why `data` is not in our form."""
    try:
        fields = _fields(data)
        content = der.elements(fields[2].content)
        signers = der.elements(fields[-1].content)
        signer = der.elements(signers[0].content) if signers else []
    except ValueError as error:
        return canonical.malformed(WHAT, str(error))
    parts = [element.whole for element in signer]
    fitting = [[_HASH[known], _key_algorithm(certificate, known)] for known in Algorithm]
    checks = (
        ([element.whole for element in content] != [_DATA], "has content in it", "signature-attached"),
        (len(fields) != 4, "has certificates in it", "signature-certificates"),
        (len(signers) != 1, f"has {len(signers)} signers, not one", "signature-signers"),
        (_has_attributes(signer), "has attributes in it", "signature-attributes"),
        (
            parts[1:2] != [_signer_name(certificate)],
            "is not by the certificate's owner",
            "signature-other-signer",
        ),
        (parts[2:4] not in fitting, "has algorithms that do not fit the key", "signature-algorithm"),
    )
    for wrong, what, reason in checks:
        if wrong:
            return _refusal(what, reason)
    return canonical.malformed(WHAT, "not as `fsverity sign` writes it")


def _has_attributes(signer: list[der.Element]) -> bool:
    return any(element.tag in {der.CONTEXT_0, der.CONTEXT_1} for element in signer)


def _refusal(what: str, reason: str) -> VerificationError:
    return VerificationError(
        f"{WHAT} {what}",
        resolution="sign as `fsverity sign` does,"
        " or by `openssl smime -sign -binary -noattr -nocerts -outform DER`",
        reason=reason,
    )
