"""What a machine's TPM is, as a document that lets others seal to it (docs/formats/enrolment.md).

Nothing in it is secret, and nothing in it is signed: that it comes from the machine it should come from,
whoever uses it has to know otherwise.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from cfsbuild.errors import InputError, VerificationError
from cfsbuild.trust import canonical, files
from cfsbuild.trust.counter import Counter, make_counter
from cfsbuild.trust.registers import REGISTER
from cfsbuild.trust.storage_key import as_owner, storage_key
from cfsbuild.trust.tpm import commands, nv, pcr, response_codes
from cfsbuild.trust.tpm.commands import Loaded
from cfsbuild.trust.tpm.connection import Tpm
from cfsbuild.trust.tpm.numbers import PERSISTENT_SRK, NvAttribute
from cfsbuild.trust.tpm.offline import check_parent
from cfsbuild.trust.tpm.response_codes import ResponseError
from cfsbuild.trust.tpm.structures import (
    LEGACY_PRIMARY,
    PCRS,
    SRK_ECC,
    Public,
    decode_public,
    encode_public,
    name_of,
)

ENROLMENT_BYTES = 1 << 17

_CERTIFICATE_INDICES = (0x01C00002, 0x01C0000A, 0x01C00012, 0x01C00014)
"""Where makers put certificates of endorsement keys: RSA-2048, P-256, both again (TCG EK profile, 2.2)."""

_CERTIFICATE_BYTES = 8192
_READ = NvAttribute.AUTH_READ | NvAttribute.OWNER_READ
_MAY_NOT_READ = (
    response_codes.NV_LOCKED,
    response_codes.NV_AUTHORIZATION,
    response_codes.BAD_AUTH,
    response_codes.AUTH_UNAVAILABLE,
)

_Hex = Annotated[str, msgspec.Meta(pattern=r"\A([0-9a-f]{2})+\Z", max_length=2 * _CERTIFICATE_BYTES)]
_Hex32 = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]
_Name = Annotated[str, msgspec.Meta(pattern=r"\A000b[0-9a-f]{64}\Z")]
_Index = Annotated[int, msgspec.Meta(ge=0x01000000, le=0x01FFFFFF)]


class StorageKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A key that things are sealed under: TPMT_PUBLIC and Name in hex."""

    public: _Hex
    name: _Name


class EnrolledCounter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The machine's counter: NV index, Name in hex, and its value when the machine was enrolled."""

    index: _Index
    name: _Name
    base: Annotated[int, msgspec.Meta(ge=0, le=(1 << 53) - 1)]


class Certificate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A certificate that the TPM's maker put into it: NV index, and its bytes (DER) in hex."""

    index: _Index
    der: _Hex


class Enrolment(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A machine: keys to seal under (`legacy`: systemd credentials), counter, and what may inform people."""

    v: Literal[1] = 1
    type: Literal["cfsbuild.enrolment"] = "cfsbuild.enrolment"
    srk: StorageKey
    legacy: StorageKey
    counter: EnrolledCounter | None = None
    ek_certificates: Annotated[list[Certificate], msgspec.Meta(max_length=len(_CERTIFICATE_INDICES))] = (
        msgspec.field(default_factory=list)
    )
    pcrs: dict[str, _Hex32]


def encode(enrolment: Enrolment) -> bytes:
    """Return an enrolment's only encoding."""
    return canonical.encode(enrolment)


def decode(data: bytes) -> Enrolment:
    """Return the enrolment that `data` encodes. Raises `VerificationError` (reason `malformed`).

    Both keys are ones that can be sealed under, and their Names are right.
    """
    enrolment = canonical.decode(data, Enrolment, what="the enrolment", limit=ENROLMENT_BYTES)
    for key in (enrolment.srk, enrolment.legacy):
        try:
            public = key_public(key)
            check_parent(public)
        except InputError as error:
            raise canonical.malformed("the enrolment", f"{error.brief}: {error.details}") from error
        if name_of(public).hex() != key.name:
            raise canonical.malformed("the enrolment", "a Name is not that of its key")
    if not all(REGISTER.fullmatch(number) for number in enrolment.pcrs):
        raise canonical.malformed("the enrolment", f"registers are 0 to {PCRS - 1}")
    return enrolment


def read(path: Path) -> Enrolment:
    """Return the enrolment in a file. Raises as `decode`, naming the file; `InputError`, `OSError`."""
    data = files.read_regular(path, limit=ENROLMENT_BYTES)
    try:
        return decode(data)
    except VerificationError as error:
        raise VerificationError(
            f"{path}: {error.brief}", details=error.details, reason=error.reason
        ) from error


def key_public(key: StorageKey) -> Public:
    """Return the public area of a key. Raises `InputError` (`tpm-structure`)."""
    return decode_public(bytes.fromhex(key.public))


def enroll(tpm: Tpm, *, create_srk: bool = False, counter: int | None = None) -> Enrolment:
    """Return what others need to know of this machine to seal for it.

    With `create_srk` a storage root key is made if there is none; with the index of a `counter`, that one.
    Nothing else is changed. Raises `TpmError` (reason `srk-missing`, `owner-auth` …), and what `make_counter`
    raises.
    """
    with as_owner():
        if create_srk and not commands.has_handle(tpm, PERSISTENT_SRK):
            _make_storage_key(tpm)
        srk = storage_key(tpm)
        legacy = commands.create_primary(tpm, LEGACY_PRIMARY)
        tpm.flush(legacy.handle)
    made = None if counter is None else make_counter(tpm, counter)
    return Enrolment(
        srk=_key(srk),
        legacy=_key(legacy),
        counter=None if made is None else _counter(made),
        ek_certificates=_certificates(tpm),
        pcrs={str(number): value.hex() for number, value in pcr.read_pcrs(tpm, range(PCRS)).items()},
    )


def _make_storage_key(tpm: Tpm) -> None:
    key = commands.create_primary(tpm, SRK_ECC)
    with tpm.holding(key.handle):
        commands.evict_control(tpm, key, PERSISTENT_SRK)


def _key(key: Loaded) -> StorageKey:
    return StorageKey(encode_public(key.public).hex(), key.name.hex())


def _counter(counter: Counter) -> EnrolledCounter:
    return EnrolledCounter(counter.index, counter.name.hex(), counter.value)


def _certificates(tpm: Tpm) -> list[Certificate]:
    """Return the certificates that can be read."""
    found = []
    for number in _CERTIFICATE_INDICES:
        if not commands.has_handle(tpm, number):
            continue
        index = nv.read_nv_public(tpm, number)
        attributes = index.public.attributes
        # Without NO_DA a wrong authorization would count towards the lockout.
        readable = attributes & NvAttribute.NO_DA and attributes & _READ
        if (
            not attributes & NvAttribute.WRITTEN
            or not readable
            or index.public.data_size > _CERTIFICATE_BYTES
        ):
            continue
        try:
            data = nv.read(tpm, index, as_owner=not attributes & NvAttribute.AUTH_READ)
        except ResponseError as error:
            if not error.is_of(*_MAY_NOT_READ):
                raise
            continue  # it is for people, and the machine can be enrolled without
        if certificate := _without_padding(data):
            found.append(Certificate(number, certificate.hex()))
    return found


def _without_padding(data: bytes) -> bytes:
    """Return the DER value at the beginning of `data`: an index may be longer than what is in it."""
    if data[:2] != b"\x30\x82":
        return b""
    size = 4 + int.from_bytes(data[2:4], "big")
    return data[:size] if size <= len(data) else b""
