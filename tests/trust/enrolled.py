"""A machine that is enrolled, and what is sealed to it; what stands between a program and its TPM."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from swtpm import Machine
from tpm_tools import KEY_TYPES, STORAGE

from cfsbuild.errors import CfsError
from cfsbuild.trust import counter, enrolment, sealed, unsealing
from cfsbuild.trust.sealed import Recipient
from cfsbuild.trust.tpm.command_codes import CommandCode
from cfsbuild.trust.tpm.connection import Tpm
from cfsbuild.trust.tpm.transport import Transport, open_transport
from cfsbuild.trust.tpm.wire import sized, u32
from cfsbuild.trust.unseal_policy import Branch, CounterLimit, UnsealPolicy, policy_digest

ZERO = bytes(32).hex()
PAYLOAD = b"what was sealed"
SRK = 0x81000001


class Between:
    """Sees each command before the TPM does, and may change each response."""

    def __init__(
        self,
        inner: Transport,
        *,
        change: Callable[[bytes, bytes], bytes] = lambda _command, response: response,
        before: Callable[[bytes], None] = lambda _command: None,
    ) -> None:
        self.inner = inner
        self.change = change
        self.before = before
        self.commands: list[bytes] = []
        self.responses: list[bytes] = []
        self._command = b""

    def send(self, data: memoryview, _deadline: float) -> int:
        self._command = bytes(data)
        return len(data)

    def receive(self, _deadline: float) -> bytes:
        command, self._command = self._command, b""
        if not command:
            return b""  # it waits for more than there is
        self.before(command)
        self.commands.append(command)
        self.responses.append(self.inner.exchange(command))
        return self.change(command, self.responses[-1])

    def close(self) -> None:
        self.inner.close()


def code_of(command: bytes) -> int:
    return int.from_bytes(command[6:10], "big")


def swallowed(command: bytes, response: bytes) -> bytes:
    """Answer what extends a register in the TPM's place, as if it had done it."""
    if code_of(command) != CommandCode.PCR_EXTEND:
        return response
    body = u32(0) + sized(b"") + b"\x01" + sized(b"")
    return command[:2] + u32(10 + len(body)) + u32(0) + body


def value_of(machine: Machine, work: Path) -> int:
    """Return the value of the counter, by the tools."""
    index = hex(counter.DEFAULT_INDEX)
    machine.tool("nvread", index, "-C", index, "-o", work / "counter")
    return int.from_bytes((work / "counter").read_bytes(), "big")


class Enrolled:
    """A machine with a storage root key and a counter."""

    def __init__(self, machine: Machine, kind: str = "ecc") -> None:
        self.machine = machine
        if kind != "ecc":
            work = machine.state.parent
            machine.tool(
                *("createprimary", "-C", "o", "-g", "sha256", "-G", KEY_TYPES[kind]),
                *("-a", f"{STORAGE}|noda", "-c", work / "srk.ctx"),
            )
            machine.tool("evictcontrol", "-C", "o", "-c", work / "srk.ctx", hex(SRK))
            machine.tool("flushcontext", "-t")
        with self.tpm() as tpm:
            self.enrolment = enrolment.enroll(tpm, create_srk=kind == "ecc", counter=counter.DEFAULT_INDEX)
        self.srk = enrolment.key_public(self.enrolment.srk)

    def tpm(self) -> Tpm:
        return Tpm(open_transport(self.machine.name))

    @contextlib.contextmanager
    def through(self, **what: object) -> Iterator[tuple[Tpm, Between]]:
        """Give the TPM with something between."""
        between = Between(open_transport(self.machine.name), **what)
        with Tpm(Transport("between", between)) as tpm:
            yield tpm, between

    def limit(self, generation: int) -> CounterLimit:
        made = self.enrolment.counter
        return CounterLimit(made.index, made.name, made.base + generation)

    def policy(self, *branches: Branch, **more: object) -> UnsealPolicy:
        default = Branch({"7": ZERO, "11": ZERO}, self.limit(1))
        return UnsealPolicy(name="edge", branches=list(branches) or [default], **more)

    def seal(self, document: UnsealPolicy, pin: bytes = b"") -> bytes:
        return sealed.seal(PAYLOAD, [Recipient(self.srk, policy_digest(document), pin)])

    def unseal(self, data: bytes, document: UnsealPolicy, **more: object) -> bytes:
        with self.tpm() as tpm:
            return unsealing.unseal(tpm, data, document, **more)

    def explain(self, data: bytes, document: UnsealPolicy) -> unsealing.Explanation:
        with self.tpm() as tpm:
            return unsealing.explain(tpm, data, document)

    def refused(self, data: bytes, document: UnsealPolicy, **more: object) -> str:
        """Return the reason for which it is not released; explaining gives the same, unless it is the PIN."""
        with pytest.raises(CfsError) as caught:
            self.unseal(data, document, **more)
        if caught.value.reason not in {
            "pin",
            "pin-missing",
            "srk-name",
            "sealed-malformed",
            "sealed-damaged",
        }:
            explained = self.explain(data, document)
            assert not explained.unseals
            assert explained.reason == caught.value.reason
        return caught.value.reason
