"""Commands about keys, sealed objects and sessions (part 3, chapters 11 to 16, 28, 30)."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from cfsbuild.errors import InputError, TpmError
from cfsbuild.trust.tpm.command_codes import CommandCode
from cfsbuild.trust.tpm.connection import Tpm, nothing, read_all
from cfsbuild.trust.tpm.kdf import secret_for
from cfsbuild.trust.tpm.numbers import Alg
from cfsbuild.trust.tpm.session import (
    CONTINUE,
    DECRYPT,
    ENCRYPT,
    NONCE_BYTES,
    PASSWORD,
    Authorization,
    Entity,
    Session,
    permanent,
    session_key,
)
from cfsbuild.trust.tpm.structures import (
    Public,
    decode_public,
    encode_public,
    name_of,
)
from cfsbuild.trust.tpm.transport import MESSAGE_BYTES
from cfsbuild.trust.tpm.wire import Reader, sized, u8, u16, u32

Answer = TypeVar("Answer")

OWNER = 0x40000001
_NULL = 0x40000007

_HMAC_SESSION = 0
_POLICY_SESSION = 1
_SEALED_BYTES = 128
_CAP_HANDLES = 1
_CAP_PROPERTIES = 6


class Loaded(NamedTuple):
    """An object in the TPM."""

    handle: int
    public: Public
    name: bytes

    @property
    def entity(self) -> Entity:
        """Return it as what a command is about; its authorization value is empty."""
        return Entity(self.handle, self.name)


def get_random(tpm: Tpm, count: int, session: Session | None = None) -> bytes:
    """Return up to `count` random bytes, encrypted on the way if there is a session."""
    use = () if session is None else (Authorization(session, attributes=CONTINUE | ENCRYPT),)
    return tpm.ask(CommandCode.GET_RANDOM, _one_sized, (), u16(count), use)


def read_public(tpm: Tpm, handle: int) -> Loaded:
    """Return the object under a handle.

    Raises `ResponseError` (HANDLE: there is none), `TpmError` (reason `tpm-key-kind`: none that is known
    here; `tpm-response`: the Name is of something else).
    """
    data, name, _qualified = tpm.ask(CommandCode.READ_PUBLIC, _three_sized, (permanent(handle),))
    try:
        public = decode_public(data)
    except InputError as error:
        raise TpmError(
            f"the object at 0x{handle:08x} is of a kind that is not known here",
            details=error.details,
            reason="tpm-key-kind",
        ) from error
    return Loaded(handle, public, checked_name(public, name))


def checked_name(public: Public, name: bytes) -> bytes:
    """Return the Name of a public area; raise `TpmError` (`tpm-response`) if the TPM said another one."""
    if name_of(public) != name:
        raise TpmError(
            "the TPM's answer contradicts itself: public area and Name do not fit", reason="tpm-response"
        )
    return name


def create_primary(tpm: Tpm, template: Public, session: Session | None = None) -> Loaded:
    """Make the owner's primary key of a template: the same one each time, until the TPM is cleared.

    With a session the command's first parameter goes encrypted.
    """
    owner = permanent(OWNER)
    use = PASSWORD if session is None else Authorization(session, owner, CONTINUE | DECRYPT)
    sensitive = sized(sized(b"") + sized(b""))
    parameters = sensitive + sized(encode_public(template)) + sized(b"") + u32(0)
    response = tpm.call(CommandCode.CREATE_PRIMARY, (owner,), parameters, (use,))
    data, name = read_all(response.parameters, _created)
    public = read_all(data, lambda reader: decode_public(reader.take(reader.left())))
    return Loaded(response.handle, public, checked_name(public, name))


def evict_control(tpm: Tpm, key: Loaded, persistent: int) -> None:
    """Keep a loaded key under a persistent handle."""
    tpm.ask(CommandCode.EVICT_CONTROL, nothing, (permanent(OWNER), key.entity), u32(persistent), (PASSWORD,))


def import_object(tpm: Tpm, parent: Loaded, public: bytes, duplicate: bytes, seed: bytes) -> bytes:
    """Take in an object that was made for `parent`; return its private part, which only this TPM can use.

    `public`, `duplicate` and `seed` are the contents of the TPM2B of those names.
    """
    parameters = sized(b"") + sized(public) + sized(duplicate) + sized(seed) + u16(Alg.NULL)
    return tpm.ask(CommandCode.IMPORT, _one_sized, (parent.entity,), parameters, (PASSWORD,))


def load(tpm: Tpm, parent: Loaded, private: bytes, public: Public) -> Loaded:
    """Load an object below `parent`."""
    parameters = sized(private) + sized(encode_public(public))
    response = tpm.call(CommandCode.LOAD, (parent.entity,), parameters, (PASSWORD,))
    name = read_all(response.parameters, _one_sized)
    return Loaded(response.handle, public, checked_name(public, name))


def load_external(tpm: Tpm, public: Public) -> Loaded:
    """Load a public key, to verify signatures by it."""
    parameters = sized(b"") + sized(encode_public(public)) + u32(OWNER)
    response = tpm.call(CommandCode.LOAD_EXTERNAL, (), parameters)
    name = read_all(response.parameters, _one_sized)
    return Loaded(response.handle, public, checked_name(public, name))


def verify_signature(tpm: Tpm, key: Loaded, digest: bytes, signature: bytes) -> bytes:
    """Return the ticket (TPMT_TK_VERIFIED) that says that the TPM verified a TPMT_SIGNATURE of a digest.

    Raises `ResponseError` (SIGNATURE) for a wrong one.
    """
    return tpm.ask(CommandCode.VERIFY_SIGNATURE, _ticket, (key.entity,), sized(digest) + signature)


def start_session(tpm: Tpm, salted_to: Loaded, *, policy: bool = False) -> Session:
    """Open a session whose key only the owner of the key `salted_to` can know.

    It works with SHA-256 and AES-128-CFB. Raises `InputError` if that is no key to encrypt to.
    """
    salt = secret_for(salted_to.public, b"SECRET")
    nonce = os.urandom(NONCE_BYTES)
    kind = _POLICY_SESSION if policy else _HMAC_SESSION
    parameters = sized(nonce) + sized(salt.encrypted) + u8(kind)
    parameters += u16(Alg.AES) + u16(128) + u16(Alg.CFB) + u16(Alg.SHA256)
    response = tpm.call(CommandCode.START_AUTH_SESSION, (salted_to.entity, permanent(_NULL)), parameters)
    nonce_tpm = read_all(response.parameters, _one_sized)
    return Session(response.handle, session_key(salt.secret, nonce_tpm, nonce), nonce_tpm, policy=policy)


def unseal(tpm: Tpm, item: Entity, session: Session) -> bytes:
    """Return what is sealed in a loaded object; it comes encrypted, and the session ends."""
    use = Authorization(session, item, ENCRYPT)
    return tpm.ask(
        CommandCode.UNSEAL, lambda reader: reader.sized(_SEALED_BYTES), (item,), authorizations=(use,)
    )


def has_handle(tpm: Tpm, handle: int) -> bool:
    """Say whether there is something under a persistent handle or an NV index."""
    return handle in _capability(tpm, _CAP_HANDLES, handle, 1, Reader.u32)


def properties(tpm: Tpm, first: int, count: int) -> dict[int, int]:
    """Return up to `count` (at most 64) of the TPM's properties from the number `first` on (TPM_PT)."""
    return dict(_capability(tpm, _CAP_PROPERTIES, first, count, lambda reader: (reader.u32(), reader.u32())))


def _capability(
    tpm: Tpm, kind: int, first: int, count: int, item: Callable[[Reader], Answer]
) -> list[Answer]:
    """Return a list of a TPMS_CAPABILITY_DATA, which stands after a byte that says whether there is more."""

    def parse(reader: Reader) -> list[Answer]:
        reader.u8()
        reader.expect(kind, reader.u32(), "the capability")
        found = reader.u32()
        if found > count:
            raise reader.error(f"{found} items")
        return [item(reader) for _ in range(found)]

    return tpm.ask(CommandCode.GET_CAPABILITY, parse, (), u32(kind) + u32(first) + u32(count))


def _one_sized(reader: Reader) -> bytes:
    return reader.sized(MESSAGE_BYTES)


def _three_sized(reader: Reader) -> tuple[bytes, bytes, bytes]:
    return _one_sized(reader), _one_sized(reader), _one_sized(reader)


def _created(reader: Reader) -> tuple[bytes, bytes]:
    """Return the public area and the Name that CreatePrimary answers with."""
    public, _data, _digest = _three_sized(reader)
    _ticket(reader)
    return public, _one_sized(reader)


def _ticket(reader: Reader) -> bytes:
    """Return a ticket as it came: tag, hierarchy, digest."""
    return reader.take(6) + sized(_one_sized(reader))
