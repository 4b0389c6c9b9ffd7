"""systemd itself says whether we are right: what it signs, what it opens, what it refuses."""

import json
import time
from pathlib import Path

import lab
import pytest
from cryptography.hazmat.primitives import serialization

from cfsbuild.trust import credential, key_files, pcr_signature, pcrlock, uki
from cfsbuild.trust.credential import Conditions
from cfsbuild.trust.keys import KeyAlgorithm, generate
from cfsbuild.trust.tpm.structures import decode_public

pytestmark = pytest.mark.lab

TRIES = 3
SWTPM_SECONDS = 30

MEASURE = "/usr/lib/systemd/systemd-measure"
STUBS = "/usr/lib/systemd/boot/efi"
SECTIONS = {
    "linux": b"a kernel",
    "osrel": b"ID=test\n",
    "cmdline": b"quiet ro",
    "initrd": b"an initrd" * 999,
    "ucode": b"u",
    "splash": b"BM",
    "dtb": b"d",
    "uname": b"6.12",
    "sbat": b"sbat,1\n",
    "pcrpkey": b"key",
    "profile": b"ID=main\n",
    "hwids": b"h",
}
ZERO = bytes(32)


@pytest.fixture(scope="module")
def key():
    return generate(KeyAlgorithm.RSA2048)


@pytest.fixture
def work(key):
    with lab.workspace() as (outside, inside):
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (outside / "k.key").write_bytes(pem)
        (outside / "k.pub").write_bytes(key_files.public_pem(key.public_key()))
        yield outside, inside


def measure(work, verb, names, *arguments):
    """Run systemd-measure over sections."""
    lab.require("systemd-measure")
    outside, inside = work
    for name in names:
        (outside / name).write_bytes(SECTIONS[name])
    given = [f"--{name}={inside}/{name}" for name in names]
    done = lab.run(MEASURE, verb, *given, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("names", [["linux"], ["initrd", "cmdline", "linux"], list(SECTIONS)], ids=len)
def test_what_a_kernel_measures_is_what_systemd_says(work, names):
    sections = {f".{name}": SECTIONS[name] for name in names}
    printed = measure(work, "calculate", names, "--json=short")
    for bank, algorithm in ((bank, name) for bank, name in uki.BANKS.items()):
        for entry in json.loads(printed)[algorithm]:
            path = entry["phase"].split(":")
            assert uki.predict(sections, path, bank).hex() == entry["hash"]


def test_the_signature_is_the_one_that_systemd_makes(work, key):
    names = ["linux", "osrel", "cmdline", "initrd"]
    keys = [f"--private-key={work[1]}/k.key", f"--public-key={work[1]}/k.pub"]
    theirs = measure(work, "sign", names, *keys)
    sections = {f".{name}": SECTIONS[name] for name in names}
    assert pcr_signature.sign(sections, key) == theirs
    one = measure(work, "sign", names, *keys, "--bank=sha256", "--phase=enter-initrd")
    ours = pcr_signature.sign(sections, key, paths=[["enter-initrd"]], banks=[uki.Alg.SHA256])
    assert ours == one


def test_an_image_of_ukify_measures_what_ukify_says(work):
    lab.require("ukify")
    outside, inside = work
    (outside / "initrd").write_bytes(b"an initrd")
    done = lab.run(
        *("ukify", "build", f"--stub={STUBS}/linuxx64.efi.stub", f"--linux={STUBS}/systemd-bootx64.efi"),
        *(f"--initrd={inside}/initrd", "--cmdline=quiet ro", "--os-release=ID=test", "--uname=6.12"),
        *(f"--pcr-private-key={inside}/k.key", f"--pcr-public-key={inside}/k.pub"),
        *("--pcr-banks=sha256", "--measure", "--json=short", f"--output={inside}/image.efi"),
    )
    assert done.returncode == 0, done.stderr
    entries = json.loads(done.stdout)["sha256"]
    sections = uki.measured_sections((outside / "image.efi").read_bytes())
    assert entries
    for entry in entries:
        assert uki.predict(sections, entry["phase"].split(":")).hex() == entry["hash"]


class Machine:
    """A swtpm of the lab that systemd-creds talks to, both in one call; its state stays."""

    def __init__(self, work):
        lab.require("systemd-creds", "swtpm", "tpm2_createprimary")
        self.outside, self.inside = work
        (self.outside / "state").mkdir()

    def run(self, script, *arguments):
        """Run a shell script inside the lab, with a TPM at $TPM (for systemd) and for tpm2-tools."""
        start = """cd "$1"; shift
            timeout -s KILL 30 swtpm socket --tpm2 --tpmstate dir=state --server "type=unixio,path=$PWD/s" \\
                --ctrl "type=unixio,path=$PWD/s.ctrl" --flags not-need-init,startup-clear --pid file=pid &
            trap "kill $!; wait || :; rm -f pid" EXIT
            until [ -s pid ]; do kill -0 $! || exit 99; sleep 0.01; done
            export TPM="swtpm:path=$PWD/s" TPM2TOOLS_TCTI="swtpm:path=$PWD/s"
            """
        for _ in range(TRIES):
            began = time.monotonic()
            done = lab.run("sh", "-eu", "-c", start + script, "sh", self.inside, *arguments)
            # Once in many hundred starts swtpm does not answer and is busy for ever: then it is killed.
            if done.returncode == 0 or time.monotonic() - began < SWTPM_SECONDS:
                break
        return done

    def legacy_primary(self):
        """Return the public area of the key that systemd makes for each credential."""
        done = self.run(
            "tpm2_createprimary -Q -C o -g sha256 -G ecc256:aes128cfb -a "
            "'fixedtpm|fixedparent|sensitivedataorigin|userwithauth|restricted|decrypt' -c p.ctx\n"
            "tpm2_flushcontext -t\n"
            "tpm2_readpublic -Q -c p.ctx -o p.pub"
        )
        assert done.returncode == 0, done.stderr
        return decode_public((self.outside / "p.pub").read_bytes()[2:])

    def decrypt(self, data, *arguments, name="cfs.mount", before=""):
        """Run systemd-creds decrypt, after extending registers; a machine that is started anew has zeros."""
        (self.outside / "it.cred").write_bytes(data)
        return self.run(
            f'{before}\nsystemd-creds decrypt --tpm2-device=$TPM --name={name} "$@" it.cred -', *arguments
        )


@pytest.fixture
def machine(work):
    return Machine(work)


def encrypt(machine, **conditions):
    return credential.encrypt(
        b"the payload", name="cfs.mount", parent=machine.legacy_primary(), conditions=Conditions(**conditions)
    )


def test_systemd_opens_a_credential_in_the_state_that_it_names_and_no_other(machine):
    data = encrypt(machine, pcrs={7: ZERO, 15: ZERO})
    opened = machine.decrypt(data)
    assert opened.stdout == b"the payload", opened.stderr
    latched = machine.decrypt(data, before=f"tpm2_pcrextend 15:sha256={'11' * 32}")
    assert latched.returncode != 0
    assert latched.stdout == b""
    renamed = machine.decrypt(data, name="other")
    assert renamed.returncode != 0
    assert b"name" in renamed.stderr
    damaged = data[:40] + (b"A" if data[40:41] != b"A" else b"B") + data[41:]
    assert machine.decrypt(damaged).returncode != 0


@pytest.mark.parametrize("literal", [{}, {15: ZERO}], ids=["signed", "signed and literal"])
def test_systemd_opens_a_credential_under_a_signature_of_pcr_11(machine, key, literal):
    data = encrypt(machine, pcrs=literal, signer=key.public_key())
    path = Path(machine.inside) / "pcrsig.json"
    # What the kernel image did while it booted, and the word of a phase.
    sections = {".linux": b"k"}
    boot = "\n".join(f"printf '{event}' > event; tpm2_pcrevent -Q 11 event" for event in (r".linux\0", "k"))
    enter = f"{boot}\nprintf enter-initrd > event; tpm2_pcrevent -Q 11 event"
    (machine.outside / "pcrsig.json").write_bytes(pcr_signature.sign(sections, key))
    option = f"--tpm2-signature={path}"
    opened = machine.decrypt(data, option, before=enter)
    assert opened.stdout == b"the payload", opened.stderr
    other_kernel = machine.decrypt(data, option, before=f"{enter}\ntpm2_pcrextend 11:sha256={'11' * 32}")
    assert (other_kernel.returncode != 0, other_kernel.stdout) == (True, b"")
    latched = machine.decrypt(data, option, before=f"{enter}\ntpm2_pcrextend 15:sha256={'11' * 32}")
    assert (latched.returncode == 0) == (not literal)
    # A new kernel needs a new signature, and the same credential.
    (machine.outside / "pcrsig.json").write_bytes(pcr_signature.sign({".linux": b"new"}, key))
    new = enter.replace("printf 'k'", "printf new")
    assert machine.decrypt(data, option, before=new).stdout == b"the payload"
    assert machine.decrypt(data, option, before=enter).returncode != 0


def test_a_component_is_the_one_that_systemd_pcrlock_writes_and_lists(work):
    lab.require("systemd-pcrlock")
    outside, inside = work
    digest = "fsverity-sha256-12:" + "ab" * 32
    (outside / "event").write_bytes(pcrlock.mount_event("edge", digest))
    program = "/usr/lib/systemd/systemd-pcrlock"
    done = lab.run(
        program, "lock-raw", f"{inside}/event", f"--pcr={pcrlock.MOUNT_PCR}", f"--pcrlock={inside}/theirs"
    )
    assert done.returncode == 0, done.stderr
    assert pcrlock.component("edge", digest) == (outside / "theirs").read_bytes()
    ours = outside / "components" / pcrlock.file_name("edge", digest)
    ours.parent.mkdir(parents=True)
    ours.write_bytes(pcrlock.component("edge", digest))
    listed = lab.run(program, f"--components={inside}/components", "list-components", "--json=short")
    assert f"780-cfsbuild-edge.pcrlock.d/{'ab' * 32}.pcrlock".encode() in listed.stdout, listed.stderr
