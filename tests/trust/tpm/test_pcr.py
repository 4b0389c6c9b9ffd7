"""Registers are extended in every bank, each by its own hash, as tpm2-tools see them."""

import hashlib
import re

import pytest
from enrolled import Between

from cfsbuild.errors import TpmError
from cfsbuild.trust.tpm import pcr
from cfsbuild.trust.tpm.command_codes import CommandCode
from cfsbuild.trust.tpm.connection import Tpm
from cfsbuild.trust.tpm.transport import Transport, open_transport

DATA = b"cfsbuild:edge:digest"


@pytest.fixture
def tpm_of():
    return lambda machine: Tpm(open_transport(machine.name))


def shown(machine, register):
    said = machine.tool("pcrread", "+".join(f"{bank}:{register}" for bank in BANKS))
    return dict(re.findall(r"(sha\d+):\s+\d+\s*: 0x([0-9A-F]+)", said))


BANKS = ("sha1", "sha256", "sha384", "sha512")


def test_every_bank_is_extended_by_its_own_hash(machine, tpm_of):
    with tpm_of(machine) as tpm:
        pcr.extend_pcr(tpm, 15, DATA)
        value = pcr.read_pcrs(tpm, [15])[15]
    expected = {}
    for bank in BANKS:
        digest = hashlib.new(bank, DATA).digest()
        expected[bank] = hashlib.new(bank, bytes(len(digest)) + digest).hexdigest()
    assert {bank: found.lower() for bank, found in shown(machine, 15).items()} == expected
    assert value.hex() == expected["sha256"]


def test_all_registers_can_be_read_at_once(machine, tpm_of):
    with tpm_of(machine) as tpm:
        values = pcr.read_pcrs(tpm, range(24))
    assert sorted(values) == list(range(24))
    assert values[0] == bytes(32)
    assert values[17] == b"\xff" * 32


def test_a_bank_that_is_off_is_not_extended_and_sha256_is_asked_for(machine, tpm_of):
    machine.tool("pcrallocate", "sha1:all+sha256:none+sha384:all+sha512:none")
    machine.reboot()
    with tpm_of(machine) as tpm:
        assert pcr.active_banks(tpm) == [0x0004, 0x000C]
        pcr.extend_pcr(tpm, 15, DATA)
        with pytest.raises(TpmError, match="SHA-256") as caught:
            pcr.read_pcrs(tpm, [7])
    assert caught.value.reason == "pcr-bank"
    assert machine.handles() == []


def test_a_bank_that_cannot_be_computed_stops_it_before_anything_is_extended(machine):
    def change(command, response):
        if command[6:10] == CommandCode.GET_CAPABILITY.to_bytes(4, "big"):
            return response.replace(b"\x00\x0d\x03", b"\x00\x99\x03")
        return response

    between = Between(open_transport(machine.name), change=change)
    with Tpm(Transport("between", between)) as tpm, pytest.raises(TpmError) as caught:
        pcr.extend_pcr(tpm, 15, DATA)
    assert caught.value.reason == "pcr-bank"
    assert len(between.commands) == 1
