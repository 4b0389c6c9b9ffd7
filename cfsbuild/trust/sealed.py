"""Sealed bundles: a document encrypted to a key that TPMs hold (docs/formats/sealed-bundle.md).

    CFSB1 NUL, number of slots, slots, 12 bytes of nonce, AES-256-GCM of the document

Each slot holds the key for one machine, or under one policy. All before the encrypted document is
authenticated with it. Whoever can seal can replace all of it: what comes out must be signed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cfsbuild.errors import InputError, UsageError, VerificationError
from cfsbuild.trust.tpm import offline
from cfsbuild.trust.tpm.numbers import Alg, Attribute
from cfsbuild.trust.tpm.offline import SealedObject
from cfsbuild.trust.tpm.structures import KeyedHashPublic, Public, decode_public
from cfsbuild.trust.tpm.wire import Reader, sized, u8

SUFFIX = ".cfsb"
SLOTS = 64
PAYLOAD_BYTES = 1 << 20
KEY_BYTES = 32

_MAGIC = b"CFSB1\0"
_NONCE_BYTES = 12
_TAG_BYTES = 16
_PUBLIC_BYTES = 78
_DUPLICATE_BYTES = (108, 140)  # without a PIN, with one of 32 bytes
_SEED_BYTES = frozenset({68, 256})  # a point on P-256; RSA-2048
_SLOT_BYTES = 6 + _PUBLIC_BYTES + _DUPLICATE_BYTES[1] + max(_SEED_BYTES)
SEALED_BYTES = len(_MAGIC) + 1 + SLOTS * _SLOT_BYTES + _NONCE_BYTES + PAYLOAD_BYTES + _TAG_BYTES
_ATTRIBUTES = frozenset({Attribute.ADMIN_WITH_POLICY, Attribute.ADMIN_WITH_POLICY | Attribute.NO_DA})


class Recipient(msgspec.Struct, frozen=True):
    """Who can open: the TPM with this storage key, under this policy's digest, with this PIN (or none)."""

    parent: Public
    auth_policy: bytes
    auth: bytes = b""


class SealedBundle(msgspec.Struct, frozen=True):
    """A sealed bundle's parts: slots, all bytes before the encrypted document, and that document."""

    slots: tuple[SealedObject, ...]
    head: bytes
    encrypted: bytes


def seal(payload: bytes, recipients: Sequence[Recipient]) -> bytes:
    """Return a sealed bundle that each of the recipients (1 to 64) can open.

    Raises `UsageError` (reason `slots`, `payload`) for too few or too many of them or of bytes (1 byte to
    1 MiB), and what `offline.seal` raises.
    """
    if not 1 <= len(recipients) <= SLOTS:
        raise UsageError(
            f"a bundle is sealed to 1 to {SLOTS} machines, not {len(recipients)}", reason="slots"
        )
    if not 1 <= len(payload) <= PAYLOAD_BYTES:
        raise UsageError(f"a sealed document has 1 to {PAYLOAD_BYTES} bytes", reason="payload")
    key, nonce = os.urandom(KEY_BYTES), os.urandom(_NONCE_BYTES)
    slots = [offline.seal(key, to.parent, to.auth_policy, to.auth) for to in recipients]
    head = _MAGIC + u8(len(slots)) + b"".join(map(encode_slot, slots)) + nonce
    return head + AESGCM(key).encrypt(nonce, payload, head)


def encode_slot(slot: SealedObject) -> bytes:
    """Return TPM2B_PUBLIC, TPM2B_PRIVATE and TPM2B_ENCRYPTED_SECRET, one after the other."""
    return sized(slot.public) + sized(slot.duplicate) + sized(slot.seed)


def parse(data: bytes) -> SealedBundle:
    """Return a sealed bundle's parts. Raises `VerificationError` (reason `sealed-malformed`)."""
    if len(data) > SEALED_BYTES:
        raise _malformed(f"more than {SEALED_BYTES} bytes")
    reader = Reader(data, "the sealed bundle")
    try:
        if reader.take(len(_MAGIC)) != _MAGIC:
            raise _malformed("it does not start with CFSB1")
        count = reader.u8()
        if not 1 <= count <= SLOTS:
            raise _malformed(f"{count} slots; there are 1 to {SLOTS}")
        slots = tuple(_read_slot(reader) for _ in range(count))
        reader.take(_NONCE_BYTES)
        head = data[: reader.at]
        encrypted = reader.take(reader.left())
    except InputError as error:
        raise _malformed(error.details) from error
    if not 1 <= len(encrypted) - _TAG_BYTES <= PAYLOAD_BYTES:
        raise _malformed("there is no encrypted document")
    return SealedBundle(slots, head, encrypted)


def open_sealed(bundle: SealedBundle, unwrap: Callable[[SealedObject], bytes | None]) -> bytes:
    """Return the document, with the key of the first slot for which `unwrap` returns one.

    `unwrap` returns None for a slot that is not for this machine. Raises `VerificationError`, reason
    `sealed-other-target` when it did so for all of them, `sealed-damaged` when anything was changed.
    """
    key = next((key for key in map(unwrap, bundle.slots) if key is not None), None)
    if key is None:
        raise VerificationError(
            "the bundle is sealed to other machines",
            details=f"it has {len(bundle.slots)} slots",
            resolution="seal it again, to what `cfsbuild enroll` says on this machine",
            reason="sealed-other-target",
        )
    try:
        if len(key) != KEY_BYTES:
            raise _damaged()
        return AESGCM(key).decrypt(bundle.head[-_NONCE_BYTES:], bundle.encrypted, bundle.head)
    except InvalidTag as error:
        raise _damaged() from error


def slot_public(slot: SealedObject) -> KeyedHashPublic:
    """Return the public area of a slot of a parsed bundle: attributes, and the digest of its policy."""
    public = decode_public(slot.public)
    if (
        not isinstance(public, KeyedHashPublic)
        or public.name_alg != Alg.SHA256
        or public.attributes not in _ATTRIBUTES
        or (len(public.auth_policy), len(public.unique)) != (32, 32)
    ):
        raise _malformed("a slot holds no sealed key")
    return public


def _read_slot(reader: Reader) -> SealedObject:
    public = reader.sized(_PUBLIC_BYTES)
    duplicate = reader.sized(_DUPLICATE_BYTES[1])
    seed = reader.sized(max(_SEED_BYTES))
    slot = SealedObject(public, duplicate, seed)
    slot_public(slot)
    if len(duplicate) < _DUPLICATE_BYTES[0] or len(seed) not in _SEED_BYTES:
        raise _malformed("a slot has parts of other lengths")
    return slot


def _malformed(details: str) -> VerificationError:
    return VerificationError("the sealed bundle is malformed", details=details, reason="sealed-malformed")


def _damaged() -> VerificationError:
    return VerificationError(
        "the sealed bundle is damaged",
        details="what it says is not what was sealed together",
        resolution="copy it again from where it was made",
        reason="sealed-damaged",
    )
