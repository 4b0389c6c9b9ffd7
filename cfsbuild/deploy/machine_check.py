"""Whether a bundle is for this machine, as its TPM says; and what the TPM is told of what was mounted."""

from __future__ import annotations

from cfsbuild.errors import VerificationError
from cfsbuild.trust import bundle as bundles
from cfsbuild.trust.bundle import Bundle
from cfsbuild.trust.counter import read_counter
from cfsbuild.trust.enrolment import EnrolledCounter, Enrolment
from cfsbuild.trust.pcrlock import MOUNT_PCR, mount_event
from cfsbuild.trust.storage_key import salted_session, storage_key
from cfsbuild.trust.tpm.connection import Tpm
from cfsbuild.trust.tpm.pcr import extend_pcr


def check_machine(bundle: Bundle, tpm: Tpm | None, enrolled: Enrolment | None = None) -> None:
    """Raise if a verified bundle is for another machine, or older than this machine's counter.

    `enrolled` is what the machine knows of itself, from where nobody else writes (its initramfs): with it
    bundles that name no machine are held against the counter as well. Raises `VerificationError`, reason
    `tpm-missing` (and something depends on it), `srk-name`, `counter-missing`, `counter-kind`, `counter-name`
    or `rollback`; `TpmError`.
    """
    wanted = _storage_keys(bundle, enrolled)
    if not wanted:
        return
    if tpm is None:
        raise VerificationError(
            f"the bundle of {bundle.name} cannot be checked without a TPM",
            details="whether it is for this machine, and not too old, only the TPM knows",
            resolution="name it: --tpm DEVICE",
            reason="tpm-missing",
        )
    found = storage_key(tpm).name.hex()
    if wanted != {found}:
        raise VerificationError(
            f"the bundle of {bundle.name} is for another machine",
            details="\n".join([*(f"expected {name}" for name in sorted(wanted)), f"found    {found}"]),
            resolution="seal it to this machine; if its TPM was cleared or replaced, enrol it again",
            reason="srk-name",
        )
    for counter in _counters(bundle, enrolled):
        _check_counter(bundle, tpm, counter, found)


def _storage_keys(bundle: Bundle, enrolled: Enrolment | None) -> set[str]:
    """Return the Names that the machine's storage root key must have, in hex."""
    named = [] if bundle.target is None else [bundle.target.srk]
    return {*named, *([] if enrolled is None else [enrolled.srk.name])}


def _counters(bundle: Bundle, enrolled: Enrolment | None) -> list[EnrolledCounter]:
    found = [] if enrolled is None or enrolled.counter is None else [enrolled.counter]
    if bundle.target is not None and bundle.target.counter is not None:
        counter = bundle.target.counter
        found.append(EnrolledCounter(counter.index, counter.name, counter.base))
    return found


def _check_counter(bundle: Bundle, tpm: Tpm, wanted: EnrolledCounter, srk_name: str) -> None:
    counter = read_counter(tpm, wanted.index, srk_name=bytes.fromhex(srk_name))
    if counter.name.hex() != wanted.name:
        raise VerificationError(
            f"the counter 0x{wanted.index:08x} is another one than was enrolled",
            details=f"expected {wanted.name}\nfound    {counter.name.hex()}",
            resolution="somebody removed it and made another; enrol the machine again",
            reason="counter-name",
        )
    if counter.value < wanted.base:
        raise VerificationError(
            f"the counter 0x{wanted.index:08x} is below what it was when the machine was enrolled",
            details=f"at least {wanted.base}\nfound    {counter.value}",
            resolution="counters never go back: do not trust this TPM, and enrol the machine again",
            reason="rollback",
        )
    bundles.check_generation(bundle, counter.value - wanted.base)


def record_mount(bundle: Bundle, tpm: Tpm, enrolled: Enrolment | None = None) -> None:
    """Extend PCR 15 by what was mounted: what is sealed with PCR 15 at zero is not released any more.

    Raises what `latch` raises.
    """
    name = min(_storage_keys(bundle, enrolled), default="")
    latch(tpm, mount_event(bundle.name, bundle.image.digest), srk_name=name)


def latch(tpm: Tpm, event: bytes, *, srk_name: str) -> None:
    """Extend PCR 15 by `event`. That the TPM did it is certain, if its storage root key has `srk_name` (hex).

    Without that name nothing is certain: whatever stands between this machine and its TPM has keys as well.
    Raises `TpmError`, `VerificationError` (reason `srk-name`).
    """
    if not srk_name:
        extend_pcr(tpm, MOUNT_PCR, event)
        return
    with salted_session(tpm, storage_key(tpm, name=bytes.fromhex(srk_name))) as session:
        extend_pcr(tpm, MOUNT_PCR, event, session)
