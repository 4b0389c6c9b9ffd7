"""An enrolment says of a machine what tpm2-tools say of it, and changes nothing that is not asked for."""

import json

import pytest
import swtpm
from enrolled import SRK, value_of
from hypothesis import given, settings
from hypothesis import strategies as st
from tpm_tools import KEY_TYPES, STORAGE, Device

from cfsbuild.errors import CfsError, TpmError, VerificationError
from cfsbuild.trust import enrolment
from cfsbuild.trust.counter import DEFAULT_INDEX
from cfsbuild.trust.tpm.connection import Tpm
from cfsbuild.trust.tpm.structures import encode_public
from cfsbuild.trust.tpm.transport import open_transport


def enroll(machine, **what):
    with Tpm(open_transport(machine.name)) as tpm:
        return enrolment.enroll(tpm, **what)


@pytest.mark.parametrize("kind", ["ecc", "rsa"])
def test_the_keys_are_those_that_the_tools_see(machine, tmp_path, kind):
    device = Device(machine, tmp_path, kind)
    made = enroll(machine)
    assert made.srk.public == encode_public(device.srk).hex()
    # What systemd makes for each credential, by the same template.
    assert made.legacy.public == encode_public(device.primary()).hex()
    assert made.counter is None
    assert machine.handles() == []


def test_a_storage_key_that_is_made_is_the_one_that_the_tools_make(machine, tmp_path):
    made = enroll(machine, create_srk=True)
    device = Device.__new__(Device)
    device.machine, device.work, device.tool = machine, tmp_path, machine.tool
    assert made.srk.public == encode_public(device.public_of(hex(SRK))).hex()
    assert made.srk.public == encode_public(device.primary(f"{STORAGE}|noda")).hex()
    assert enroll(machine, create_srk=True) == made


def test_nothing_is_made_unasked(machine):
    with pytest.raises(TpmError) as caught:
        enroll(machine)
    assert caught.value.reason == "srk-missing"
    assert "0x81000001" not in machine.tool("getcap", "handles-persistent")
    enroll(machine, create_srk=True)
    assert "0x1800100" not in machine.tool("getcap", "handles-nv-index").lower()


def test_the_counter_is_made_once_and_its_name_is_the_tools(machine, tmp_path):
    made = enroll(machine, create_srk=True, counter=DEFAULT_INDEX).counter
    said = machine.tool("nvreadpublic", hex(DEFAULT_INDEX))
    assert f"name: {made.name}" in said
    assert "no_da" in said
    assert value_of(machine, tmp_path) == made.base
    assert enroll(machine, counter=DEFAULT_INDEX).counter == made


def test_registers_are_there_to_seal_to(machine):
    machine.tool("pcrextend", "11:sha256=" + "11" * 32)
    made = enroll(machine, create_srk=True)
    assert f"11: 0x{made.pcrs['11'].upper()}" in machine.tool("pcrread", "sha256:11")
    assert len(made.pcrs) == 24


def test_certificates_of_the_maker_are_taken_along_without_their_padding(machine, tmp_path):
    certificate = b"\x30\x82\x02\x04" + b"c" * 0x204
    (tmp_path / "padded").write_bytes(certificate.ljust(1200, b"\xff"))
    (tmp_path / "noise").write_bytes(b"no certificate".ljust(1200))
    for index, content in ((0x01C00002, "padded"), (0x01C0000A, "noise")):
        attributes = "ownerwrite|ownerread|authread|no_da"
        machine.tool("nvdefine", hex(index), "-C", "o", "-s", 1200, "-a", attributes)
        machine.tool("nvwrite", hex(index), "-C", "o", "-i", tmp_path / content)
    machine.tool("nvdefine", hex(0x01C00012), "-C", "o", "-s", 1200, "-a", "ownerwrite|ownerread")
    (found,) = enroll(machine, create_srk=True).ek_certificates
    assert (found.index, bytes.fromhex(found.der)) == (0x01C00002, certificate)


def test_a_certificate_that_may_not_be_read_does_not_stop_it(machine, tmp_path):
    (tmp_path / "content").write_bytes(b"\x30\x82\x01\x00" + bytes(256))
    for index, attributes, auth in (
        (0x01C00002, "ownerwrite|authread|no_da", "secret"),
        (0x01C0000A, "ownerwrite|authread|no_da|read_stclear", ""),
        (0x01C00012, "ownerwrite|authread", "secret"),
    ):
        auth_option = ("-p", auth) if auth else ()
        machine.tool("nvdefine", hex(index), "-C", "o", "-s", 260, "-a", attributes, *auth_option)
        machine.tool("nvwrite", hex(index), "-C", "o", "-i", tmp_path / "content")
    machine.tool("nvreadlock", hex(0x01C0000A), "-C", hex(0x01C0000A))
    assert enroll(machine, create_srk=True).ek_certificates == []
    assert "TPM2_PT_LOCKOUT_COUNTER: 0x0" in machine.tool("getcap", "properties-variable")


def test_an_index_of_another_kind_is_no_counter(machine):
    machine.tool("nvdefine", hex(DEFAULT_INDEX), "-C", "o", "-s", 8, "-a", "ownerwrite|authread")
    with pytest.raises(VerificationError) as caught:
        enroll(machine, create_srk=True, counter=DEFAULT_INDEX)
    assert caught.value.reason == "counter-kind"


def test_an_owner_with_a_password_is_said_to_be_the_reason(machine):
    machine.tool("changeauth", "-c", "owner", "secret")
    with pytest.raises(TpmError) as caught:
        enroll(machine, create_srk=True)
    assert caught.value.reason == "owner-auth"
    assert machine.handles() == []


def test_a_key_for_another_use_is_no_storage_key(machine, tmp_path):
    attributes = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|sign"
    machine.tool("createprimary", "-G", "ecc256", "-a", attributes, "-c", tmp_path / "key")
    machine.tool("evictcontrol", "-C", "o", "-c", tmp_path / "key", hex(SRK))
    machine.tool("flushcontext", "-t")
    with pytest.raises(CfsError) as caught:
        enroll(machine, create_srk=True)
    assert caught.value.reason == "parent"


def test_a_key_of_an_unknown_kind_is_said_to_be_one(machine, tmp_path):
    kind = KEY_TYPES["ecc"].replace("256:", "384:")
    machine.tool("createprimary", "-G", kind, "-a", STORAGE, "-c", tmp_path / "key")
    machine.tool("evictcontrol", "-C", "o", "-c", tmp_path / "key", hex(SRK))
    machine.tool("flushcontext", "-t")
    with pytest.raises(TpmError) as caught:
        enroll(machine)
    assert caught.value.reason == "tpm-key-kind"


@pytest.fixture(scope="module")
def document(tmp_path_factory):
    with swtpm.running(tmp_path_factory.mktemp("tpm") / "state") as machine:
        return enrolment.encode(enroll(machine, create_srk=True, counter=DEFAULT_INDEX))


def test_it_reads_as_it_was_written(document):
    assert enrolment.encode(enrolment.decode(document)) == document
    assert json.loads(document)["type"] == "cfsbuild.enrolment"


@pytest.mark.parametrize(
    "edit",
    [
        lambda told: told.update(more=1),
        lambda told: told.pop("srk"),
        lambda told: told["srk"].update(name=told["legacy"]["name"]),
        lambda told: told["srk"].update(public="00"),
        lambda told: told["srk"].update(public=told["srk"]["public"].upper()),
        lambda told: told["pcrs"].update({"24": "00" * 32}),
        lambda told: told["pcrs"].update({"07": "00" * 32}),
        lambda told: told["counter"].update(index=1),
        lambda told: told["counter"].update(base=-1),
        lambda told: told.update(v=2),
    ],
)
def test_what_no_machine_says_of_itself_is_refused(document, edit):
    told = json.loads(document)
    edit(told)
    with pytest.raises(VerificationError) as caught:
        enrolment.decode(json.dumps(told, sort_keys=True, separators=(",", ":")).encode())
    assert caught.value.reason == "malformed"


@settings(deadline=None)
@given(data=st.data())
def test_damage_is_an_expected_error(document, data):
    start = data.draw(st.integers(0, len(document)))
    end = data.draw(st.integers(start, min(len(document), start + 10)))
    changed = document[:start] + data.draw(st.binary(max_size=10)) + document[end:]
    try:
        read = enrolment.decode(changed)
    except VerificationError:
        return
    assert enrolment.encode(read) == changed
