"""The counter by which a TPM knows what is too old: it only goes up, and survives reinstalling.

It is an NV index of type counter that the owner increments and everybody reads. Whoever removes it and makes
it again gets one that starts above the value that it had.
"""

from __future__ import annotations

import msgspec

from cfsbuild.errors import UsageError, VerificationError
from cfsbuild.trust.storage_key import as_owner, salted_session, storage_key
from cfsbuild.trust.tpm import commands, nv, response_codes
from cfsbuild.trust.tpm.connection import Tpm
from cfsbuild.trust.tpm.numbers import NvAttribute
from cfsbuild.trust.tpm.response_codes import ResponseError
from cfsbuild.trust.tpm.session import Session
from cfsbuild.trust.tpm.structures import NvPublic

DEFAULT_INDEX = 0x01800100
INDICES = range(0x01000000, 0x02000000)
STEPS = 1024
"""How far a counter is advanced at once: each step is a write to memory that wears."""

_BYTES = 8
_ATTRIBUTES = NvAttribute.COUNTER | NvAttribute.OWNER_WRITE | NvAttribute.AUTH_READ | NvAttribute.NO_DA
_KIND = 0xF0  # TPM_NT, the kind of index


class Counter(msgspec.Struct, frozen=True):
    """A counter's index, Name and value."""

    index: int
    name: bytes
    value: int


def read_counter(tpm: Tpm, index: int = DEFAULT_INDEX, *, srk_name: bytes | None = None) -> Counter:
    """Return a counter; that the value comes from the TPM which has the storage root key is certain.

    Which key that should be says `srk_name`, where it is known.

    Raises `VerificationError`, reason `counter-missing` (or never incremented) or `counter-kind`, and what
    `salted_session` raises.
    """
    found = _public(tpm, index)
    with salted_session(tpm, storage_key(tpm, name=srk_name)) as session:
        return _read(tpm, found, session)


def make_counter(tpm: Tpm, index: int = DEFAULT_INDEX) -> Counter:
    """Return the counter of that index, after making it if there is none and counting once if nobody did.

    Its Name is another one before it is incremented for the first time. Raises as `read_counter`, and
    `UsageError` (reason `counter-index`), `TpmError` (`owner-auth`).
    """
    check_index(index)
    with as_owner():
        if not commands.has_handle(tpm, index):
            nv.define(tpm, NvPublic(index=index, attributes=_ATTRIBUTES, data_size=_BYTES))
        found = _public(tpm, index)
        if not found.public.attributes & NvAttribute.WRITTEN:
            nv.increment(tpm, found)
    return read_counter(tpm, index)


def advance_counter(tpm: Tpm, index: int, to: int) -> Counter:
    """Count up to `to`, and return the counter; one that is there already or beyond stays as it is.

    Raises as `read_counter`, and `UsageError` (reason `counter-far`) for more than 1024
    steps, `TpmError` (`owner-auth`).
    """
    counter = read_counter(tpm, index)
    if to - counter.value > STEPS:
        raise UsageError(
            f"the counter is at {counter.value}: {to} is too far away",
            details=f"each step wears the TPM's memory; {STEPS} are taken at once",
            resolution="see whether this is the value that is meant",
            reason="counter-far",
        )
    if to <= counter.value:
        return counter
    found = _public(tpm, index)
    with as_owner(), salted_session(tpm) as session:
        for _ in range(to - counter.value):
            nv.increment(tpm, found, session)
        return _read(tpm, found, session)


def check_index(index: int) -> None:
    """Raise `UsageError` (reason `counter-index`) for what can be no NV index."""
    if index not in INDICES:
        raise UsageError(
            f"0x{index:x} is no NV index",
            resolution=f"use one from 0x{INDICES[0]:08x} to 0x{INDICES[-1]:08x}, as 0x{DEFAULT_INDEX:08x}",
            reason="counter-index",
        )


def _public(tpm: Tpm, index: int) -> nv.Index:
    check_index(index)
    try:
        found = nv.read_nv_public(tpm, index)
    except ResponseError as error:
        if not error.is_of(response_codes.HANDLE):
            raise
        raise _missing(index, "there is no such NV index") from error
    attributes = found.public.attributes
    kind = attributes & _KIND, found.public.data_size
    if kind != (NvAttribute.COUNTER, _BYTES) or not attributes & NvAttribute.AUTH_READ:
        raise VerificationError(
            f"the NV index 0x{index:08x} is no counter that everybody can read",
            details=f"its attributes are 0x{attributes:08x}, its size {found.public.data_size}",
            resolution="name another index",
            reason="counter-kind",
        )
    return found


def _read(tpm: Tpm, found: nv.Index, session: Session) -> Counter:
    try:
        data = nv.read(tpm, found, session)
    except ResponseError as error:
        if not error.is_of(response_codes.NV_UNINITIALIZED):
            raise
        raise _missing(found.public.index, "it was never incremented") from error
    return Counter(found.public.index, found.name, int.from_bytes(data, "big"))


def _missing(index: int, details: str) -> VerificationError:
    return VerificationError(
        f"the TPM has no counter 0x{index:08x}",
        details=details,
        resolution="`cfsbuild enroll` makes it; what was sealed before needs the one that was there then",
        reason="counter-missing",
    )
