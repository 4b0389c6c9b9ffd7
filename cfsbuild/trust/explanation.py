"""What stands between a sealed bundle and its content, as data: what a policy expects, and what the TPM has.

Nothing here is certain, since nothing here decides: the TPM does, when it runs the policy.
"""

from __future__ import annotations

import msgspec

from cfsbuild.errors import VerificationError
from cfsbuild.trust.pcrlock import MOUNT_PCR
from cfsbuild.trust.registers import about
from cfsbuild.trust.tpm import commands, nv, pcr, response_codes
from cfsbuild.trust.tpm.connection import Tpm
from cfsbuild.trust.tpm.numbers import NvAttribute
from cfsbuild.trust.tpm.response_codes import ResponseError
from cfsbuild.trust.unseal_policy import Branch, CounterLimit, UnsealPolicy

_PERMANENT = 0x200  # TPM_PT_PERMANENT, TPM_PT_LOCKOUT_COUNTER and those that follow it
_IN_LOCKOUT = 1 << 9
_LOCKOUT = 0x20E
_ZERO = bytes(32).hex()


class Register(msgspec.Struct, frozen=True):
    """A register of the SHA-256 bank, values in hex; `about` says what it holds and what changes it."""

    pcr: int
    expected: str
    found: str
    fits: bool
    about: str


class CounterState(msgspec.Struct, frozen=True):
    """A counter that must not be above `limit`; its value is null if it was not read."""

    index: int
    limit: int
    value: int | None
    fits: bool
    reason: str = ""
    details: str = ""


class BranchState(msgspec.Struct, frozen=True):
    """One of the states in which a policy releases, beside the state that the machine is in."""

    registers: list[Register]
    counter: CounterState | None

    @property
    def misses(self) -> int:
        """Say how many conditions do not hold."""
        wrong = sum(not register.fits for register in self.registers)
        return wrong + (self.counter is not None and not self.counter.fits)


class Lockout(msgspec.Struct, frozen=True):
    """Wrong PINs that were counted, how many are allowed; seconds until one is forgotten."""

    failures: int
    allowed: int
    locked: bool
    recovery_seconds: int


def look(tpm: Tpm, document: UnsealPolicy) -> list[BranchState]:
    """Return the branches of a policy beside the machine's state. Changes nothing. Raises `TpmError`."""
    wanted = {int(number) for branch in document.branches for number in branch.pcrs}
    values = pcr.read_pcrs(tpm, wanted)
    return [_branch(tpm, branch, values) for branch in document.branches]


def nearest(branches: list[BranchState]) -> int:
    """Return the number of the branch with the fewest conditions that do not hold."""
    return min(range(len(branches)), key=lambda number: branches[number].misses)


def refusal(branches: list[BranchState]) -> VerificationError | None:
    """Return why no branch fits, by the nearest one; None if one does.

    The reason is `pcr-mismatch`, `rollback` (counter above the limit), `counter-missing`, `counter-name` (it
    was made again) or `counter-kind`.
    """
    branch = branches[nearest(branches)]
    wrong = [register for register in branch.registers if not register.fits]
    if wrong:
        return _mismatch(wrong, len(branches))
    counter = branch.counter
    if counter is None or counter.fits:
        return None
    return VerificationError(
        _COUNTER_BRIEFS[counter.reason].format(f"0x{counter.index:08x}"),
        details=counter.details,
        resolution=_COUNTER_RESOLUTIONS[counter.reason],
        reason=counter.reason,
    )


def lockout(tpm: Tpm) -> Lockout:
    """Return how near the TPM is to refusing all PINs. Raises `TpmError`."""
    permanent = commands.properties(tpm, _PERMANENT, 1).get(_PERMANENT, 0)
    found = commands.properties(tpm, _LOCKOUT, 3)
    failures, allowed, recovery = (found.get(_LOCKOUT + number, 0) for number in range(3))
    return Lockout(failures, allowed, bool(permanent & _IN_LOCKOUT), recovery)


_COUNTER_BRIEFS = {
    "rollback": "this is too old: counter {} is beyond its generation",
    "counter-missing": "the TPM has no counter {}",
    "counter-name": "counter {} is not the one that this was sealed to",
    "counter-kind": "NV index {} is no counter that can be read",
}
_COUNTER_RESOLUTIONS = {
    "rollback": "use the newest release; what was withdrawn stays withdrawn on this machine",
    "counter-missing": "enrol the machine again, and seal to that",
    "counter-name": "enrol the machine again, and seal to that",
    "counter-kind": "enrol the machine with another index, and seal to that",
}


def _branch(tpm: Tpm, branch: Branch, values: dict[int, bytes]) -> BranchState:
    registers = []
    for text, expected in sorted(branch.pcrs.items(), key=lambda item: int(item[0])):
        number = int(text)
        found = values[number].hex()
        registers.append(Register(number, expected, found, expected == found, about(number)))
    counter = None if branch.counter is None else _counter(tpm, branch.counter)
    return BranchState(registers, counter)


def _counter(tpm: Tpm, limit: CounterLimit) -> CounterState:
    def wrong(reason: str, details: str, value: int | None = None) -> CounterState:
        return CounterState(limit.index, limit.operand, value, fits=False, reason=reason, details=details)

    try:
        index = nv.read_nv_public(tpm, limit.index)
    except ResponseError as error:
        if not error.is_of(response_codes.HANDLE):
            raise
        return wrong("counter-missing", "there is no such NV index")
    if index.name.hex() != limit.name:
        details = f"expected {limit.name}\nfound    {index.name.hex()}"
        return wrong("counter-name", f"{details}\nit was removed and made again, or never incremented")
    if not index.public.attributes & NvAttribute.AUTH_READ or index.public.data_size != 8:
        return wrong("counter-kind", f"attributes 0x{index.public.attributes:08x}")
    if not index.public.attributes & NvAttribute.WRITTEN:
        return wrong("counter-missing", "it was never incremented")
    value = int.from_bytes(nv.read(tpm, index), "big")
    if value > limit.operand:
        return wrong("rollback", f"counter  {value}\nallowed  {limit.operand}", value)
    return CounterState(limit.index, limit.operand, value, fits=True)


def _mismatch(wrong: list[Register], branches: int) -> VerificationError:
    names = ", ".join(str(register.pcr) for register in wrong)
    lines = []
    for register in wrong:
        lines += [f"PCR {register.pcr}: {register.about}"]
        lines += [f"  expected {register.expected}", f"  found    {register.found}"]
    if branches > 1:
        lines.append(f"the nearest of {branches} states that are allowed")
    latched = all(item.pcr == MOUNT_PCR and item.expected == _ZERO for item in wrong)
    return VerificationError(
        f"the machine is not in the state that this was sealed for: PCR {names}",
        details="\n".join(lines),
        resolution="it is released once in each boot: start the machine again"
        if latched
        else "if the change is meant, approve a policy with the new values",
        reason="pcr-mismatch",
    )
