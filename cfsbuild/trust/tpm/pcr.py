"""Commands about platform configuration registers (part 3, chapter 22)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from cfsbuild.errors import TpmError
from cfsbuild.trust.tpm.command_codes import CommandCode
from cfsbuild.trust.tpm.connection import Tpm, nothing
from cfsbuild.trust.tpm.session import AUDIT, CONTINUE, PASSWORD, Authorization, Session, permanent
from cfsbuild.trust.tpm.structures import pcr_selection
from cfsbuild.trust.tpm.wire import Reader, u16, u32

_CAP_PCRS = 5
_BANKS = 16
_DIGEST_BYTES = 64
_PER_READ = 8
"""Most digests in one response (TPML_DIGEST)."""

_HASHES = {
    0x0004: "sha1",
    0x000B: "sha256",
    0x000C: "sha384",
    0x000D: "sha512",
    0x0012: "sm3",
    0x0027: "sha3_256",
    0x0028: "sha3_384",
    0x0029: "sha3_512",
}


def read_pcrs(tpm: Tpm, pcrs: Iterable[int]) -> dict[int, bytes]:
    """Return the values of registers in the SHA-256 bank.

    Raises `TpmError` (reason `pcr-bank`) where the TPM has no such register there.
    """
    wanted = sorted(set(pcrs))
    found: dict[int, bytes] = {}
    for start in range(0, len(wanted), _PER_READ):
        some = wanted[start : start + _PER_READ]
        selection = pcr_selection(frozenset(some))
        given, values = tpm.ask(CommandCode.PCR_READ, _pcr_values, (), selection)
        if given != selection or len(values) != len(some):
            raise TpmError(
                "the TPM keeps no SHA-256 values of some registers",
                details="PCR " + ", ".join(map(str, some)),
                resolution="switch the SHA-256 bank on in the firmware's settings",
                reason="pcr-bank",
            )
        found.update(zip(some, values, strict=True))
    return found


def active_banks(tpm: Tpm, session: Session | None = None) -> list[int]:
    """Return the hash algorithms (TPM_ALG_ID) by which the TPM keeps registers.

    With a `session` it is certain that the TPM said so.
    """
    audit = () if session is None else (Authorization(session, attributes=CONTINUE | AUDIT),)
    return tpm.ask(CommandCode.GET_CAPABILITY, _banks, (), u32(_CAP_PCRS) + u32(0) + u32(1), audit)


def extend_pcr(tpm: Tpm, pcr: int, data: bytes, session: Session | None = None) -> None:
    """Extend a register by the digest of `data`, in all active banks, each by its own hash.

    With a `session` it is certain that the TPM did it. Raises `TpmError` (reason `pcr-bank`) for a bank whose
    hash cannot be computed here, and where there is no bank, before anything is extended: a register left as
    it was in one bank is no latch.
    """
    digests = b""
    banks = active_banks(tpm, session)
    if not banks:
        raise TpmError("the TPM keeps no registers in any bank", reason="pcr-bank")
    for bank in banks:
        digests += u16(bank) + _digest(bank, data)
    register = permanent(pcr)
    authorization = PASSWORD if session is None else Authorization(session, register)
    tpm.ask(CommandCode.PCR_EXTEND, nothing, (register,), u32(len(banks)) + digests, (authorization,))


def _digest(bank: int, data: bytes) -> bytes:
    try:
        return hashlib.new(_HASHES[bank], data).digest()
    except (KeyError, ValueError) as error:
        raise TpmError(
            f"the TPM keeps registers by algorithm 0x{bank:04x}, which cannot be computed here",
            resolution="switch that bank off in the firmware's settings",
            reason="pcr-bank",
        ) from error


def _pcr_values(reader: Reader) -> tuple[bytes, list[bytes]]:
    """Return the selection that was read, as it came, and the values."""
    reader.u32()
    selection = _selections(reader)
    count = reader.u32()
    if count > _PER_READ:
        raise reader.error(f"{count} values of registers")
    raw = u32(len(selection)) + b"".join(u16(bank) + bytes([len(bits)]) + bits for bank, bits in selection)
    return raw, [reader.sized(_DIGEST_BYTES) for _ in range(count)]


def _banks(reader: Reader) -> list[int]:
    reader.u8()
    reader.expect(_CAP_PCRS, reader.u32(), "the capability")
    return [bank for bank, bits in _selections(reader) if any(bits)]


def _selections(reader: Reader) -> list[tuple[int, bytes]]:
    """Return a TPML_PCR_SELECTION: banks, and bits of registers."""
    count = reader.u32()
    if count > _BANKS:
        raise reader.error(f"{count} banks")
    return [(reader.u16(), reader.take(reader.u8())) for _ in range(count)]
