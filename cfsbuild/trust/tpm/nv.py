"""Commands about NV indices (part 3, chapter 31): counters that only go up, and what else is kept there."""

from __future__ import annotations

from typing import NamedTuple

from cfsbuild.errors import TpmError
from cfsbuild.trust.tpm.command_codes import CommandCode
from cfsbuild.trust.tpm.commands import OWNER
from cfsbuild.trust.tpm.connection import Tpm, nothing
from cfsbuild.trust.tpm.session import PASSWORD, Authorization, Entity, Session, permanent
from cfsbuild.trust.tpm.structures import NvPublic, decode_nv_public, encode_nv_public, name_of
from cfsbuild.trust.tpm.wire import Reader, sized, u16

_PUBLIC_BYTES = 128
_NAME_BYTES = 66
_BLOCK_BYTES = 512
"""How much is read at once: what every TPM of a PC can give (TPM_PT_NV_BUFFER_MAX)."""


class Index(NamedTuple):
    """An NV index that is there."""

    public: NvPublic
    name: bytes

    @property
    def entity(self) -> Entity:
        """Return it as what a command is about; its authorization value is empty."""
        return Entity(self.public.index, self.name)


def read_nv_public(tpm: Tpm, index: int) -> Index:
    """Return an NV index. Raises `ResponseError` (HANDLE) if there is none."""
    public, name = tpm.ask(CommandCode.NV_READ_PUBLIC, _public_and_name, (permanent(index),))
    if public.index != index or name_of(public) != name:
        raise TpmError(
            "the TPM's answer contradicts itself: it is about another NV index", reason="tpm-response"
        )
    return Index(public, name)


def define(tpm: Tpm, public: NvPublic) -> None:
    """Make an NV index with an empty authorization value, as the owner."""
    parameters = sized(b"") + sized(encode_nv_public(public))
    tpm.ask(CommandCode.NV_DEFINE_SPACE, nothing, (permanent(OWNER),), parameters, (PASSWORD,))


def increment(tpm: Tpm, index: Index, session: Session | None = None) -> None:
    """Count one up, as the owner; with a session it is certain that it is this TPM that did."""
    owner = permanent(OWNER)
    use = PASSWORD if session is None else Authorization(session, owner)
    tpm.ask(CommandCode.NV_INCREMENT, nothing, (owner, index.entity), b"", (use,))


def read(tpm: Tpm, index: Index, session: Session | None = None, *, as_owner: bool = False) -> bytes:
    """Return all that an NV index holds; with a session it is certain that it comes from this TPM.

    Raises `ResponseError` (NV_UNINITIALIZED) if it was never written.
    """
    reader = permanent(OWNER) if as_owner else index.entity
    use = PASSWORD if session is None else Authorization(session, reader)
    data = b""
    while len(data) < index.public.data_size:
        size = min(_BLOCK_BYTES, index.public.data_size - len(data))
        block = tpm.ask(
            CommandCode.NV_READ,
            _block,
            (reader, index.entity),
            u16(size) + u16(len(data)),
            (use,),
        )
        if len(block) != size:
            raise TpmError(f"the TPM gave {len(block)} bytes instead of {size}", reason="tpm-response")
        data += block
    return data


def _block(reader: Reader) -> bytes:
    return reader.sized(_BLOCK_BYTES)


def _public_and_name(reader: Reader) -> tuple[NvPublic, bytes]:
    return decode_nv_public(reader.sized(_PUBLIC_BYTES)), reader.sized(_NAME_BYTES)
