"""The PKCS#7 signature of an fs-verity digest, as `fsverity sign` makes it.

The kernel can check it when fs-verity is enabled in a file, IPE can ask for it, and composefs-rs puts it
beside sealed images. It names no image and no version: it says only that somebody signed this digest once.
"""

from __future__ import annotations

import struct
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import pkcs7

from cfsbuild.errors import InputError, UsageError
from cfsbuild.fsverity.algorithm import Algorithm
from cfsbuild.trust.files import read_regular
from cfsbuild.trust.keys import PrivateKey, algorithm_of, public_der

SUFFIX = ".p7s"

_CERTIFICATE_BYTES = 1 << 16


def formatted_digest(digest: bytes, algorithm: Algorithm) -> bytes:
    """Return what is signed: the kernel's `struct fsverity_formatted_digest`, little endian."""
    return struct.pack("<8sHH", b"FSVerity", algorithm.kernel_id, len(digest)) + digest


def read_certificate(path: Path) -> x509.Certificate:
    """Return the certificate in a PEM file. Raises `InputError` for anything else, `OSError`."""
    data = read_regular(path, limit=_CERTIFICATE_BYTES)
    try:
        certificate = x509.load_pem_x509_certificate(data)
        certificate.public_key()
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise InputError(
            f"{path} is not a certificate in PEM that can be used", details=str(error), reason="certificate"
        ) from error
    return certificate


def sign_digest(
    private: PrivateKey, certificate: x509.Certificate, digest: bytes, algorithm: Algorithm
) -> bytes:
    """Return the detached signature in DER, without signed attributes and without the certificate.

    The message is hashed as the file is. Raises `UsageError` for a key that kernels do not know (Ed25519),
    and for a certificate of another key.
    """
    if not isinstance(private, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        raise UsageError(
            f"the kernel knows no fs-verity signatures by keys of kind {algorithm_of(private).value}",
            resolution="use an rsa2048, rsa3072 or p256 key",
            reason="key-algorithm",
        )
    if public_der(certificate.public_key()) != public_der(private.public_key()):
        raise UsageError("the certificate is of another key", reason="certificate")
    digest_of_message = hashes.SHA256() if algorithm is Algorithm.SHA256 else hashes.SHA512()
    builder = (
        pkcs7.PKCS7SignatureBuilder()
        .set_data(formatted_digest(digest, algorithm))
        .add_signer(certificate, private, digest_of_message)
    )
    options = (
        pkcs7.PKCS7Options.DetachedSignature,
        pkcs7.PKCS7Options.Binary,
        pkcs7.PKCS7Options.NoAttributes,
        pkcs7.PKCS7Options.NoCerts,
    )
    return builder.sign(serialization.Encoding.DER, options)
