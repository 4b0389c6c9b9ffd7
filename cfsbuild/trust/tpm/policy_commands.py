"""Commands that take a policy session one step further (part 3, chapter 23).

What each does to the session's digest is computed in `policy`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from cfsbuild.trust.tpm.command_codes import CommandCode
from cfsbuild.trust.tpm.connection import Tpm, nothing
from cfsbuild.trust.tpm.numbers import Comparison
from cfsbuild.trust.tpm.policy import DIGEST_BYTES
from cfsbuild.trust.tpm.session import PASSWORD, Entity, Session
from cfsbuild.trust.tpm.structures import pcr_selection
from cfsbuild.trust.tpm.wire import sized, u16, u32


def policy_pcr(tpm: Tpm, session: Session, values: Mapping[int, bytes]) -> None:
    """PolicyPCR: registers of the SHA-256 bank have these values.

    Raises `ResponseError` (VALUE) if they have not.
    """
    composite = hashlib.sha256(b"".join(values[number] for number in sorted(values))).digest()
    parameters = sized(composite) + pcr_selection(frozenset(values))
    tpm.ask(CommandCode.POLICY_PCR, nothing, (session.entity,), parameters)


def policy_nv(tpm: Tpm, session: Session, index: Entity, operand: bytes, comparison: Comparison) -> None:
    """PolicyNV: the NV index holds what compares so with `operand`. It is read by its own authorization.

    Raises `ResponseError` (POLICY) if it does not.
    """
    parameters = sized(operand) + u16(0) + u16(comparison)
    tpm.ask(CommandCode.POLICY_NV, nothing, (index, index, session.entity), parameters, (PASSWORD,))


def policy_or(tpm: Tpm, session: Session, branches: Sequence[bytes]) -> None:
    """PolicyOR: the session's digest is one of `branches`. Raises `ResponseError` (VALUE) if it is not."""
    parameters = u32(len(branches)) + b"".join(sized(branch) for branch in branches)
    tpm.ask(CommandCode.POLICY_OR, nothing, (session.entity,), parameters)


def policy_authorize(  # noqa: PLR0913 (the command's own parameters)
    tpm: Tpm, session: Session, *, approved: bytes, ref: bytes, signer: bytes, ticket: bytes
) -> None:
    """PolicyAuthorize: the session's digest is `approved`, which the key of Name `signer` signed.

    Raises `ResponseError` (VALUE) if the digest is another, or the ticket of something else.
    """
    parameters = sized(approved) + sized(ref) + sized(signer) + ticket
    tpm.ask(CommandCode.POLICY_AUTHORIZE, nothing, (session.entity,), parameters)


def policy_auth_value(tpm: Tpm, session: Session) -> None:
    """PolicyAuthValue: whoever uses the session proves that they know the object's authorization value."""
    tpm.ask(CommandCode.POLICY_AUTH_VALUE, nothing, (session.entity,))
    session.policy_wants_auth_value = True


def policy_restart(tpm: Tpm, session: Session) -> None:
    """Begin the policy of a session again."""
    tpm.ask(CommandCode.POLICY_RESTART, nothing, (session.entity,))
    session.policy_wants_auth_value = False


def policy_get_digest(tpm: Tpm, session: Session) -> bytes:
    """Return the session's policy digest so far."""
    return tpm.ask(
        CommandCode.POLICY_GET_DIGEST, lambda reader: reader.sized(DIGEST_BYTES), (session.entity,)
    )
