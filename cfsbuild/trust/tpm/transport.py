"""The way to a TPM: one command goes out, one response comes back, and nothing waits for ever.

A name says which TPM: the path of a device (`/dev/tpmrm0`, the kernel's resource manager), or a software TPM:
`swtpm:HOST:PORT` or `swtpm:/PATH/TO/SOCKET`.
"""

from __future__ import annotations

import errno
import os
import re
import select
import socket
import stat
import time
from pathlib import Path
from typing import Protocol

from cfsbuild.errors import TpmError, UsageError

DEFAULT_NAME = "/dev/tpmrm0"

MESSAGE_BYTES = 4096
"""Longest command and longest response; what TPMs of PCs have as their buffer."""

HEADER_BYTES = 10
SECONDS = 120.0
"""How long a response may take: an RSA primary key takes some TPMs a minute."""

_SWTPM = "swtpm:"
_QUEUE_SECONDS = 0.01


class Channel(Protocol):
    """Bytes to a TPM and back."""

    def send(self, data: memoryview, deadline: float) -> int:
        """Send what can be sent at once, and say how much. Raises `OSError`, `TimeoutError`."""

    def receive(self, deadline: float) -> bytes:
        """Return what there is, empty at the end. Raises `OSError`, `TimeoutError`."""

    def close(self) -> None:
        """Let go of it."""


class Transport:
    """A TPM that takes one command at a time. Not for several threads."""

    def __init__(self, name: str, channel: Channel, *, seconds: float = SECONDS) -> None:
        self.name = name
        self._channel = channel
        self._seconds = seconds
        self._unsent = memoryview(b"")
        self._received = b""
        self._waiting = False
        self._broken: TpmError | None = None
        self._closed = False

    @property
    def last_response(self) -> bytes:
        """The response to the last command; what came of it, if that is not all."""
        return self._received

    def exchange(self, command: bytes) -> bytes:
        """Return the response to a command: its bytes, whose header has the right size, at most 4096.

        Raises `TpmError`, reason `tpm-timeout`, `tpm-response` (what came is no response) or `tpm-io`.
        """
        self.settle()
        if not HEADER_BYTES <= len(command) <= MESSAGE_BYTES:
            raise TpmError(f"a command of {len(command)} bytes is too long for a TPM", reason="tpm-command")
        self._unsent, self._received, self._waiting = memoryview(command), b"", True
        response = self.settle()
        if response is None:  # never: a command is under way
            raise self._no_response("nothing")
        return response

    def hurry(self, seconds: float) -> None:
        """Wait no longer than this for each response from now on."""
        self._seconds = min(self._seconds, seconds)

    def settle(self) -> bytes | None:
        """Return the response that is still to come, after an exchange that was interrupted; None if none is.

        A command that was sent cannot be taken back: what it made in the TPM stands in its response. Raises
        as `exchange` does, and the same again once it did: what comes then may answer an earlier command.
        """
        if self._broken is not None:
            raise self._broken
        if not self._waiting:
            return None
        try:
            self._finish(time.monotonic() + self._seconds)
        except TpmError as error:
            self._broken = error
            raise
        self._waiting = False
        return self._received

    def _finish(self, deadline: float) -> None:
        """Send what is not sent, and receive the whole response."""
        try:
            while self._unsent:
                self._unsent = self._unsent[self._channel.send(self._unsent, deadline) :]
            while (size := self._size()) is None or len(self._received) < size:
                part = self._channel.receive(deadline)
                if not part:
                    raise self._no_response("it closed the connection")
                self._received += part
        except TimeoutError as error:
            raise TpmError(
                f"the TPM {self.name} does not answer",
                details=f"waited {self._seconds:g} s",
                reason="tpm-timeout",
            ) from error
        except OSError as error:
            raise TpmError(
                f"the TPM {self.name} cannot be used: {error.strerror}", reason="tpm-io"
            ) from error
        if len(self._received) != size:
            raise self._no_response(f"{len(self._received)} bytes instead of {size}")

    def _size(self) -> int | None:
        """Return how many bytes the response says that it has, once that is known."""
        if len(self._received) < HEADER_BYTES:
            return None
        size = int.from_bytes(self._received[2:6], "big")
        if not HEADER_BYTES <= size <= MESSAGE_BYTES:
            raise self._no_response(f"a response of {size} bytes")
        return size

    def _no_response(self, what: str) -> TpmError:
        return TpmError(
            f"{self.name} does not answer as a TPM does",
            details=what,
            resolution="see whether something stands between this machine and its TPM",
            reason="tpm-response",
        )

    def close(self) -> None:
        """Let go of the TPM. The kernel's resource manager then forgets what was loaded."""
        if not self._closed:
            self._closed = True
            self._channel.close()


class _Device:
    """A TPM character device; opened non-blocking, so that writing does not wait for the response."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def send(self, data: memoryview, deadline: float) -> int:
        _wait(self._fd, select.POLLOUT, deadline)
        return os.write(self._fd, data)

    def receive(self, deadline: float) -> bytes:
        _wait(self._fd, select.POLLIN, deadline)
        # Kernels before 5.1 drop what one read does not take.
        return os.read(self._fd, MESSAGE_BYTES)

    def close(self) -> None:
        os.close(self._fd)


class _Socket:
    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def send(self, data: memoryview, deadline: float) -> int:
        self._connection.settimeout(_remaining(deadline))
        return self._connection.send(data, socket.MSG_NOSIGNAL)

    def receive(self, deadline: float) -> bytes:
        self._connection.settimeout(_remaining(deadline))
        return self._connection.recv(MESSAGE_BYTES)

    def close(self) -> None:
        self._connection.close()


def _remaining(deadline: float) -> float:
    remaining = deadline - time.monotonic()
    if remaining <= 0:
        raise TimeoutError
    return remaining


def _wait(fd: int, event: int, deadline: float) -> None:
    poll = select.poll()
    poll.register(fd, event)
    if not poll.poll(1000 * _remaining(deadline)):
        raise TimeoutError


def open_transport(name: str = DEFAULT_NAME, *, seconds: float = SECONDS) -> Transport:
    """Open the TPM of that name.

    Raises `TpmError` (reason `tpm-missing`, `tpm-busy`, `tpm-permission` or `tpm-io`), `UsageError` for what
    is no name.
    """
    if not name or "\0" in name:
        raise _no_name(name)
    try:
        channel = _open_socket(name, seconds) if name.startswith(_SWTPM) else _open_device(name)
    except TimeoutError as error:
        raise TpmError(
            f"the TPM {name} does not answer",
            details="another program may be using it",
            reason="tpm-timeout",
        ) from error
    except OSError as error:
        raise _cannot_open(name, error) from error
    return Transport(name, channel, seconds=seconds)


def _open_device(name: str) -> Channel:
    fd = os.open(name, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    if not stat.S_ISCHR(os.fstat(fd).st_mode):
        os.close(fd)
        raise UsageError(f"{name} is not a TPM", details="it is no character device", reason="tpm-name")
    return _Device(fd)


def _open_socket(name: str, seconds: float) -> Channel:
    place = name.removeprefix(_SWTPM)
    if place.startswith("/"):
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            _connect(connection, place, time.monotonic() + seconds)
        except BaseException:
            connection.close()
            raise
        return _Socket(connection)
    matched = re.fullmatch(r"\[?([0-9A-Za-z.:_-]+?)\]?:([0-9]{1,5})", place)
    if matched is None or not 0 < int(matched[2]) < 1 << 16:
        raise _no_name(name)
    try:
        return _Socket(socket.create_connection((matched[1], int(matched[2])), timeout=seconds))
    except UnicodeError:  # what IDNA cannot encode: an empty label, or one too long
        raise _no_name(name) from None


def _connect(connection: socket.socket, path: str, deadline: float) -> None:
    """Connect as soon as there is room in the queue: swtpm serves one after the other."""
    while True:
        connection.settimeout(_remaining(deadline))
        try:
            connection.connect(path)
        except BlockingIOError:
            time.sleep(_QUEUE_SECONDS)
        else:
            return


def _no_name(name: str) -> UsageError:
    return UsageError(
        f"{name!r} does not name a TPM",
        resolution=f"use {DEFAULT_NAME}, swtpm:HOST:PORT or swtpm:/PATH/TO/SOCKET",
        reason="tpm-name",
    )


def _cannot_open(name: str, error: OSError) -> TpmError:
    text = error.strerror or str(error)
    if error.errno in {errno.EACCES, errno.EPERM}:
        return TpmError(
            f"the TPM {name} cannot be opened: {text}",
            resolution="run as root, or as a member of the group that owns it (often tss)",
            reason="tpm-permission",
        )
    if error.errno == errno.EBUSY:
        return TpmError(
            f"another program uses the TPM {name}",
            resolution=f"use {DEFAULT_NAME}, which several programs can use at once",
            reason="tpm-busy",
        )
    hint = "a software TPM must run there: swtpm socket --tpm2 --server … --flags not-need-init,startup-clear"
    if not name.startswith(_SWTPM):
        found = Path("/sys/class/tpm/tpm0").exists()
        hint = (
            "the kernel knows a TPM, but no TPM 2.0 with a resource manager"
            if found
            else "switch the TPM on in the firmware's settings, or name another: --tpm swtpm:HOST:PORT"
        )
    return TpmError(f"there is no TPM {name}: {text}", resolution=hint, reason="tpm-missing")
