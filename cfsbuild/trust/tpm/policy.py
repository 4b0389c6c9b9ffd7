"""What a policy comes to: the digest that a TPM computes while a policy session runs (part 3, chapter 23).

Each function takes the digest so far and returns the next one; a session starts with `START`. The order of
the steps is part of a policy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from cfsbuild.errors import UsageError
from cfsbuild.trust.tpm.numbers import Alg, Command, Comparison
from cfsbuild.trust.tpm.structures import PCRS, digest_bytes, pcr_selection
from cfsbuild.trust.tpm.wire import u8, u16, u32

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
    return _extend(digest, Command.POLICY_PCR, pcr_selection(frozenset(values), bank) + composite)


def either(branches: Sequence[bytes]) -> bytes:
    """PolicyOR: the digest so far is one of `branches`; what comes out is the same for all of them.

    Raises `UsageError` (reason `branches`) for fewer than two branches or more than eight.
    """
    if not 2 <= len(branches) <= BRANCHES:
        raise UsageError(f"a policy has 2 to {BRANCHES} branches, or no choice", reason="branches")
    return _extend(START, Command.POLICY_OR, b"".join(branches))


def nv(digest: bytes, name: bytes, operand: bytes, comparison: Comparison, *, offset: int = 0) -> bytes:
    """PolicyNV: the NV index with this Name holds, from `offset` on, what compares so with `operand`."""
    arguments = hashlib.sha256(operand + u16(offset) + u16(comparison)).digest()
    return _extend(digest, Command.POLICY_NV, arguments + name)


def authorize(signer: bytes, ref: bytes) -> bytes:
    """PolicyAuthorize: the key of Name `signer` signed the digest so far, for the purpose `ref`."""
    return _update(START, Command.POLICY_AUTHORIZE, signer, ref)


def approval(approved: bytes, ref: bytes) -> bytes:
    """Return the message that the key of a PolicyAuthorize signs, hashed with SHA-256."""
    return approved + ref


def signed(digest: bytes, signer: bytes, ref: bytes) -> bytes:
    """PolicySigned: the key of Name `signer` signs this session."""
    return _update(digest, Command.POLICY_SIGNED, signer, ref)


def auth_value(digest: bytes) -> bytes:
    """PolicyAuthValue: the object's auth value (a PIN) is given, as proof or over an encrypted channel."""
    return _extend(digest, Command.POLICY_AUTH_VALUE, b"")


def command_code(digest: bytes, command: int) -> bytes:
    """PolicyCommandCode: the command is this one."""
    return _extend(digest, Command.POLICY_COMMAND_CODE, u32(command))


def nv_written(digest: bytes, *, written: bool) -> bytes:
    """PolicyNvWritten: the index that is used was written before, or was not."""
    return _extend(digest, Command.POLICY_NV_WRITTEN, u8(written))


def _extend(digest: bytes, command: Command, arguments: bytes) -> bytes:
    return hashlib.sha256(digest + u32(command) + arguments).digest()


def _update(digest: bytes, command: Command, name: bytes, ref: bytes) -> bytes:
    """PolicyUpdate of part 3, 23.2.3: a digest over the Name, then one over the reference."""
    return hashlib.sha256(_extend(digest, command, name) + ref).digest()
