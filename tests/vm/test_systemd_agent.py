"""Machines whose first process is systemd: it opens the bundle, a credential; what counts is what we verify."""

import base64
import hashlib
import re

import lab
import msgspec
import pytest
import vm
from booting import APPLIANCE, another_disk, boot

from cfsbuild.deploy.software_tpm import switched_on
from cfsbuild.trust import counter, dsse, enrolment, sealing
from cfsbuild.trust.bundle import PAYLOAD_TYPE
from cfsbuild.trust.keys import KeyAlgorithm, generate
from cfsbuild.trust.tpm.connection import Tpm
from cfsbuild.trust.tpm.transport import open_transport

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.lab]

COMMAND = """\
grep ' / ' /proc/mounts
cat /proc/1/cmdline | tr '\\0' ' '; echo
ls /init /etc/initrd-release /run/credentials /run/systemd 2>/dev/null | grep -v :
cat /sys/class/tpm/tpm0/pcr-sha256/15
echo to-the-other >&2
touch /new || echo read-only
exit 7
"""


def start(home, disk, command="echo started", recipe=APPLIANCE):
    options = ("--agent", "systemd", "--systemd-root", lab.lab_path(), "--keep", disk, "--json")
    return boot(home, *options, "--exec", command, recipe=recipe)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    vm.require()
    lab.require("systemd-executor", "swtpm")
    return tmp_path_factory.mktemp("systemd")


@pytest.fixture(scope="module")
def booted(home):
    return start(home, home / "disk", COMMAND)


@pytest.fixture(scope="module")
def said(booted):
    assert booted.stdout, booted.stderr
    return msgspec.json.decode(booted.stdout)


def test_the_exit_status_and_both_outputs_are_those_of_the_command(booted, said):
    assert (booted.returncode, said["status"]) == (7, 7)
    assert "to-the-other\n" in said["stderr"]
    assert "to-the-other" not in said["stdout"]


def test_systemd_switches_into_an_image_that_the_kernel_checks(said):
    (root,) = [line for line in said["stdout"].splitlines() if line.startswith("composefs / ")]
    assert root.split()[3].startswith("ro,")
    assert "verity=require" in root
    assert "read-only" in said["stdout"].splitlines()


def test_nothing_of_the_initramfs_or_the_credential_is_left(said):
    lines = said["stdout"].splitlines()
    assert lines[1].startswith("/bin/sh ")
    event = f"cfsbuild:appliance-1:fsverity-sha256-12:{said['digest']}".encode()
    assert lines[2] == hashlib.sha256(bytes(32) + hashlib.sha256(event).digest()).hexdigest().upper()


def test_the_same_disk_starts_again_with_either_agent(home, booted):
    done = boot(home, "--keep", home / "disk", "--exec", "echo started")
    assert (done.returncode, done.stdout) == (0, "started\n")
    again = start(home, home / "disk")
    assert msgspec.json.decode(again.stdout)["stdout"] == "started\n"


def test_the_images_own_init_becomes_the_first_process(home, booted, tmp_path):
    recipe = tmp_path / "own.toml"
    recipe.write_text(
        APPLIANCE.read_text().replace(
            "cat /etc/motd\nPS1=", "echo $$ is $0, $(ls -RA /run/credentials); poweroff -f\nPS1="
        )
    )
    options = ("--agent", "systemd", "--systemd-root", lab.lab_path())
    done = boot(home, *options, recipe=recipe)
    assert done.returncode == 0, done.stderr
    # The kernel has the next word: no credential is left.
    assert re.search(r"1 is /sbin/init, /run/credentials:\n\[ *\d", done.stdout)


def test_an_init_that_the_image_lacks_is_told(home, booted):
    options = ("--agent", "systemd", "--systemd-root", lab.lab_path())
    done = boot(home, *options, "--init", "/sbin/none")
    assert done.returncode != 0
    assert "systemd could not start" in done.stderr


def refused(home, disk):
    done = start(home, disk)
    assert done.returncode == 5, done.stderr
    assert done.stdout == ""
    return msgspec.json.decode(done.stderr.splitlines()[-1])["error"]


def machine_of(home):
    return enrolment.decode((home / "disk.trust/enrolment.json").read_bytes())


def with_credential(home, said, name, envelope, registers):
    """Return a disk whose credential is another one, for the machine that it belongs to."""
    files = sealing.seal_credential(envelope, name="boot", enrolments=[machine_of(home)], state=registers)
    return another_disk(home, said, name, **files)


def signed(home):
    return (home / "disk.trust/boot.bundle").read_bytes()


def test_what_an_attacker_sealed_to_the_machine_is_opened_and_not_believed(home, said):
    payload = base64.b64decode(msgspec.json.decode(signed(home))["payload"])
    wrong = dsse.sign(PAYLOAD_TYPE, payload, generate(KeyAlgorithm.ED25519))
    disk = with_credential(home, said, "attacked", wrong, {15: bytes(32)})
    assert refused(home, disk)["reason"] == "signature-missing"


def test_systemd_opens_nothing_once_pcr_15_is_not_as_sealed(home, said):
    disk = with_credential(home, said, "latched", signed(home), {15: hashlib.sha256(b"mounted").digest()})
    error = refused(home, disk)
    assert error["reason"] == "credential"
    assert "TPM policy does not match current system state" in error["problems"][0]["details"]


def test_once_the_image_is_mounted_the_credential_opens_no_more(home, said, tmp_path):
    recipe = tmp_path / "prying.toml"
    libraries = [f"libtss2-{name}.so.0" for name in ("esys", "mu", "rc", "tcti-device")]
    node = {
        "kind": "programs",
        "root": str(lab.lab_path()),
        "programs": ["systemd-creds"],
        "libraries": ["libcrypto.so.3", *libraries],
    }
    lines = "\n".join(f"{key} = {msgspec.json.encode(value).decode()}" for key, value in node.items())
    recipe.write_text(f"{APPLIANCE.read_text()}\n[nodes.creds]\n{lines}\n")
    command = "/usr/bin/systemd-creds decrypt --name=boot /run/cfsbuild/state/boot.cred -; echo $?"
    done = start(home, tmp_path / "prying", command, recipe=recipe)
    found = msgspec.json.decode(done.stdout)
    assert found["stdout"] == "1\n"
    assert "TPM policy does not match current system state" in found["stderr"]


def test_an_old_generation_is_refused_though_its_credential_opens(home, said, tmp_path):
    disk = with_credential(home, said, "old", signed(home), {15: bytes(32)})
    own = machine_of(home).counter
    with (
        switched_on(disk.with_name("old.tpm"), tmp_path) as name,
        Tpm(open_transport(name)) as tpm,
    ):
        counter.advance_counter(tpm, own.index, own.base + 2)
    assert refused(home, disk)["reason"] == "rollback"


def test_a_credential_that_is_none_is_told(home, said):
    disk = another_disk(home, said, "without", **{"boot.cred": b""})
    error = refused(home, disk)
    assert error["reason"] == "credential"
    assert "Failed to set up credentials" in error["problems"][0]["details"]


def test_a_disk_that_cannot_be_mounted_is_told_by_the_step_that_tried(home, said):
    disk = another_disk(home, said, "damaged")
    with disk.open("r+b") as file:
        file.write(bytes(1 << 16))
    done = start(home, disk)
    assert (done.returncode, done.stdout) == (7, ""), done.stderr
    assert msgspec.json.decode(done.stderr.splitlines()[-1])["error"]["reason"] == "state-mount"


def test_an_image_without_os_release_is_not_switched_to(home, said, tmp_path):
    recipe = tmp_path / "bare.toml"
    recipe.write_text('[image]\nname = "bare"\n[nodes.etc]\nkind = "dir"\ntarget = "/etc"\n')
    done = start(home, tmp_path / "bare", recipe=recipe)
    assert (done.returncode, done.stdout) == (7, ""), done.stderr
    assert msgspec.json.decode(done.stderr.splitlines()[-1])["error"]["reason"] == "os-release"
