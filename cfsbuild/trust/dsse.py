"""Signed documents: the DSSE envelope, protocol v1 (the pre-authentication encoding "DSSEv1").

What is signed are bytes, together with a type that says what they are; whoever verifies uses those bytes.
Of an envelope only signatures by keys that the caller trusts count. One that such a key should have made but
did not is an error, however many others are good.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from cfsbuild.errors import UsageError, VerificationError
from cfsbuild.trust import canonical, keys
from cfsbuild.trust.keys import KeyAlgorithm, PrivateKey, PublicKey

ENVELOPE_BYTES = 1 << 20
SIGNATURES = 16

_ALLOWED = (KeyAlgorithm.ED25519, KeyAlgorithm.P256)


class Signature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One signature: whose (`keys.key_id`), and its bytes in base64."""

    keyid: str
    sig: str


class Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A payload in base64, its type, and signatures of both, sorted by key."""

    payload: str
    payload_type: str = msgspec.field(name="payloadType")
    signatures: list[Signature]


class Opened(NamedTuple):
    """The payload that was verified, and the keys that vouch for it."""

    payload: bytes
    key_ids: tuple[str, ...]


def pae(payload_type: str, payload: bytes) -> bytes:
    """Return the bytes that are signed: type and payload, each with its length before it."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def check_key(public: PublicKey) -> None:
    """Raise `UsageError` for a key that may not sign envelopes."""
    if keys.algorithm_of(public) not in _ALLOWED:
        raise UsageError(
            f"documents are not signed by keys of kind {keys.algorithm_of(public).value}",
            resolution=f"use one of {', '.join(algorithm.value for algorithm in _ALLOWED)}",
            reason="key-algorithm",
        )


def sign(payload_type: str, payload: bytes, private: PrivateKey) -> bytes:
    """Return an envelope with one signature. Raises `UsageError` as `check_key` does."""
    check_key(private.public_key())
    signature = keys.sign(private, pae(payload_type, payload))
    return attach(payload_type, payload, private.public_key(), signature)


def attach(payload_type: str, payload: bytes, public: PublicKey, signature: bytes) -> bytes:
    """Return an envelope with one signature that was made elsewhere, of `pae`; see `keys.in_our_form`.

    Raises `VerificationError` (reason `signature-invalid`) if it is not that, `UsageError` as `check_key`.
    """
    check_key(public)
    good = keys.in_our_form(public, pae(payload_type, payload), signature)
    if good is None:
        raise VerificationError(
            f"this is not a signature of the document by the key {keys.key_id(public)}",
            resolution="sign exactly the bytes that were exported",
            reason="signature-invalid",
        )
    return canonical.encode(
        Envelope(
            base64.b64encode(payload).decode(),
            payload_type,
            [Signature(keys.key_id(public), base64.b64encode(good).decode())],
        )
    )


def merge(first: bytes, second: bytes) -> bytes | None:
    """Return an envelope with the signatures of both; those of `second` replace those of the same key.

    None if they are of different payloads. Raises `VerificationError` for what is no envelope, `UsageError`
    for too many signatures.
    """
    one, two = decode(first), decode(second)
    if (one.payload, one.payload_type) != (two.payload, two.payload_type):
        return None
    signatures = {signature.keyid: signature for signature in (*one.signatures, *two.signatures)}
    if len(signatures) > SIGNATURES:
        raise UsageError(f"a document can have {SIGNATURES} signatures at most", reason="signatures")
    ordered = [signatures[name] for name in sorted(signatures)]
    return canonical.encode(Envelope(one.payload, one.payload_type, ordered))


def decode(data: bytes) -> Envelope:
    """Return an envelope, none of whose signatures was looked at. Raises `VerificationError`."""
    envelope = canonical.decode(data, Envelope, what="the signature file", limit=ENVELOPE_BYTES)
    names = [signature.keyid for signature in envelope.signatures]
    if not 1 <= len(names) <= SIGNATURES or names != sorted(set(names)):
        raise canonical.malformed("the signature file", f"1 to {SIGNATURES} signatures, sorted by key")
    if any(not keys.KEY_ID.fullmatch(name) for name in names):
        raise canonical.malformed("the signature file", "a key is named by 32 hex digits")
    for text in (envelope.payload, *(signature.sig for signature in envelope.signatures)):
        _bytes(text)
    return envelope


def unverified(data: bytes) -> tuple[str, bytes]:
    """Return an envelope's type and payload, for whoever wants to add to it. Raises `VerificationError`."""
    envelope = decode(data)
    return envelope.payload_type, _bytes(envelope.payload)


def verify(
    data: bytes,
    payload_type: str,
    trusted: Sequence[PublicKey],
    threshold: int = 1,
    *,
    revoked: Iterable[str] = (),
) -> Opened:
    """Return the payload of an envelope that at least `threshold` different keys of `trusted` signed.

    `revoked` are ids of keys whose signatures never count, whoever trusts them; they are not even looked at.
    Raises `VerificationError`, reason `malformed`, `payload-type`, `signature-invalid` (a trusted key is
    named that did not sign this), `signature-missing` (no trusted key is named), `key-revoked` (none but
    revoked ones are) or `signature-threshold`; `UsageError` when `trusted` can never be enough, and for
    what is no id.
    """
    gone = keys.key_ids(revoked)
    known = {keys.key_id(public): public for public in trusted}
    for public in known.values():
        check_key(public)
    if not 1 <= threshold <= len(known):
        raise UsageError(
            f"{threshold} signatures are asked for, and {len(known)} different keys given", reason="threshold"
        )
    envelope = decode(data)
    if envelope.payload_type != payload_type:
        raise VerificationError(
            "the signature file is about something else",
            details=f"expected {payload_type}\nfound    {envelope.payload_type!r}",
            reason="payload-type",
        )
    payload = _bytes(envelope.payload)
    message = pae(payload_type, payload)
    good = []
    for signature in envelope.signatures:
        if signature.keyid not in known or signature.keyid in gone:
            continue
        if not keys.verifies(known[signature.keyid], message, _bytes(signature.sig)):
            raise VerificationError(
                f"the signature by key {signature.keyid} is wrong", reason="signature-invalid"
            )
        good.append(signature.keyid)
    if len(good) < threshold:
        raise _too_few(envelope, good, threshold, gone)
    return Opened(payload, tuple(good))


def _too_few(
    envelope: Envelope, good: list[str], threshold: int, revoked: frozenset[str]
) -> VerificationError:
    names = [signature.keyid for signature in envelope.signatures]
    signers = ", ".join(f"{name} (revoked)" if name in revoked else name for name in names)
    details = f"signed by {signers}"
    if good:
        brief = f"{len(good)} of the trusted keys signed this, {threshold} must"
        return VerificationError(brief, details=details, reason="signature-threshold")
    if not set(names).isdisjoint(revoked):
        brief = "only keys that are revoked signed this"
        return VerificationError(
            brief, details=details, resolution="sign it again by the new key", reason="key-revoked"
        )
    return VerificationError(
        "none of the trusted keys signed this", details=details, reason="signature-missing"
    )


def _bytes(text: str) -> bytes:
    """Return what base64 `text` stands for; each value has one text only."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise canonical.malformed("the signature file", f"base64: {error}") from error
    if base64.b64encode(data).decode() != text:
        raise canonical.malformed("the signature file", "base64 with stray bits")
    return data
