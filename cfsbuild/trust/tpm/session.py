"""Authorization sessions: who asks proves it, who answers proves it, and nobody between reads along.

A session's key follows from a salt that only the TPM can open (it is encrypted to one of its keys), so the
HMAC of a response says that the TPM made it. The first parameter of a command or a response is encrypted by
AES-128-CFB where that is asked for. Source: part 1, 17 to 21; part 3, 5 and 6.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from typing import NamedTuple

from cfsbuild.errors import TpmError
from cfsbuild.trust.tpm import cfb
from cfsbuild.trust.tpm.kdf import kdfa
from cfsbuild.trust.tpm.wire import Reader, sized, u8, u32

NONCE_BYTES = 32
DIGEST_BITS = 256

CONTINUE = 0x01
DECRYPT = 0x20
ENCRYPT = 0x40
AUDIT = 0x80
"""TPMA_SESSION (part 2, 8.4): it goes on; the command's, the response's first parameter is encrypted; it
authorizes nothing, and its HMAC tells who answers."""
_AUDIT_EXCLUSIVE = 0x02
"""Set in a response when the TPM did nothing else since the session began to audit."""

_PASSWORD = 0x40000009
_KEY_BITS = 128
_BLOCK_BITS = 128
_NONCE_BYTES_MAX = 64


class Entity(NamedTuple):
    """What a command is about: a handle and its Name, and the authorization value, which may be empty."""

    handle: int
    name: bytes
    auth: bytes = b""


def permanent(handle: int) -> Entity:
    """Return the entity of a hierarchy, a PCR or a session: the handle is its Name."""
    return Entity(handle, u32(handle))


class AuthResponse(NamedTuple):
    """What a response says for one session."""

    nonce: bytes
    attributes: int
    hmac: bytes


class Password:
    """Authorization by the empty authorization value, in the clear."""

    def command_area(self) -> bytes:
        """Return what stands in a command's authorization area."""
        return u32(_PASSWORD) + sized(b"") + u8(CONTINUE) + sized(b"")

    def check(self, answer: AuthResponse) -> None:
        """Raise `TpmError` (reason `tpm-response`) if a response is not one to a password."""
        if answer.nonce or answer.hmac:
            raise _tampered("an authorization where none should be")


class Session:
    """An HMAC or policy session that is open in the TPM, and the nonces of both sides."""

    def __init__(self, handle: int, key: bytes, nonce_tpm: bytes, *, policy: bool) -> None:
        self.entity = permanent(handle)
        self.policy = policy
        self.policy_wants_auth_value = False
        self._key = key
        self._nonce_tpm = nonce_tpm
        self._nonce_caller = b""

    def begin(self) -> None:
        """Take a new nonce, before a command."""
        self._nonce_caller = os.urandom(NONCE_BYTES)

    def command_area(self, cp_hash: bytes, entity: Entity | None, attributes: int) -> bytes:
        """Return what stands in a command's authorization area; `cp_hash` is over the command."""
        mac = self._hmac(cp_hash, self._nonce_caller, self._nonce_tpm, entity, attributes)
        return self.entity.name + sized(self._nonce_caller) + u8(attributes) + sized(mac)

    def check(self, answer: AuthResponse, rp_hash: bytes, entity: Entity | None, attributes: int) -> None:
        """Take the TPM's new nonce; raise `TpmError` (reason `tpm-response`) if it did not answer this."""
        said = answer.attributes & ~(_AUDIT_EXCLUSIVE if attributes & AUDIT else 0)
        if not NONCE_BYTES // 2 <= len(answer.nonce) <= _NONCE_BYTES_MAX or said != attributes:
            raise _tampered("another session")
        expected = self._hmac(rp_hash, answer.nonce, self._nonce_caller, entity, answer.attributes)
        if not hmac.compare_digest(expected, answer.hmac):
            raise _tampered("a wrong HMAC")
        self._nonce_tpm = answer.nonce

    def encrypt_first(self, parameters: bytes, entity: Entity | None) -> bytes:
        """Return a command's parameters with the first one, a TPM2B, encrypted."""
        key, vector = self._cipher(self._nonce_caller, self._nonce_tpm, entity)
        first = Reader(parameters, "a command's first parameter").sized(len(parameters))
        return sized(cfb.encrypt(key, vector, first)) + parameters[2 + len(first) :]

    def decrypt_first(self, parameters: bytes, entity: Entity | None) -> bytes:
        """Return a response's parameters, whose HMAC was checked, with the first one decrypted."""
        key, vector = self._cipher(self._nonce_tpm, self._nonce_caller, entity)
        first = Reader(parameters, "the TPM's response").sized(len(parameters))
        return sized(cfb.decrypt(key, vector, first)) + parameters[2 + len(first) :]

    def _hmac(
        self, digest: bytes, newer: bytes, older: bytes, entity: Entity | None, attributes: int
    ) -> bytes:
        uses_auth = entity is not None and (not self.policy or self.policy_wants_auth_value)
        key = self._key + (entity.auth if entity is not None and uses_auth else b"")
        return hmac.digest(key, digest + newer + older + u8(attributes), "sha256")

    def _cipher(self, newer: bytes, older: bytes, entity: Entity | None) -> tuple[bytes, bytes]:
        key = self._key + (entity.auth if entity is not None else b"")
        bits = kdfa(key, b"CFB", newer, older, _KEY_BITS + _BLOCK_BITS)
        return bits[: _KEY_BITS // 8], bits[_KEY_BITS // 8 :]


class Authorization(NamedTuple):
    """A session in a command: for which entity (None: only for encryption), with which `TPMA_SESSION`."""

    session: Session | Password
    entity: Entity | None = None
    attributes: int = CONTINUE


PASSWORD = Authorization(Password())


def session_key(salt: bytes, nonce_tpm: bytes, nonce_caller: bytes) -> bytes:
    """Return the key of a session that was started with these, and bound to nothing."""
    return kdfa(salt, b"ATH", nonce_tpm, nonce_caller, DIGEST_BITS)


def command_hash(code: int, names: bytes, parameters: bytes) -> bytes:
    """Return cpHash: what an HMAC of a command is over."""
    return hashlib.sha256(u32(code) + names + parameters).digest()


def response_hash(code: int, parameters: bytes) -> bytes:
    """Return rpHash of a command that succeeded."""
    return hashlib.sha256(u32(0) + u32(code) + parameters).digest()


def _tampered(what: str) -> TpmError:
    return TpmError(
        "what came is not the TPM's own response",
        details=f"{what}: it was changed on the way, or something else answers in the TPM's place",
        resolution="do not trust what stands between this machine and its TPM",
        reason="tpm-response",
    )
