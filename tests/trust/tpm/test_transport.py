"""The way to a TPM: names, what is no TPM, and what answers too much, too little, or never."""

import contextlib
import os
import re
import socket
import threading

import pytest

from cfsbuild.errors import CfsError, TpmError, UsageError
from cfsbuild.trust.tpm import commands
from cfsbuild.trust.tpm.connection import Tpm
from cfsbuild.trust.tpm.structures import SRK_ECC
from cfsbuild.trust.tpm.transport import MESSAGE_BYTES, Transport, open_transport
from cfsbuild.trust.tpm.transport import _Device as Device

GET_RANDOM = bytes.fromhex("8001 0000000c 0000017b 0008")


def response(size, length=None):
    return b"\x80\x01" + size.to_bytes(4, "big") + bytes((size if length is None else length) - 6)


class Canned:
    """Answers each command with the same parts, one at a time."""

    def __init__(self, *parts):
        self.parts = list(parts)
        self.sent = b""

    def send(self, data, _deadline):
        self.sent += bytes(data[:7])  # as if a buffer was full
        return min(7, len(data))

    def receive(self, _deadline):
        part = self.parts.pop(0) if self.parts else b""
        if isinstance(part, BaseException):
            raise part
        return part

    def close(self):
        self.parts = []


def reason_of(*parts):
    with pytest.raises(TpmError) as caught:
        Transport("canned", Canned(*parts)).exchange(GET_RANDOM)
    return caught.value.reason


def test_a_socket_takes_raw_commands(machine):
    transport = open_transport(machine.name)
    answer = transport.exchange(GET_RANDOM)
    assert answer[:10] == bytes.fromhex("8001 00000014 00000000")
    assert len(answer) == 20
    transport.close()


def test_a_port_takes_raw_commands_too(machine):
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        with listener, listener.accept()[0] as connection:
            inner = open_transport(machine.name)
            while command := connection.recv(MESSAGE_BYTES):
                connection.sendall(inner.exchange(command))
            inner.close()

    server = threading.Thread(target=serve)
    server.start()
    with Tpm(open_transport(f"swtpm:127.0.0.1:{listener.getsockname()[1]}")) as tpm:
        assert len(commands.get_random(tpm, 16)) == 16
    server.join()


def test_parts_are_put_together_and_a_command_is_sent_whole():
    whole = response(20)
    channel = Canned(whole[:3], whole[3:11], whole[11:])
    assert Transport("canned", channel).exchange(GET_RANDOM) == whole
    assert channel.sent == GET_RANDOM


@pytest.mark.parametrize("size", [0, 9, MESSAGE_BYTES + 1, 1 << 31])
def test_a_header_with_an_impossible_size_is_no_response(size):
    assert reason_of(response(size, 10)) == "tpm-response"


def test_too_much_too_little_and_nothing_are_no_responses():
    assert reason_of(response(12) + b"x") == "tpm-response"
    assert reason_of(response(12)[:11], b"") == "tpm-response"
    assert reason_of(b"") == "tpm-response"


def test_silence_and_failures_end():
    assert reason_of(TimeoutError()) == "tpm-timeout"
    assert reason_of(OSError(5, "Input/output error")) == "tpm-io"


def test_a_server_that_never_answers_is_given_up():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        transport = open_transport(f"swtpm:127.0.0.1:{listener.getsockname()[1]}", seconds=0.05)
        with pytest.raises(TpmError, match="does not answer") as caught:
            transport.exchange(GET_RANDOM)
        transport.close()
    assert caught.value.reason == "tpm-timeout"


def test_what_failed_once_is_asked_no_more():
    transport = Transport("canned", Canned(TimeoutError(), response(12), response(12)))
    for _ in range(2):
        with pytest.raises(TpmError) as caught:
            transport.exchange(GET_RANDOM)
        assert caught.value.reason == "tpm-timeout"


def test_a_device_is_written_to_and_read_from_in_one_go(machine):
    # What /dev/tpmrm0 is to a program: messages both ways, and a descriptor that does not wait.
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)

    def serve():
        inner = open_transport(machine.name)
        while command := theirs.recv(MESSAGE_BYTES):
            theirs.send(inner.exchange(command))
        inner.close()

    server = threading.Thread(target=serve)
    server.start()
    with theirs, Tpm(Transport("device", Device(ours.detach()))) as tpm:
        assert commands.create_primary(tpm, SRK_ECC).name
        tpm.close()
        server.join()
    assert machine.handles() == []
    silent, _other = socket.socketpair()
    with _other:
        transport = Transport("device", Device(silent.detach()), seconds=0.05)
        with pytest.raises(TpmError) as caught:
            transport.exchange(GET_RANDOM)
        transport.close()
    assert caught.value.reason == "tpm-timeout"


def test_an_interrupted_exchange_is_settled_before_the_next_one():
    channel = Canned(KeyboardInterrupt(), response(12), response(14))
    transport = Transport("canned", channel)
    with pytest.raises(KeyboardInterrupt):
        transport.exchange(GET_RANDOM)
    assert transport.exchange(GET_RANDOM) == response(14)
    assert transport.settle() is None


def test_a_command_longer_than_a_tpm_takes_is_not_sent():
    channel = Canned(response(10))
    with pytest.raises(TpmError) as caught:
        Transport("canned", channel).exchange(bytes(MESSAGE_BYTES + 1))
    assert (caught.value.reason, channel.sent) == ("tpm-command", b"")


@pytest.mark.parametrize("name", ["", "swtpm:", "swtpm:host", "swtpm:host:", "swtpm::1", "swtpm:h:0", "swtpm:h:65536", "swtpm:h:1x", "swtpm:a..b:1", "a\0b", "swtpm:é:1", "swtpm:h:²"])  # fmt: skip
def test_what_names_no_tpm_is_a_usage_error(name):
    with pytest.raises(UsageError) as caught:
        open_transport(name)
    assert caught.value.reason == "tpm-name"


def test_an_absent_tpm_is_a_clear_error(tmp_path):
    for name in (tmp_path / "none", f"swtpm:{tmp_path / 'none'}", f"swtpm:/{'x' * 200}", "swtpm:127.0.0.1:1"):
        with pytest.raises(TpmError, match="there is no TPM") as caught:
            open_transport(str(name))
        assert caught.value.reason == "tpm-missing"
        assert caught.value.exit_code == 7
        assert re.search("firmware|swtpm", caught.value.resolution)


def test_a_queue_that_stays_full_is_given_up(tmp_path):
    with socket.socket(socket.AF_UNIX) as listener, contextlib.ExitStack() as held:
        listener.bind(str(tmp_path / "s"))
        listener.listen(0)
        name = f"swtpm:{tmp_path / 's'}"
        held.callback(open_transport(name, seconds=0.05).close)  # fills it
        with pytest.raises(TpmError, match="does not answer") as caught:
            open_transport(name, seconds=0.05)
    assert caught.value.reason == "tpm-timeout"


def test_a_file_is_no_tpm_and_nor_is_another_device(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UsageError, match="is not a TPM"):
        open_transport(str(tmp_path / "file"))
    with pytest.raises(CfsError):
        open_transport("/dev/null").exchange(GET_RANDOM)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError):
        open_transport(str(tmp_path / "pipe"))
