"""Sessions: the TPM takes what they authorize and encrypt, and nothing that was changed on the way is believed."""

import contextlib
import os
import signal
import socket
import threading
import time
from unittest import mock

import pytest
import swtpm
from enrolled import ZERO, Between, Enrolled, code_of
from hypothesis import given, settings
from hypothesis import strategies as st

from cfsbuild.errors import CfsError, TpmError
from cfsbuild.trust import counter, enrolment, unsealing
from cfsbuild.trust.storage_key import salted_session, storage_key
from cfsbuild.trust.tpm import commands, connection, nv, pcr, response_codes
from cfsbuild.trust.tpm.command_codes import CommandCode
from cfsbuild.trust.tpm.connection import Tpm
from cfsbuild.trust.tpm.response_codes import ResponseError
from cfsbuild.trust.tpm.structures import SRK_ECC, SRK_RSA, decode_public
from cfsbuild.trust.tpm.transport import Transport, open_transport
from cfsbuild.trust.unseal_policy import Branch

SEEN = b"what nobody between may read"


@pytest.fixture
def tpm(machine):
    with Tpm(open_transport(machine.name)) as opened:
        yield opened


@pytest.mark.parametrize("template", [SRK_ECC, SRK_RSA], ids=["ecc", "rsa"])
def test_a_session_goes_on_over_many_commands(tpm, template):
    key = commands.create_primary(tpm, template)
    session = commands.start_session(tpm, key)
    drawn = {commands.get_random(tpm, 16, session) for _ in range(5)}
    assert {len(data) for data in drawn} == {16}
    assert len(drawn) == 5


def test_a_parameter_that_goes_encrypted_arrives(tpm):
    key = commands.create_primary(tpm, SRK_ECC)
    session = commands.start_session(tpm, key)
    # With another template in what the TPM decrypts, the key were another one.
    assert commands.create_primary(tpm, SRK_ECC, session).public == key.public


def test_what_is_unsealed_is_not_on_the_way_in_the_clear(enrolled):
    document = enrolled.policy()
    data = enrolled.seal(document)
    with enrolled.through() as (tpm, between):
        keys = []
        real = commands.unseal

        def spy(*arguments):
            keys.append(real(*arguments))
            return keys[-1]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(commands, "unseal", spy)
            unsealing.unseal(tpm, data, document)
    (key,) = keys
    assert len(key) == 32
    assert not any(key in message for message in between.commands + between.responses)


def test_the_pin_is_not_on_the_way_at_all(enrolled):
    document = enrolled.policy(auth_value=True)
    data = enrolled.seal(document, SEEN)
    with enrolled.through() as (tpm, between):
        unsealing.unseal(tpm, data, document, pin=lambda: SEEN)
    assert not any(SEEN in message for message in between.commands)


def flipping(code, position, bit):
    def change(command, response):
        if code_of(command) != code or position >= len(response):
            return response
        changed = bytearray(response)
        changed[position] ^= 1 << bit
        return bytes(changed)

    return change


def test_no_byte_of_a_response_to_unseal_can_be_changed(enrolled):
    document = enrolled.policy()
    data = enrolled.seal(document)
    with enrolled.through() as (tpm, between):
        unsealing.unseal(tpm, data, document)
    exchanged = zip(between.commands, between.responses, strict=True)
    length = next(len(response) for command, response in exchanged if code_of(command) == CommandCode.UNSEAL)
    reasons = []
    for position in range(length):
        with enrolled.through(change=flipping(CommandCode.UNSEAL, position, position % 8)) as (tpm, _):
            with pytest.raises(CfsError) as caught:
                unsealing.unseal(tpm, data, document)
            reasons.append(caught.value.reason)
        if 2 <= position < 6:  # what answers with other sizes is asked no more
            enrolled.machine.tool("flushcontext", "-l")
            enrolled.machine.tool("flushcontext", "-t")
    assert length > 100
    # The status of the header says by itself that the TPM refused; all else is found to be changed.
    assert set(reasons[:6] + reasons[10:]) == {"tpm-response"}


def test_no_byte_of_a_counter_can_be_changed(enrolled):
    for position in range(80):
        with enrolled.through(change=flipping(CommandCode.NV_READ, position, 0)) as (tpm, _):
            with pytest.raises(CfsError) as caught:
                counter.read_counter(tpm)
            assert caught.value.reason == ("tpm-refused" if 6 <= position < 10 else "tpm-response")
        if 2 <= position < 6:
            enrolled.machine.tool("flushcontext", "-l")  # what answers with other sizes is asked no more


def test_an_older_response_is_not_believed_again(enrolled):
    recorded = []

    def replay(command, response):
        if code_of(command) == CommandCode.NV_READ:
            recorded.append(response)
            return recorded[0]
        return response

    with enrolled.through(change=replay) as (tpm, _):
        found = nv.read_nv_public(tpm, counter.DEFAULT_INDEX)
        with salted_session(tpm) as session:
            nv.read(tpm, found, session)
            with pytest.raises(TpmError, match="not the TPM's own") as caught:
                nv.read(tpm, found, session)
    assert caught.value.reason == "tpm-response"


def test_a_session_that_is_salted_to_another_key_proves_nothing(enrolled):
    with enrolled.tpm() as tpm:
        other = commands.create_primary(tpm, enrolment.LEGACY_PRIMARY)
        mine = commands.read_public(tpm, 0x81000001)
        session = commands.start_session(tpm, mine._replace(public=other.public))
        with pytest.raises(ResponseError) as caught:
            commands.get_random(tpm, 16, session)
    assert caught.value.is_of(response_codes.AUTH_FAIL, response_codes.BAD_AUTH)


def test_a_public_area_that_is_not_that_of_its_name_is_refused(enrolled):
    for position in range(12, 60):
        with enrolled.through(change=flipping(CommandCode.READ_PUBLIC, position, 1)) as (tpm, _):
            with pytest.raises(TpmError) as caught:
                commands.read_public(tpm, 0x81000001)
            assert caught.value.reason in {"tpm-response", "tpm-key-kind"}


def test_a_retry_is_bounded(monkeypatch):
    slept = []
    monkeypatch.setattr(connection.time, "sleep", slept.append)
    retry = bytes.fromhex("8001 0000000a 00000922")
    between = Between(_Nothing(), change=lambda _c, _r: retry)
    with pytest.raises(ResponseError) as caught:
        commands.get_random(Tpm(Transport("busy", between)), 8)
    assert caught.value.is_of(response_codes.RETRY)
    assert len(between.commands) == len(slept) == 12
    assert 5 < sum(slept) < 20


class _Nothing:
    def exchange(self, _command):
        return b""

    def close(self):
        pass


def test_a_tool_that_flushes_finds_nothing_to_flush(machine):
    with Tpm(open_transport(machine.name)) as tpm:
        key = commands.create_primary(tpm, SRK_ECC)
        commands.start_session(tpm, key)
        commands.start_session(tpm, key, policy=True)
    assert machine.handles() == []


def test_an_interrupt_at_any_command_leaves_nothing_loaded(enrolled):
    document = enrolled.policy(auth_value=True)
    data = enrolled.seal(document, b"1")
    for at in range(1, 40):
        between = Interrupted(open_transport(enrolled.machine.name), at)
        try:
            with Tpm(Transport("between", between)) as tpm:
                unsealing.unseal(tpm, data, document, pin=lambda: b"1")
        except KeyboardInterrupt:
            assert enrolled.machine.handles() == [], at
        else:
            break
    assert at > 10


def test_who_interrupts_a_tpm_that_does_not_answer_waits_a_little_only(monkeypatch):
    monkeypatch.setattr(connection, "_FAREWELL_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        name = f"swtpm:127.0.0.1:{listener.getsockname()[1]}"
        started = time.monotonic()
        timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt), Tpm(open_transport(name)) as tpm:
            commands.create_primary(tpm, SRK_ECC)
        timer.join()
    assert time.monotonic() - started < 5


def test_the_authorization_of_an_object_of_the_tools_is_proved_not_sent(enrolled, tmp_path):
    tool = enrolled.machine.tool
    files = tmp_path / "sealed.pub", tmp_path / "sealed.priv"
    (tmp_path / "secret").write_bytes(SEEN)
    tool(
        "create",
        "-C",
        "0x81000001",
        "-i",
        tmp_path / "secret",
        "-p",
        "its pin",
        "-u",
        files[0],
        "-r",
        files[1],
    )
    tool("flushcontext", "-t")
    public, private = (path.read_bytes()[2:] for path in files)
    with enrolled.through() as (tpm, between):
        key = storage_key(tpm)
        item = commands.load(tpm, key, private, decode_public(public))
        for auth, fits in ((b"its pin", True), (b"another", False)):
            session = commands.start_session(tpm, key)
            entity = item.entity._replace(auth=auth)
            if fits:
                assert commands.unseal(tpm, entity, session) == SEEN
            else:
                with pytest.raises(ResponseError) as caught:
                    commands.unseal(tpm, entity, session)
                assert caught.value.is_of(response_codes.AUTH_FAIL)
    assert not any(b"its pin" in command for command in between.commands)


class Interrupted(Between):
    """Interrupts the wait for one response, which comes when it is waited for again."""

    def __init__(self, inner, at):
        super().__init__(inner)
        self.at = at
        self.late = b""

    def receive(self, deadline):
        if self.late:
            late, self.late = self.late, b""
            return late
        response = super().receive(deadline)
        if len(self.commands) == self.at:
            self.late = response
            raise KeyboardInterrupt
        return response


def test_each_refused_command_leaves_nothing_loaded(enrolled):
    refusal = bytes.fromhex("8001 0000000a 0000009d")
    document = enrolled.policy()
    data = enrolled.seal(document)
    refused = 0
    for at in range(1, 40):
        between = Between(open_transport(enrolled.machine.name))

        def refuse(_command, response, between=between, at=at):
            return refusal if len(between.commands) == at and code_of(_command) not in MAKE else response

        between.change = refuse
        try:
            with Tpm(Transport("between", between)) as tpm:
                unsealing.unseal(tpm, data, document)
        except CfsError:
            refused += 1
        assert enrolled.machine.handles() == [], at
        if len(between.commands) < at:
            break
    assert refused == 6


MAKE = {CommandCode.LOAD, CommandCode.START_AUTH_SESSION, CommandCode.FLUSH_CONTEXT}
"""What cannot be refused by somebody else without a trace: the TPM has done it."""


class Scripted:
    """A TPM that gives recorded responses, then nothing."""

    def __init__(self, responses):
        self.responses = list(responses)

    def send(self, data, _deadline):
        return len(data)

    def receive(self, _deadline):
        return self.responses.pop(0) if self.responses else b""

    def close(self):
        self.responses = []


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Return what a TPM answered while it was enrolled, asked for registers, and so on."""
    with swtpm.running(tmp_path_factory.mktemp("tpm") / "state") as machine:
        enrolled = Enrolled(machine)
        document = enrolled.policy(Branch({"7": ZERO}, enrolled.limit(1)), Branch({"8": ZERO}))
        policy = enrolled.seal(document), document
        with enrolled.through() as (tpm, between):
            use(tpm, policy)
        return between.responses, policy


def use(tpm, policy=None):
    enrolment.enroll(tpm)
    if policy is not None:
        unsealing.explain(tpm, *policy)
    pcr.active_banks(tpm)
    commands.properties(tpm, 0x20E, 4)
    nv.read(tpm, nv.read_nv_public(tpm, counter.DEFAULT_INDEX))
    tpm.call(CommandCode.GET_RANDOM, (), b"\0\x08", ())
    counter.read_counter(tpm)


@settings(deadline=None)
@given(data=st.data())
def test_whatever_a_tpm_answers_is_an_expected_error_or_fine(recorded, data):
    responses, policy = list(recorded[0]), recorded[1]
    for _ in range(data.draw(st.integers(1, 3))):
        which = data.draw(st.integers(0, len(responses) - 1))
        whole = responses[which]
        start = data.draw(st.integers(0, len(whole)))
        end = data.draw(st.integers(start, min(len(whole), start + 8)))
        changed = whole[:start] + data.draw(st.binary(max_size=8)) + whole[end:]
        if data.draw(st.booleans()) and len(changed) >= 6:  # with a size that is right
            changed = changed[:2] + len(changed).to_bytes(4, "big") + changed[6:]
        responses[which] = changed
    with (
        mock.patch.object(connection.time, "sleep"),
        contextlib.suppress(CfsError),
        Tpm(Transport("scripted", Scripted(responses))) as tpm,
    ):
        use(tpm, policy)


@settings(deadline=None)
@given(st.lists(st.binary(max_size=200), max_size=4), st.booleans())
def test_noise_is_an_expected_error(parts, headed):
    answers = [
        b"\x80\x01" + (10 + len(part)).to_bytes(4, "big") + bytes(4) + part if headed else part
        for part in parts
    ]
    with (
        mock.patch.object(connection.time, "sleep"),
        pytest.raises(CfsError),
        Tpm(Transport("noise", Scripted(answers))) as tpm,
    ):
        use(tpm)
