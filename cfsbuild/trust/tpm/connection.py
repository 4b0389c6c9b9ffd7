"""A TPM that commands are given to: headers, authorizations, resending, and forgetting what was loaded.

Source: part 1, 18 (command and response structure), 19 (authorizations).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import NamedTuple, TypeVar

from cfsbuild.errors import InputError, TpmError
from cfsbuild.trust.tpm import response_codes
from cfsbuild.trust.tpm.command_codes import GIVE_HANDLES, CommandCode
from cfsbuild.trust.tpm.response_codes import ResponseError
from cfsbuild.trust.tpm.session import (
    CONTINUE,
    DECRYPT,
    ENCRYPT,
    Authorization,
    AuthResponse,
    Entity,
    Password,
    Session,
    command_hash,
    response_hash,
)
from cfsbuild.trust.tpm.transport import HEADER_BYTES, MESSAGE_BYTES, Transport
from cfsbuild.trust.tpm.wire import Reader, u16, u32

Answer = TypeVar("Answer")

_NO_SESSIONS = 0x8001
_SESSIONS = 0x8002
_RESENDS = 12
_FIRST_DELAY = 0.01
_LONGEST_DELAY = 2.0
_HMAC_BYTES = 64
_FAREWELL_SECONDS = 5.0
"""How long whoever interrupts waits for a TPM that does not answer; what it holds is then left to it."""


class Response(NamedTuple):
    """What a command gave: the handle of what it loaded (0 if it loads nothing), and its parameters."""

    handle: int
    parameters: bytes


class Tpm:
    """An open TPM, as a context manager: what was loaded is flushed when the block ends, however it ends.

    All methods raise `TpmError`: `ResponseError` when the TPM refuses, else as `Transport.exchange` does.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._loaded: list[int] = []
        self._loading = False

    def __enter__(self) -> Tpm:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._transport.hurry(_FAREWELL_SECONDS)
        try:
            self.close()
        except TpmError:
            # A TPM that fails while another error is under way is most likely why.
            if error is None:
                raise

    def close(self) -> None:
        """Flush what is loaded, and let go of the TPM."""
        try:
            self._note_loaded()
            while self._loaded:
                self.flush(self._loaded[-1])
        finally:
            self._transport.close()

    def flush(self, handle: int) -> None:
        """Make the TPM forget an object or a session."""
        self.forget(handle)
        self.call(CommandCode.FLUSH_CONTEXT, parameters=u32(handle))

    def forget(self, handle: int) -> None:
        """Know that the TPM has flushed this by itself."""
        if handle in self._loaded:
            self._loaded.remove(handle)

    @contextlib.contextmanager
    def holding(self, handle: int) -> Iterator[int]:
        """Flush a handle when the block ends."""
        try:
            yield handle
        except BaseException:
            # What went wrong is what to tell, not that cleaning up fails after it.
            with contextlib.suppress(TpmError):
                self._flush_loaded(handle)
            raise
        self._flush_loaded(handle)

    def _flush_loaded(self, handle: int) -> None:
        if handle in self._loaded:
            self.flush(handle)

    def ask(
        self,
        code: CommandCode,
        parse: Callable[[Reader], Answer],
        entities: Sequence[Entity] = (),
        parameters: bytes = b"",
        authorizations: Sequence[Authorization] = (),
    ) -> Answer:
        """Give a command that loads nothing, and return what `parse` makes of its response's parameters.

        `parse` takes all of them, and raises `InputError` if they are not what they should be: that becomes a
        `TpmError` (reason `tpm-response`).
        """
        return read_all(self.call(code, entities, parameters, authorizations).parameters, parse)

    def call(
        self,
        code: CommandCode,
        entities: Sequence[Entity] = (),
        parameters: bytes = b"",
        authorizations: Sequence[Authorization] = (),
    ) -> Response:
        """Give a command; what it loads is flushed at the end at the latest.

        The first authorizations are those of the first entities, in their order; at most one of them is by a
        `Session`.
        """
        names = b"".join(entity.name for entity in entities)
        for each in authorizations:
            if isinstance(each.session, Session):
                each.session.begin()
                if each.attributes & DECRYPT:
                    parameters = each.session.encrypt_first(parameters, each.entity)
        cp_hash = command_hash(code, names, parameters)
        area = b"".join(_command_area(each, cp_hash) for each in authorizations)
        body = b"".join(u32(entity.handle) for entity in entities)
        body += (u32(len(area)) + area if authorizations else b"") + parameters
        tag = _SESSIONS if authorizations else _NO_SESSIONS
        data = self._exchange(code, u16(tag) + u32(HEADER_BYTES + len(body)) + u32(code) + body)
        for each in authorizations:
            if isinstance(each.session, Session) and not each.attributes & CONTINUE:
                self.forget(each.session.entity.handle)
        return read_all(data, lambda reader: _parse(reader, code, tag, authorizations))

    def _exchange(self, code: CommandCode, command: bytes) -> bytes:
        """Return the response to a command that succeeded; resend it when the TPM wants that."""
        delay = _FIRST_DELAY
        for _ in range(_RESENDS):
            self._note_loaded()
            self._loading = code in GIVE_HANDLES
            response = self._transport.exchange(command)
            self._note_loaded()
            status = int.from_bytes(response[6:HEADER_BYTES], "big")
            if status == response_codes.SUCCESS:
                return response
            if status not in response_codes.RESEND:
                break
            time.sleep(delay)
            delay = min(2 * delay, _LONGEST_DELAY)
        raise ResponseError(code.text, status)

    def _note_loaded(self) -> None:
        """Remember what the last command loaded, also if waiting for its response was interrupted."""
        if not self._loading:
            return
        self._transport.settle()
        response = self._transport.last_response
        self._loading = False
        if len(response) >= HEADER_BYTES + 4 and not any(response[6:HEADER_BYTES]):
            self._loaded.append(int.from_bytes(response[HEADER_BYTES : HEADER_BYTES + 4], "big"))


def read_all(data: bytes, parse: Callable[[Reader], Answer]) -> Answer:
    """Return what `parse` makes of bytes that a TPM sent, all of them. Raises `TpmError` (`tpm-response`)."""
    reader = Reader(data, "the TPM's response")
    try:
        answer = parse(reader)
        reader.end()
    except InputError as error:
        raise TpmError(error.brief, details=error.details, reason="tpm-response") from error
    return answer


def nothing(_reader: Reader) -> None:
    """Parse the parameters of a response that has none."""


def _command_area(each: Authorization, cp_hash: bytes) -> bytes:
    if isinstance(each.session, Password):
        return each.session.command_area()
    return each.session.command_area(cp_hash, each.entity, each.attributes)


def _parse(reader: Reader, code: CommandCode, tag: int, authorizations: Sequence[Authorization]) -> Response:
    """Take a successful response apart, check its authorizations, decrypt it."""
    reader.expect(tag, reader.u16(), "the tag")
    reader.take(HEADER_BYTES - 2)
    handle = reader.u32() if code in GIVE_HANDLES else 0
    if not authorizations:
        return Response(handle, reader.take(reader.left()))
    size = reader.u32()
    parameters = reader.take(min(size, MESSAGE_BYTES))
    hash_of_response = response_hash(code, parameters)
    for each in authorizations:
        answer = AuthResponse(reader.sized(_HMAC_BYTES), reader.u8(), reader.sized(_HMAC_BYTES))
        if isinstance(each.session, Password):
            each.session.check(answer)
            continue
        each.session.check(answer, hash_of_response, each.entity, each.attributes)
        if each.attributes & ENCRYPT:
            parameters = each.session.decrypt_first(parameters, each.entity)
    return Response(handle, parameters)
