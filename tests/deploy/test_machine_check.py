"""Whether a bundle is for this machine: what it says, what the machine knows of itself, what the TPM says."""

import hashlib

import msgspec
import pytest
import swtpm
from enrolled import Enrolled, code_of, swallowed
from test_bundle import bundle

from cfsbuild.deploy.machine_check import check_machine, record_mount
from cfsbuild.errors import CfsError
from cfsbuild.trust import counter, enrolment
from cfsbuild.trust.bundle import Counter, Machine
from cfsbuild.trust.pcrlock import mount_event
from cfsbuild.trust.tpm.command_codes import CommandCode
from cfsbuild.trust.tpm.structures import decode_nv_public, encode_nv_public, name_of
from cfsbuild.trust.tpm.wire import sized, u32

OTHER = "000b" + "ab" * 32
SECOND = 0x01800200


@pytest.fixture
def machine(tmp_path):
    with swtpm.running(tmp_path / "tpm") as running:
        made = Enrolled(running)
        yield made
        assert running.handles() == []


def target(machine, *, srk="", index=0, base=None):
    made = machine.enrolment.counter
    if index:
        with machine.tpm() as tpm:
            found = counter.make_counter(tpm, index)
        return Machine(machine.enrolment.srk.name, Counter(index, found.name.hex(), found.value))
    named = Counter(made.index, made.name, made.base if base is None else base)
    return Machine(srk or machine.enrolment.srk.name, named)


def check(machine, made, enrolled=None):
    with machine.tpm() as tpm:
        check_machine(made, tpm, enrolled)


def refused(machine, made, enrolled=None):
    with pytest.raises(CfsError) as caught:
        check(machine, made, enrolled)
    return caught.value.reason


def test_both_what_is_signed_and_what_is_enrolled_must_name_this_machine(machine):
    enrolled = machine.enrolment
    other = msgspec.structs.replace(enrolled, srk=enrolment.StorageKey(enrolled.srk.public, OTHER))
    check(machine, bundle(target=target(machine)), enrolled)
    assert refused(machine, bundle(target=target(machine, srk=OTHER)), enrolled) == "srk-name"
    assert refused(machine, bundle(target=target(machine)), other) == "srk-name"
    assert refused(machine, bundle(), other) == "srk-name"


def test_both_counters_hold(machine):
    second = target(machine, index=SECOND)
    first = machine.enrolment.counter
    check(machine, bundle(generation=1, target=second), machine.enrolment)
    with machine.tpm() as tpm:
        counter.advance_counter(tpm, first.index, first.base + 2)
    assert refused(machine, bundle(generation=1, target=second), machine.enrolment) == "rollback"
    check(machine, bundle(generation=2, target=second), machine.enrolment)
    with machine.tpm() as tpm:
        counter.advance_counter(tpm, SECOND, second.counter.base + 3)
    assert refused(machine, bundle(generation=2, target=second), machine.enrolment) == "rollback"


def test_a_counter_below_what_it_was_when_enrolled_lets_nothing_through(machine):
    made = machine.enrolment.counter
    assert refused(machine, bundle(generation=0, target=target(machine, base=made.base + 1))) == "rollback"
    later = msgspec.structs.replace(made, base=made.base + 1)
    enrolled = msgspec.structs.replace(machine.enrolment, counter=later)
    assert refused(machine, bundle(generation=1 << 53), enrolled) == "rollback"


def long_counter(command, response):
    """Say of each NV index that it has 64 KiB, with the Name that goes with it."""
    if code_of(command) != 0x169:
        return response
    public = decode_nv_public(response[12 : 12 + int.from_bytes(response[10:12], "big")])
    public = msgspec.structs.replace(public, data_size=65535)
    body = sized(encode_nv_public(public)) + sized(name_of(public))
    return response[:2] + u32(10 + len(body)) + u32(0) + body


def test_a_counter_has_eight_bytes_whatever_the_tpm_says(machine):
    with machine.through(change=long_counter) as (tpm, _), pytest.raises(CfsError) as caught:
        counter.read_counter(tpm)
    assert caught.value.reason == "counter-kind"


def no_banks(command, response):
    """Say that the TPM keeps no registers."""
    if code_of(command) == 0x17A and command[10:14] == u32(5):
        body = b"\0" + u32(5) + u32(0)
        return response[:2] + u32(10 + len(body)) + u32(0) + body
    return response


def test_a_mount_that_no_register_takes_is_not_said_to_be_recorded(machine):
    with machine.through(change=no_banks) as (tpm, _), pytest.raises(CfsError) as caught:
        record_mount(bundle(), tpm)
    assert caught.value.reason == "pcr-bank"


def no_sha256(command, response):
    """Say that the TPM keeps no registers by SHA-256."""
    if code_of(command) != CommandCode.GET_CAPABILITY:
        return response
    return response.replace(b"\x00\x0b\x03\xff\xff\xff", b"\x00\x0b\x03\x00\x00\x00")


@pytest.mark.parametrize("change", [swallowed, no_sha256])
@pytest.mark.parametrize("known_by", ["the bundle", "the machine"])
def test_what_stands_between_cannot_keep_a_mount_from_being_recorded(machine, change, known_by):
    made = bundle(target=target(machine) if known_by == "the bundle" else None)
    enrolled = machine.enrolment if known_by == "the machine" else None
    with machine.through(change=change) as (tpm, _), pytest.raises(CfsError) as caught:
        record_mount(made, tpm, enrolled)
    assert caught.value.reason == "tpm-response"


def test_where_nobody_knows_the_storage_key_nobody_can_tell(machine):
    with machine.through(change=no_sha256) as (tpm, _):
        record_mount(bundle(), tpm)
    assert "15: 0x" + "0" * 64 in machine.machine.tool("pcrread", "sha256:15")


@pytest.mark.parametrize("known", [False, True])
def test_a_mount_is_recorded_in_every_bank(machine, known):
    made = bundle(target=target(machine) if known else None)
    with machine.tpm() as tpm:
        record_mount(made, tpm)
    event = mount_event(made.name, made.image.digest)
    said = machine.machine.tool("pcrread", "sha1:15+sha256:15+sha384:15+sha512:15")
    for bank in ("sha1", "sha256", "sha384", "sha512"):
        digest = hashlib.new(bank, event).digest()
        assert hashlib.new(bank, bytes(len(digest)) + digest).hexdigest().upper() in said, bank


def test_a_mount_is_not_recorded_by_another_tpm(machine):
    made = bundle(target=target(machine, srk=OTHER))
    with machine.tpm() as tpm, pytest.raises(CfsError) as caught:
        record_mount(made, tpm)
    assert caught.value.reason == "srk-name"
    assert "15: 0x" + "0" * 64 in machine.machine.tool("pcrread", "sha256:15")
