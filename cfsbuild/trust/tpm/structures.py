"""What a TPM says of keys, sealed objects and NV indices: public areas, their Names, and signatures.

A Name is a digest over a public area's bytes, so decoding is strict: what decodes encodes to the same bytes.
"""

from __future__ import annotations

import hashlib
from typing import TypeAlias

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from cfsbuild.errors import UsageError
from cfsbuild.trust.tpm.numbers import NIST_P256, Alg, Attribute
from cfsbuild.trust.tpm.wire import Reader, malformed, sized, u8, u16, u32

COORDINATE_BYTES = 32
PCRS = 24
"""Registers 0 to 23 are in every bank of a PC's TPM."""

_DIGESTS = {Alg.SHA1: "sha1", Alg.SHA256: "sha256", Alg.SHA384: "sha384", Alg.SHA512: "sha512"}
_DIGEST_BYTES = 64
_MODULUS_BYTES = 512
_DEFAULT_EXPONENT = 65537


class Symmetric(msgspec.Struct, frozen=True):
    """TPMT_SYM_DEF_OBJECT that is not null; a storage key's is AES-128 in CFB mode."""

    algorithm: int = Alg.AES
    bits: int = 128
    mode: int = Alg.CFB


class Scheme(msgspec.Struct, frozen=True):
    """A signing scheme that is not null, and its hash."""

    algorithm: int
    digest: int


class EccPublic(msgspec.Struct, frozen=True, kw_only=True):
    """TPMT_PUBLIC of a key on P-256. `x` and `y` are big endian, empty in a template."""

    name_alg: int = Alg.SHA256
    attributes: int
    auth_policy: bytes = b""
    symmetric: Symmetric | None = None
    scheme: Scheme | None = None
    x: bytes = b""
    y: bytes = b""


class RsaPublic(msgspec.Struct, frozen=True, kw_only=True):
    """TPMT_PUBLIC of an RSA key. `exponent` 0 means 65537; `modulus` is empty in a template."""

    name_alg: int = Alg.SHA256
    attributes: int
    auth_policy: bytes = b""
    symmetric: Symmetric | None = None
    scheme: Scheme | None = None
    bits: int = 2048
    exponent: int = 0
    modulus: bytes = b""


class KeyedHashPublic(msgspec.Struct, frozen=True, kw_only=True):
    """TPMT_PUBLIC of sealed data: a keyed hash object with no scheme."""

    name_alg: int = Alg.SHA256
    attributes: int
    auth_policy: bytes = b""
    unique: bytes = b""


class NvPublic(msgspec.Struct, frozen=True, kw_only=True):
    """TPMS_NV_PUBLIC; a counter has 8 bytes."""

    index: int
    name_alg: int = Alg.SHA256
    attributes: int
    auth_policy: bytes = b""
    data_size: int = 8


Public: TypeAlias = EccPublic | RsaPublic | KeyedHashPublic

_STORAGE = (
    Attribute.FIXED_TPM
    | Attribute.FIXED_PARENT
    | Attribute.SENSITIVE_DATA_ORIGIN
    | Attribute.USER_WITH_AUTH
    | Attribute.RESTRICTED
    | Attribute.DECRYPT
)
SIGNER = Attribute.SIGN | Attribute.USER_WITH_AUTH
SYSTEMD_SIGNER = SIGNER | Attribute.DECRYPT
"""What systemd gives the key of a signed policy; its Name, and so each policy, differs from SIGNER's."""

SRK_ECC = EccPublic(attributes=_STORAGE | Attribute.NO_DA, symmetric=Symmetric())
SRK_RSA = RsaPublic(attributes=_STORAGE | Attribute.NO_DA, symmetric=Symmetric())
"""Templates of storage root keys as Linux makes them (TCG EK profile, L-2 and L-1; `unique` empty)."""

LEGACY_PRIMARY = EccPublic(attributes=_STORAGE, symmetric=Symmetric())
"""Template of the primary key that systemd makes anew for each credential: noDA is clear."""


def encode_public(public: Public) -> bytes:
    """Return a TPMT_PUBLIC (part 2, 12.2.4), without the length that makes it a TPM2B_PUBLIC."""
    head = u16(public.name_alg) + u32(public.attributes) + sized(public.auth_policy)
    if isinstance(public, KeyedHashPublic):
        return u16(Alg.KEYEDHASH) + head + u16(Alg.NULL) + sized(public.unique)
    parameters = _encode_symmetric(public.symmetric) + _encode_scheme(public.scheme)
    if isinstance(public, EccPublic):
        curve = u16(NIST_P256) + u16(Alg.NULL)
        return u16(Alg.ECC) + head + parameters + curve + sized(public.x) + sized(public.y)
    numbers = u16(public.bits) + u32(public.exponent)
    return u16(Alg.RSA) + head + parameters + numbers + sized(public.modulus)


def decode_public(data: bytes) -> Public:
    """Return the public area that is all of `data`, a TPMT_PUBLIC. Raises `InputError` (`tpm-structure`).

    Of keys RSA and ECC on P-256 are known, with no scheme or RSASSA or ECDSA; of keyed hashes sealed data.
    """
    reader = Reader(data, "the TPM's public area")
    kind = reader.u16()
    name_alg = reader.u16()
    if name_alg not in _DIGESTS:
        raise reader.error(f"its Name is of algorithm {name_alg:#x}")
    attributes, auth_policy = reader.u32(), reader.sized(_DIGEST_BYTES)
    public: Public
    if kind == Alg.KEYEDHASH:
        reader.expect(Alg.NULL, reader.u16(), "the scheme")
        public = KeyedHashPublic(
            name_alg=name_alg,
            attributes=attributes,
            auth_policy=auth_policy,
            unique=reader.sized(_DIGEST_BYTES),
        )
    elif kind == Alg.ECC:
        public = _decode_ecc(reader, name_alg, attributes, auth_policy)
    elif kind == Alg.RSA:
        public = _decode_rsa(reader, name_alg, attributes, auth_policy)
    else:
        raise reader.error(f"objects of type {kind:#x} are not known here")
    reader.end()
    return public


def _decode_ecc(reader: Reader, name_alg: int, attributes: int, auth_policy: bytes) -> EccPublic:
    symmetric, scheme = _decode_symmetric(reader), _decode_scheme(reader)
    reader.expect(NIST_P256, reader.u16(), "the curve")
    reader.expect(Alg.NULL, reader.u16(), "the key derivation")
    return EccPublic(
        name_alg=name_alg,
        attributes=attributes,
        auth_policy=auth_policy,
        symmetric=symmetric,
        scheme=scheme,
        x=reader.sized(COORDINATE_BYTES),
        y=reader.sized(COORDINATE_BYTES),
    )


def _decode_rsa(reader: Reader, name_alg: int, attributes: int, auth_policy: bytes) -> RsaPublic:
    return RsaPublic(
        name_alg=name_alg,
        attributes=attributes,
        auth_policy=auth_policy,
        symmetric=_decode_symmetric(reader),
        scheme=_decode_scheme(reader),
        bits=reader.u16(),
        exponent=reader.u32(),
        modulus=reader.sized(_MODULUS_BYTES),
    )


def _encode_symmetric(symmetric: Symmetric | None) -> bytes:
    if symmetric is None:
        return u16(Alg.NULL)
    return u16(symmetric.algorithm) + u16(symmetric.bits) + u16(symmetric.mode)


def _decode_symmetric(reader: Reader) -> Symmetric | None:
    algorithm = reader.u16()
    if algorithm == Alg.NULL:
        return None
    reader.expect(Alg.AES, algorithm, "the symmetric algorithm")
    return Symmetric(algorithm, reader.u16(), reader.u16())


def _encode_scheme(scheme: Scheme | None) -> bytes:
    return u16(Alg.NULL) if scheme is None else u16(scheme.algorithm) + u16(scheme.digest)


def _decode_scheme(reader: Reader) -> Scheme | None:
    algorithm = reader.u16()
    if algorithm == Alg.NULL:
        return None
    if algorithm not in {Alg.RSASSA, Alg.ECDSA}:
        raise reader.error(f"the scheme is {algorithm:#x}")
    return Scheme(algorithm, reader.u16())


def encode_nv_public(public: NvPublic) -> bytes:
    """Return a TPMS_NV_PUBLIC (part 2, 13.5)."""
    head = u32(public.index) + u16(public.name_alg) + u32(public.attributes)
    return head + sized(public.auth_policy) + u16(public.data_size)


def decode_nv_public(data: bytes) -> NvPublic:
    """Return the NV index's public area that is all of `data`. Raises `InputError` (`tpm-structure`)."""
    reader = Reader(data, "the NV index's public area")
    public = NvPublic(
        index=reader.u32(),
        name_alg=reader.u16(),
        attributes=reader.u32(),
        auth_policy=reader.sized(_DIGEST_BYTES),
        data_size=reader.u16(),
    )
    reader.end()
    if public.name_alg not in _DIGESTS:
        raise reader.error(f"its Name is of algorithm {public.name_alg:#x}")
    return public


def name_of(public: Public | NvPublic) -> bytes:
    """Return an entity's Name: the algorithm in two bytes, and the digest of its public area (part 1, 16)."""
    encoded = encode_nv_public(public) if isinstance(public, NvPublic) else encode_public(public)
    return u16(public.name_alg) + hashlib.new(_DIGESTS[Alg(public.name_alg)], encoded).digest()


def digest_bytes(algorithm: int) -> int:
    """Return how long digests are. Raises `InputError` for an algorithm that is not known."""
    if algorithm not in _DIGESTS:
        raise malformed("the TPM's digest", f"it is of algorithm {algorithm:#x}")
    return hashlib.new(_DIGESTS[Alg(algorithm)]).digest_size


def signer_public(key: object, attributes: int = SIGNER) -> EccPublic | RsaPublic:
    """Return the public area under which a TPM gets to know a key that signs policies.

    Raises `UsageError` (reason `key-algorithm`) for what is neither P-256 nor RSA-2048.
    """
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
        point = key.public_numbers()
        return EccPublic(attributes=attributes, x=coordinate(point.x), y=coordinate(point.y))
    if isinstance(key, rsa.RSAPublicKey) and key.key_size == 2048:
        numbers = key.public_numbers()
        if numbers.e == _DEFAULT_EXPONENT:
            return RsaPublic(attributes=attributes, modulus=numbers.n.to_bytes(256, "big"))
    raise UsageError(
        "TPMs are told of no policies by keys of this kind",
        resolution="use a p256 or rsa2048 key",
        reason="key-algorithm",
    )


def public_key(public: Public) -> ec.EllipticCurvePublicKey | rsa.RSAPublicKey:
    """Return the key in a public area. Raises `InputError` (`tpm-structure`) if there is none that works."""
    try:
        if isinstance(public, EccPublic):
            x, y = int.from_bytes(public.x, "big"), int.from_bytes(public.y, "big")
            return ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
        if isinstance(public, RsaPublic) and len(public.modulus) * 8 == public.bits:
            exponent = public.exponent or _DEFAULT_EXPONENT
            return rsa.RSAPublicNumbers(exponent, int.from_bytes(public.modulus, "big")).public_key()
    except ValueError as error:
        raise malformed("the TPM's public key", str(error)) from error
    raise malformed("the TPM's public key", "there is no whole key in the public area")


def coordinate(value: int) -> bytes:
    """Return a coordinate on P-256 as TPMs want it: always 32 bytes."""
    return value.to_bytes(COORDINATE_BYTES, "big")


def encode_signature(key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey, signature: bytes) -> bytes:
    """Return a TPMT_SIGNATURE (part 2, 11.3.4) of a signature by this key.

    It comes as libraries make it: DER for P-256, PKCS#1 v1.5 for RSA, both with SHA-256. Raises
    `InputError` (`tpm-structure`) for other bytes.
    """
    if isinstance(key, rsa.RSAPublicKey):
        return u16(Alg.RSASSA) + u16(Alg.SHA256) + sized(signature)
    try:
        r, s = decode_dss_signature(signature)
        parts = sized(coordinate(r)) + sized(coordinate(s))
    except (ValueError, OverflowError) as error:
        raise malformed("the signature", str(error)) from error
    return u16(Alg.ECDSA) + u16(Alg.SHA256) + parts


def decode_signature(data: bytes) -> bytes:
    """Return the signature in a TPMT_SIGNATURE, in the form that `encode_signature` takes.

    Raises `InputError` (`tpm-structure`) for other bytes and for other hashes than SHA-256.
    """
    reader = Reader(data, "the TPM's signature")
    algorithm = reader.u16()
    reader.expect(Alg.SHA256, reader.u16(), "the hash")
    if algorithm == Alg.RSASSA:
        signature = reader.sized(_MODULUS_BYTES)
    else:
        reader.expect(Alg.ECDSA, algorithm, "the algorithm")
        r, s = reader.sized(COORDINATE_BYTES), reader.sized(COORDINATE_BYTES)
        signature = encode_dss_signature(int.from_bytes(r, "big"), int.from_bytes(s, "big"))
    reader.end()
    return signature


def pcr_selection(pcrs: frozenset[int], bank: Alg = Alg.SHA256) -> bytes:
    """Return a TPML_PCR_SELECTION of registers (0 to 23) in one bank (part 2, 10.9.7)."""
    bits = sum(1 << number for number in pcrs)
    return u32(1) + u16(bank) + u8(PCRS // 8) + bits.to_bytes(PCRS // 8, "little")
