"""What a policy comes to: the digest that a TPM computes while a policy session runs (part 3, chapter 23).

Each function takes the digest so far and returns the next one; a session starts with `START`. The order of
the steps is part of a policy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from cfsbuild.errors import UsageError
from cfsbuild.trust.tpm.command_codes import CommandCode
from cfsbuild.trust.tpm.numbers import Alg, Comparison
from cfsbuild.trust.tpm.structures import PCRS, digest_bytes, pcr_selection
from cfsbuild.trust.tpm.wire import u16, u32

DIGEST_BYTES = 32
START = bytes(DIGEST_BYTES)
BRANCHES = 8
"""Most branches of one PolicyOR."""


def pcr(digest: bytes, values: Mapping[int, bytes], *, bank: Alg = Alg.SHA256) -> bytes:
    """PolicyPCR: registers of a bank have these values, each as long as the bank's digests.

    Raises `UsageError` (reason `pcr`) for no register, one that is not 0 to 23, and other lengths.
    """
    if not values or any(number not in range(PCRS) for number in values):
        raise UsageError(f"a policy names registers from 0 to {PCRS - 1}", reason="pcr")
    length = digest_bytes(bank)
    if any(len(value) != length for value in values.values()):
        raise UsageError(f"a register's value has {length} bytes", reason="pcr")
    composite = hashlib.sha256(b"".join(values[number] for number in sorted(values))).digest()
    return _extend(digest, CommandCode.POLICY_PCR, pcr_selection(frozenset(values), bank) + composite)


def either(branches: Sequence[bytes]) -> bytes:
    """PolicyOR: the digest so far is one of `branches`; what comes out is the same for all of them.

    Raises `UsageError` (reason `branches`) for fewer than two branches or more than eight.
    """
    if not 2 <= len(branches) <= BRANCHES:
        raise UsageError(f"a policy has 2 to {BRANCHES} branches, or no choice", reason="branches")
    return _extend(START, CommandCode.POLICY_OR, b"".join(branches))


def nv(digest: bytes, name: bytes, operand: bytes, comparison: Comparison) -> bytes:
    """PolicyNV: the NV index with this Name holds, from its start, what compares so with `operand`."""
    arguments = hashlib.sha256(operand + u16(0) + u16(comparison)).digest()
    return _extend(digest, CommandCode.POLICY_NV, arguments + name)


def authorize(signer: bytes, ref: bytes) -> bytes:
    """PolicyAuthorize: the key of Name `signer` signed the digest so far, for the purpose `ref`."""
    named = _extend(START, CommandCode.POLICY_AUTHORIZE, signer)
    return hashlib.sha256(named + ref).digest()  # PolicyUpdate of part 3, 23.2.3


def approval(approved: bytes, ref: bytes) -> bytes:
    """Return the message that the key of a PolicyAuthorize signs, hashed with SHA-256."""
    return approved + ref


def auth_value(digest: bytes) -> bytes:
    """PolicyAuthValue: the object's auth value (a PIN) is given, as proof or over an encrypted channel."""
    return _extend(digest, CommandCode.POLICY_AUTH_VALUE, b"")


def _extend(digest: bytes, command: CommandCode, arguments: bytes) -> bytes:
    return hashlib.sha256(digest + u32(command) + arguments).digest()
