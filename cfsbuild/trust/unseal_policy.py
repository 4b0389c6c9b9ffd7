"""When a TPM releases what was sealed to it, as a document (docs/formats/unseal-policy.md).

The document is data for four readers: the builder computes the digest of the policy from it, the device runs
it, a report compares what it expects with what is there, and a script for other tools is written from it.
Nobody has to trust it: with another document the TPM comes to another digest, and releases nothing.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from cfsbuild.errors import InputError, UsageError, VerificationError
from cfsbuild.trust import canonical, keys
from cfsbuild.trust.keys import PrivateKey, PublicKey
from cfsbuild.trust.registers import REGISTER
from cfsbuild.trust.tpm import policy
from cfsbuild.trust.tpm.numbers import Comparison
from cfsbuild.trust.tpm.structures import (
    decode_public,
    decode_signature,
    encode_public,
    encode_signature,
    name_of,
    public_key,
    signer_public,
)
from cfsbuild.trust.tpm.wire import u64

SUFFIX = ".policy.json"
POLICY_BYTES = 1 << 16
MOUNT_REF = b"cfsbuild/mount/v1"
"""The purpose for which policies of mount bundles are approved; a signature for another one never counts."""

_Hex32 = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]
_Hex = Annotated[str, msgspec.Meta(pattern=r"\A([0-9a-f]{2})+\Z", max_length=4096)]
_Ref = Annotated[str, msgspec.Meta(pattern=r"\A([0-9a-f]{2})*\Z", max_length=128)]
_Text = Annotated[str, msgspec.Meta(pattern=r"\A[!-~]+\Z", max_length=255)]


class CounterLimit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """That an NV counter (its Name in hex) is not above `operand`: 8 bytes, unsigned."""

    index: Annotated[int, msgspec.Meta(ge=0x01000000, le=0x01FFFFFF)]
    name: Annotated[str, msgspec.Meta(pattern=r"\A000b[0-9a-f]{64}\Z")]
    operand: Annotated[int, msgspec.Meta(ge=0, le=(1 << 53) - 1)]


class Branch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One state in which to release: registers of the SHA-256 bank by number, and a counter."""

    pcrs: dict[str, _Hex32]
    counter: CounterLimit | None = None

    @property
    def values(self) -> dict[int, bytes]:
        """Return the registers' values, by number, of a branch that was decoded."""
        return {int(number): bytes.fromhex(value) for number, value in self.pcrs.items()}


class Authorization(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """That a key (TPMT_PUBLIC, hex) approved the branches for the purpose `ref` (TPMT_SIGNATURE, hex)."""

    key: _Hex
    ref: _Ref
    signature: _Hex


class UnsealPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The whole policy: one of the branches, an approval if there is one, then a PIN if there is one."""

    v: Literal[1] = 1
    type: Literal["cfsbuild.unseal-policy"] = "cfsbuild.unseal-policy"
    name: _Text
    branches: Annotated[list[Branch], msgspec.Meta(min_length=1, max_length=policy.BRANCHES)]
    authorize: Authorization | None = None
    auth_value: bool = False


def encode(document: UnsealPolicy) -> bytes:
    """Return a policy's only encoding. Raises `UsageError` (reason `policy`) for values it cannot have."""
    return canonical.encode_checked(
        document,
        decode,
        brief="there can be no such policy",
        resolution="its name is printable ASCII without spaces; it has 1 to "
        f"{policy.BRANCHES} different branches, of registers 0 to 23 or a counter",
        reason="policy",
    )


def decode(data: bytes) -> UnsealPolicy:
    """Return the policy that `data` encodes. Raises `VerificationError` (reason `malformed`).

    The key and the form of an approval are checked; whether it is valid, the TPM decides (`check_approval`
    does where there is none).
    """
    document = canonical.decode(data, UnsealPolicy, what="the unseal policy", limit=POLICY_BYTES)
    for branch in document.branches:
        if not all(REGISTER.fullmatch(number) for number in branch.pcrs):
            raise canonical.malformed("the unseal policy", "a register is a number from 0 to 23")
        if not branch.pcrs and branch.counter is None:
            raise canonical.malformed("the unseal policy", "a branch asks for nothing")
    if len({branch_digest(branch) for branch in document.branches}) != len(document.branches):
        raise canonical.malformed("the unseal policy", "two branches are the same")
    if document.authorize is not None:
        _check_form(document.authorize)
    return document


def branch_digest(branch: Branch) -> bytes:
    """Return the policy digest after the steps of one branch: PolicyPCR, then PolicyNV."""
    digest = policy.START
    if branch.pcrs:
        digest = policy.pcr(digest, branch.values)
    if branch.counter is not None:
        name, operand = bytes.fromhex(branch.counter.name), u64(branch.counter.operand)
        digest = policy.nv(digest, name, operand, Comparison.UNSIGNED_LE)
    return digest


def approved_digest(document: UnsealPolicy) -> bytes:
    """Return the policy digest after the branches: what `authorize` approves."""
    digests = [branch_digest(branch) for branch in document.branches]
    return digests[0] if len(digests) == 1 else policy.either(digests)


def policy_digest(document: UnsealPolicy) -> bytes:
    """Return the digest of the whole policy, which a sealed object carries: 32 bytes.

    With `authorize` it says nothing of the branches: what was sealed once is released under each document
    that the same key approves for the same purpose.
    """
    if document.authorize is None:
        digest = approved_digest(document)
    else:
        signer = name_of(decode_public(bytes.fromhex(document.authorize.key)))
        digest = policy.authorize(signer, bytes.fromhex(document.authorize.ref))
    return policy.auth_value(digest) if document.auth_value else digest


def approval_message(document: UnsealPolicy, ref: bytes = MOUNT_REF) -> bytes:
    """Return what the policy key signs, for a key that is elsewhere."""
    return policy.approval(approved_digest(document), ref)


def approve(document: UnsealPolicy, private: PrivateKey, ref: bytes = MOUNT_REF) -> UnsealPolicy:
    """Return the policy with an approval of its branches by this key, in place of any other.

    Raises `UsageError` (reason `key-algorithm`) for a key that is neither P-256 nor RSA-2048.
    """
    signature = keys.sign(private, approval_message(document, ref))
    return attach_approval(document, private.public_key(), signature, ref)


def attach_approval(
    document: UnsealPolicy, public: PublicKey, signature: bytes, ref: bytes = MOUNT_REF
) -> UnsealPolicy:
    """Return the policy with an approval that was made elsewhere, of `approval_message`.

    The signature is DER for P-256 and PKCS#1 v1.5 for RSA, with SHA-256. Raises `VerificationError` (reason
    `policy-signature`) if it is not that, `UsageError` as `approve`.
    """
    signer = signer_public(public)
    if not keys.verifies(public, approval_message(document, ref), signature):
        raise _not_approved()
    approval = Authorization(
        encode_public(signer).hex(), ref.hex(), encode_signature(public_key(signer), signature).hex()
    )
    return msgspec.structs.replace(document, authorize=approval)


def check_approval(document: UnsealPolicy) -> None:
    """Raise `VerificationError` (reason `policy-signature`) unless the key that is named approved this.

    Whether that is the key that should is another question: the sealed object has its Name.
    """
    if document.authorize is None:
        raise _not_approved()
    signer = public_key(decode_public(bytes.fromhex(document.authorize.key)))
    signature = decode_signature(bytes.fromhex(document.authorize.signature))
    if not keys.verifies(
        signer, approval_message(document, bytes.fromhex(document.authorize.ref)), signature
    ):
        raise _not_approved()


def _not_approved() -> VerificationError:
    return VerificationError(
        "this is no approval of the unseal policy",
        resolution="sign exactly what approves it: the digest of its branches, and the purpose",
        reason="policy-signature",
    )


def _check_form(authorize: Authorization) -> None:
    """Raise unless the key is as `signer_public` writes it, and the signature one that such a key makes."""
    try:
        signer = decode_public(bytes.fromhex(authorize.key))
        if signer_public(public_key(signer)) != signer:
            raise canonical.malformed("the unseal policy", "the policy key has attributes of its own")
        signature = bytes.fromhex(authorize.signature)
        if encode_signature(public_key(signer), decode_signature(signature)) != signature:
            raise canonical.malformed("the unseal policy", "the signature is not by a key of that kind")
    except (InputError, UsageError) as error:
        raise canonical.malformed("the unseal policy", f"{error.brief}: {error.details}") from error
