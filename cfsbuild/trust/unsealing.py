"""Unsealing: run a policy on this machine's TPM, and open what was sealed to it.

What comes out was encrypted by whoever had the machine's public key, which is nobody's secret: it proves
nothing until its signature is verified.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import NoReturn

import msgspec

from cfsbuild.errors import UsageError, VerificationError
from cfsbuild.trust import explanation, sealed, unseal_policy
from cfsbuild.trust.explanation import BranchState, Lockout
from cfsbuild.trust.sealed import SealedBundle
from cfsbuild.trust.storage_key import salted_session, storage_key
from cfsbuild.trust.tpm import commands, nv, response_codes
from cfsbuild.trust.tpm import policy_commands as steps
from cfsbuild.trust.tpm.commands import Loaded
from cfsbuild.trust.tpm.connection import Tpm
from cfsbuild.trust.tpm.numbers import Comparison
from cfsbuild.trust.tpm.offline import SealedObject
from cfsbuild.trust.tpm.response_codes import ResponseError
from cfsbuild.trust.tpm.session import Entity, Session
from cfsbuild.trust.tpm.structures import decode_public, name_of
from cfsbuild.trust.tpm.wire import u64
from cfsbuild.trust.unseal_policy import Branch, UnsealPolicy

EXPLANATION_VERSION = 1

_RESTARTS = 5
"""How often registers may change while the policy runs."""

_DOES_NOT_HOLD = (
    response_codes.VALUE,
    response_codes.POLICY,
    response_codes.HANDLE,
    response_codes.AUTH_UNAVAILABLE,
    response_codes.NV_AUTHORIZATION,
    response_codes.NV_LOCKED,
    response_codes.NV_RANGE,
    response_codes.NV_UNINITIALIZED,
)


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a bundle would unseal here and now, given the PIN if there is one; if not, what stops it.

    `reason` and `brief` are those of the refusal, empty if there is none. `ours`: a slot is for this machine.
    `branches` are in the policy's order; `nearest` is the number of the one with the fewest misses.
    """

    version: int = EXPLANATION_VERSION
    name: str
    unseals: bool
    reason: str
    brief: str
    slots: int
    ours: bool
    branches: list[BranchState]
    nearest: int
    approved: bool | None
    pin: bool
    lockout: Lockout | None


def no_pin() -> bytes:
    """Refuse to give a PIN."""
    raise UsageError("this is sealed with a PIN", resolution="give it", reason="pin-missing")


def unseal(
    tpm: Tpm,
    data: bytes,
    document: UnsealPolicy,
    *,
    pin: Callable[[], bytes] = no_pin,
    srk_name: bytes | None = None,
) -> bytes:
    """Return what is in a sealed bundle (CFSB1): nothing to trust before its signature is verified.

    `pin` is called once, and only if all else holds. With `srk_name` nothing goes to a TPM whose storage root
    key is another one, which is what something between this machine and its TPM would have.

    Raises `VerificationError`, reason `sealed-malformed`, `policy-other` (the document is not of this
    bundle), `srk-name`, `sealed-other-target`, `policy-signature` (not approved), `pcr-mismatch`, `rollback`,
    `counter-missing`, `counter-name`, `counter-kind`, `pcr-changed` (again and again), `policy-refused`,
    `pin`, `lockout`, `sealed-damaged`; `TpmError`; what `pin` raises.
    """
    bundle = sealed.parse(data)
    _check_is_of(bundle, document)
    key = storage_key(tpm, name=srk_name)
    return sealed.open_sealed(bundle, lambda slot: _unwrap(tpm, key, slot, document, pin))


def explain(tpm: Tpm, data: bytes, document: UnsealPolicy) -> Explanation:
    """Return what stops `unseal` here and now, without unsealing; the policy is run as it would be.

    Raises `VerificationError` (reason `sealed-malformed`), `TpmError`.
    """
    bundle = sealed.parse(data)
    key = storage_key(tpm)
    branches = explanation.look(tpm, document)
    locked = explanation.lockout(tpm) if document.auth_value else None
    refusal: VerificationError | None = None
    ours = False
    try:
        _check_is_of(bundle, document)
        ours = any(_take_in(tpm, key, slot, document) is not None for slot in bundle.slots)
        if not ours:
            sealed.open_sealed(bundle, lambda _slot: None)  # says that all slots are for others
        _rehearse(tpm, key, document)
        if locked is not None and locked.locked:
            raise _locked(locked)
    except VerificationError as error:
        refusal = error
    return Explanation(
        name=document.name,
        unseals=refusal is None,
        reason="" if refusal is None else refusal.reason,
        brief="" if refusal is None else refusal.brief,
        slots=len(bundle.slots),
        ours=ours,
        branches=branches,
        nearest=explanation.nearest(branches),
        approved=_is_approved(document),
        pin=document.auth_value,
        lockout=locked,
    )


def _check_is_of(bundle: SealedBundle, document: UnsealPolicy) -> None:
    wanted = unseal_policy.policy_digest(document)
    if all(sealed.slot_public(slot).auth_policy != wanted for slot in bundle.slots):
        raise VerificationError(
            "the policy is not that of the sealed bundle",
            details=f"it is the policy of {document.name}, with the digest {wanted.hex()}",
            resolution="use the policy file that was made with the bundle, or is approved by the same key",
            reason="policy-other",
        )


def _unwrap(
    tpm: Tpm, key: Loaded, slot: SealedObject, document: UnsealPolicy, pin: Callable[[], bytes]
) -> bytes | None:
    """Return the key in a slot; None if the slot is for another machine, or under another policy."""
    private = _take_in(tpm, key, slot, document)
    if private is None:
        return None
    item = commands.load(tpm, key, private, decode_public(slot.public))
    with tpm.holding(item.handle), salted_session(tpm, key, policy=True) as session:
        return _release(tpm, session, item.entity, document, pin)


def _take_in(tpm: Tpm, key: Loaded, slot: SealedObject, document: UnsealPolicy) -> bytes | None:
    if sealed.slot_public(slot).auth_policy != unseal_policy.policy_digest(document):
        return None
    try:
        return commands.import_object(tpm, key, slot.public, slot.duplicate, slot.seed)
    except ResponseError as error:
        # What is made for another key fails in many ways, each about one of the parameters.
        if not error.about_parameter:
            raise
        return None


def _release(
    tpm: Tpm, session: Session, item: Entity, document: UnsealPolicy, pin: Callable[[], bytes]
) -> bytes:
    """Run the policy and unseal; again, if registers change meanwhile."""
    ticket = _approve(tpm, document)
    auth: bytes | None = None if document.auth_value else b""
    for _ in range(_RESTARTS):
        try:
            _run(tpm, session, document, ticket)
            if auth is None:
                auth = pin()
            return commands.unseal(tpm, item._replace(auth=auth), session)
        except ResponseError as error:
            if not error.is_of(response_codes.PCR_CHANGED):
                _refuse(tpm, document, error)
        steps.policy_restart(tpm, session)
    raise VerificationError(
        "registers of the TPM change while the policy runs",
        details=f"tried {_RESTARTS} times",
        resolution="try again when the machine has booted",
        reason="pcr-changed",
    )


def _rehearse(tpm: Tpm, key: Loaded, document: UnsealPolicy) -> None:
    """Run the policy, and raise as `unseal` does if it does not come to the right digest."""
    ticket = _approve(tpm, document)
    with salted_session(tpm, key, policy=True) as session:
        try:
            _run(tpm, session, document, ticket)
        except ResponseError as error:
            _refuse(tpm, document, error)
        if steps.policy_get_digest(tpm, session) != unseal_policy.policy_digest(document):
            raise _refused("its digest is another one")


def _approve(tpm: Tpm, document: UnsealPolicy) -> bytes:
    """Return the TPM's ticket for the approval; empty if the policy needs none."""
    if document.authorize is None:
        return b""
    message = unseal_policy.approval_message(document, bytes.fromhex(document.authorize.ref))
    signer = commands.load_external(tpm, decode_public(bytes.fromhex(document.authorize.key)))
    with tpm.holding(signer.handle):
        try:
            return commands.verify_signature(
                tpm, signer, hashlib.sha256(message).digest(), bytes.fromhex(document.authorize.signature)
            )
        except ResponseError as error:
            if error.about_parameter:
                unseal_policy.check_approval(document)  # raises, unless it is the TPM that cannot verify
            raise


def _run(tpm: Tpm, session: Session, document: UnsealPolicy, ticket: bytes) -> None:
    """Take the session through the policy. Raises `VerificationError` if no branch fits, `ResponseError`."""
    if not any(_branch_holds(tpm, session, branch) for branch in document.branches):
        raise explanation.refusal(explanation.look(tpm, document)) or _refused("no branch holds")
    if len(document.branches) > 1:
        steps.policy_or(tpm, session, [unseal_policy.branch_digest(each) for each in document.branches])
    if document.authorize is not None:
        steps.policy_authorize(
            tpm,
            session,
            approved=unseal_policy.approved_digest(document),
            ref=bytes.fromhex(document.authorize.ref),
            signer=name_of(decode_public(bytes.fromhex(document.authorize.key))),
            ticket=ticket,
        )
    if document.auth_value:
        steps.policy_auth_value(tpm, session)


def _branch_holds(tpm: Tpm, session: Session, branch: Branch) -> bool:
    """Take the session through a branch; if it does not hold, the session is as at the beginning."""
    try:
        if branch.pcrs:
            steps.policy_pcr(tpm, session, branch.values)
        if branch.counter is None:
            return True
        index = nv.read_nv_public(tpm, branch.counter.index)
        if index.name.hex() == branch.counter.name:
            operand = u64(branch.counter.operand)
            steps.policy_nv(tpm, session, index.entity, operand, Comparison.UNSIGNED_LE)
            return True
    except ResponseError as error:
        if not error.is_of(*_DOES_NOT_HOLD):
            raise
    steps.policy_restart(tpm, session)
    return False


def _refuse(tpm: Tpm, document: UnsealPolicy, error: ResponseError) -> NoReturn:
    """Raise why the TPM did not release what is sealed."""
    if error.is_of(response_codes.LOCKOUT):
        raise _locked(explanation.lockout(tpm)) from error
    if document.auth_value and error.is_of(response_codes.AUTH_FAIL, response_codes.BAD_AUTH):
        state = explanation.lockout(tpm)
        raise VerificationError(
            "the PIN is wrong",
            details=f"{state.failures} of {state.allowed} wrong PINs before the TPM refuses all",
            reason="pin",
        ) from error
    if error.is_of(response_codes.POLICY_FAIL, response_codes.VALUE, response_codes.POLICY):
        why = explanation.refusal(explanation.look(tpm, document))
        raise why or _refused(error.details) from error
    raise error


def _refused(details: str) -> VerificationError:
    return VerificationError(
        "the policy does not hold", details=details, resolution="try again", reason="policy-refused"
    )


def _locked(state: Lockout) -> VerificationError:
    return VerificationError(
        "the TPM refuses all PINs: there were too many wrong ones",
        details=f"it forgets one of them every {state.recovery_seconds} s while it is on",
        resolution="wait; or, with the lockout's authorization, tpm2_dictionarylockout --clear-lockout",
        reason="lockout",
    )


def _is_approved(document: UnsealPolicy) -> bool | None:
    """Say whether the approval is valid; None if there is none to be."""
    if document.authorize is None:
        return None
    try:
        unseal_policy.check_approval(document)
    except VerificationError:
        return False
    return True
