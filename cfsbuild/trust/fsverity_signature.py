"""The PKCS#7 signature of an fs-verity digest, as `fsverity sign` makes it.

The kernel can check it when fs-verity is enabled in a file, IPE can ask for it, and composefs-rs puts it
beside sealed images. It names no image and no version: it says only that somebody signed this digest once.
"""

from __future__ import annotations

import struct
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeAlias

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import PublicKeyAlgorithmOID

from cfsbuild.errors import InputError, UsageError, VerificationError
from cfsbuild.fsverity.algorithm import Algorithm
from cfsbuild.trust import keys, pkcs7
from cfsbuild.trust.files import read_regular
from cfsbuild.trust.keys import PrivateKey

CertifiedKey: TypeAlias = rsa.RSAPublicKey | ec.EllipticCurvePublicKey

SIGNATURE_BYTES = 1 << 16

_CERTIFICATE_BYTES = 1 << 16
_HASH: dict[Algorithm, hashes.HashAlgorithm] = {
    Algorithm.SHA256: hashes.SHA256(),
    Algorithm.SHA512: hashes.SHA512(),
}


def formatted_digest(digest: bytes, algorithm: Algorithm) -> bytes:
    """Return what is signed: the kernel's `struct fsverity_formatted_digest`, little endian."""
    return struct.pack("<8sHH", b"FSVerity", algorithm.kernel_id, len(digest)) + digest


def read_certificate(path: Path) -> x509.Certificate:
    """Return the certificate in a PEM file. Raises `InputError` for anything else, `OSError`."""
    data = read_regular(path, limit=_CERTIFICATE_BYTES)
    try:
        return _load(data)
    except (
        ValueError,
        UnsupportedAlgorithm,
        x509.InvalidVersion,
        CryptographyDeprecationWarning,
    ) as error:
        raise InputError(
            f"{path} is not a certificate in PEM that can be used", details=str(error), reason="certificate"
        ) from error


def _load(data: bytes) -> x509.Certificate:
    """Return a certificate whose key can be loaded. Raises all that `read_certificate` names."""
    with warnings.catch_warnings():
        # What some versions of the library warn of, others take or refuse: serial numbers below one.
        warnings.simplefilter("error", CryptographyDeprecationWarning)
        certificate = x509.load_pem_x509_certificate(data)
        certificate.public_key()
        if certificate.serial_number < 1:
            raise ValueError("a serial number below one")
    return certificate


def certified_key(certificate: x509.Certificate) -> CertifiedKey:
    """Return the key that a certificate is of.

    Raises `UsageError` (reason `key-algorithm`) for one that kernels do not know (Ed25519), `InputError` (the
    same reason) for one of a kind that nothing here uses.
    """
    public = certificate.public_key()
    if certificate.public_key_algorithm_oid == PublicKeyAlgorithmOID.RSASSA_PSS:
        raise keys.pss_only("the certificate's key")
    algorithm = keys.algorithm_of(public)
    if isinstance(public, rsa.RSAPublicKey | ec.EllipticCurvePublicKey):
        return public
    raise UsageError(
        f"the kernel knows no fs-verity signatures by keys of kind {algorithm.value}",
        resolution="use an rsa2048, rsa3072 or p256 key",
        reason="key-algorithm",
    )


def sign_digest(
    private: PrivateKey, certificate: x509.Certificate, digest: bytes, algorithm: Algorithm
) -> bytes:
    """Return the detached signature in DER, without signed attributes and without the certificate.

    The message is hashed as the file is. Raises as `certified_key` does, and `UsageError` (reason
    `certificate`) for a certificate of another key.
    """
    public = certified_key(certificate)
    if keys.public_der(public) != keys.public_der(private.public_key()):
        raise UsageError("the certificate is of another key", reason="certificate")
    signature = keys.sign(private, formatted_digest(digest, algorithm), _HASH[algorithm])
    return pkcs7.encode(certificate, pkcs7.Parts(algorithm, signature))


def attach(made: bytes, certificate: x509.Certificate, digest: bytes, algorithm: Algorithm) -> bytes:
    """Return the same for a signature that was made elsewhere, of `formatted_digest`.

    `made` is the signature itself (see `keys.in_our_form`), or PKCS#7 that has it. Raises as `certified_key`
    does, and `VerificationError`: `signature-invalid`, or `signature-attributes` for PKCS#7 that signs those.
    """
    public = certified_key(certificate)
    message = formatted_digest(digest, algorithm)
    good = keys.in_our_form(public, message, made, _HASH[algorithm])
    if good is None and (inner := pkcs7.loose_signature(made)) is not None:
        good = keys.in_our_form(public, message, inner, _HASH[algorithm])
    if good is None:
        raise VerificationError(
            "this is not a signature of the image's digest by the certificate's key",
            details=f"the key is {keys.key_id(public)}, the hash {algorithm.value}",
            resolution="sign exactly the bytes that were exported",
            reason="signature-invalid",
        )
    return pkcs7.encode(certificate, pkcs7.Parts(algorithm, good))


def verify(
    data: bytes,
    certificate: x509.Certificate,
    digest_by: Callable[[Algorithm], bytes],
    *,
    revoked: Iterable[str] = (),
) -> str:
    """Return the id of the certificate's key if `data` is its signature of a file in our form.

    `digest_by` gives the file's fs-verity digest; the signature says by which algorithm. Dates and issuer of
    the certificate are not looked at: the caller trusts its key. Raises as `certified_key` and `pkcs7.decode`
    do, and `VerificationError`: `key-revoked` (its id is in `revoked`), `signature-invalid`.
    """
    public = certified_key(certificate)
    identity = keys.key_id(public)
    if identity in keys.key_ids(revoked):
        raise VerificationError(
            f"the certificate's key {identity} is revoked",
            resolution="sign the image again by the new key",
            reason="key-revoked",
        )
    algorithm, signature = pkcs7.decode(data, certificate)
    message = formatted_digest(digest_by(algorithm), algorithm)
    if not keys.verifies(public, message, signature, _HASH[algorithm]):
        raise VerificationError(
            "the PKCS#7 signature is wrong",
            details=f"it is not of this image's {algorithm.value} digest, or not by the key {identity}",
            reason="signature-invalid",
        )
    return identity
