"""Machines that must not start: each says why, over the port that programs read and on its console."""

import base64

import msgspec
import pytest
import vm
from booting import another_disk, boot

from cfsbuild.deploy.software_tpm import switched_on
from cfsbuild.trust import counter, dsse, enrolment, sealing
from cfsbuild.trust.bundle import PAYLOAD_TYPE
from cfsbuild.trust.keys import KeyAlgorithm, generate
from cfsbuild.trust.tpm.connection import Tpm
from cfsbuild.trust.tpm.transport import open_transport

pytestmark = [pytest.mark.vm, pytest.mark.slow]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    vm.require()
    return tmp_path_factory.mktemp("refused")


@pytest.fixture(scope="module")
def said(home):
    done = boot(home, "--keep", home / "disk", "--exec", "echo started", "--json")
    assert done.returncode == 0, done.stderr
    found = msgspec.json.decode(done.stdout)
    assert found["stdout"] == "started\n"
    if not found["tpm"]:
        pytest.skip("swtpm is not installed")
    return found


def refused(home, disk):
    done = boot(home, "--keep", disk, "--exec", "echo started", "--json")
    assert done.returncode == 5, done.stderr
    assert "started" not in done.stdout
    return msgspec.json.decode(done.stderr.splitlines()[-1])["error"]["reason"]


def tpm_of(disk, scratch):
    return switched_on(disk.with_name(f"{disk.name}.tpm"), scratch)


def test_what_starts_once_starts_again(home, said):
    done = boot(home, "--keep", home / "disk", "--exec", "echo started")
    assert (done.returncode, done.stdout) == (0, "started\n")


def test_a_flipped_bit_of_the_sealed_bundle(home, said):
    data = bytearray((home / "disk.trust/boot.cfsb").read_bytes())
    data[-40] ^= 4
    disk = another_disk(home, said, "flipped", **{"boot.cfsb": bytes(data)})
    assert refused(home, disk) == "sealed-damaged"


def forged(home, disk):
    """Return what an attacker makes who knows this machine, and has none of the keys that it trusts."""
    envelope = msgspec.json.decode((home / "disk.trust/boot.bundle").read_bytes())
    payload = base64.b64decode(envelope["payload"])
    wrong = dsse.sign(PAYLOAD_TYPE, payload, generate(KeyAlgorithm.ED25519))
    machine = enrolment.decode((home / "disk.trust/enrolment.json").read_bytes())
    terms = sealing.Terms(states=({15: bytes(32)},), generation=1)
    return sealing.seal_bundle(wrong, name="boot", enrolments=[machine], terms=terms)


def test_a_bundle_that_an_attacker_sealed_to_the_machine_unseals_and_starts_nothing(home, said):
    files = forged(home, said)
    names = ("boot.cfsb", "boot.policy.json")
    disk = another_disk(home, said, "attacked", **{name: files[name] for name in names})
    assert refused(home, disk) == "signature-missing"


def test_an_old_generation_after_the_counter_was_advanced(home, said, tmp_path):
    disk = another_disk(home, said, "old")
    machine = enrolment.decode((home / "disk.trust/enrolment.json").read_bytes())
    with tpm_of(disk, tmp_path) as name, Tpm(open_transport(name)) as tpm:
        counter.advance_counter(tpm, machine.counter.index, machine.counter.base + 2)
    assert refused(home, disk) == "rollback"


def test_another_machines_tpm(home, said):
    disk = another_disk(home, said, "moved")
    state = disk.with_name("moved.tpm")
    for path in state.iterdir():
        path.unlink()
    done = boot(home, "--keep", disk, "--exec", "echo started", "--json")
    assert done.returncode != 0
    assert msgspec.json.decode(done.stderr.splitlines()[-1])["error"]["reason"] == "srk-missing"
