"""mount --bundle of what is sealed to a machine's TPM: opened there, believed only if signed, and only once a boot."""

import base64
import json
import os
import stat
import subprocess
import tempfile
from pathlib import Path

import edge
import pytest
import swtpm
from enrolled import Enrolled
from kernel_images import portable_executable

from cfsbuild.trust import counter, dsse, enrolment, sealing, unseal_policy
from cfsbuild.trust.bundle import PAYLOAD_TYPE
from cfsbuild.trust.keys import KeyAlgorithm, generate
from cfsbuild.trust.tpm import pcr
from cfsbuild.trust.tpm.nv import read_nv_public

RECIPE = (
    edge.IMAGE
    + """\
[targets.bundle]
generation = 1
sign = ["k.key"]
level = "sealed"
[targets.bundle.seal]
machines = ["m.json"]
pcrs = { "7" = "enrolled", "11" = "enrolled", "15" = "0" }
"""
)
CFSB = Path("out/edge-1.cfsb")


@pytest.fixture
def enrolled(lab, run, machine):
    made = Enrolled(machine)
    Path("m.json").write_bytes(enrolment.encode(made.enrolment))
    assert run("key", "new", "k").status == 0
    write(RECIPE, run)
    Path("root").mkdir()
    Path("disk").symlink_to(lab.store)
    yield made
    subprocess.run(["umount", "-R", "-l", "root"], check=False, capture_output=True)
    assert machine.handles() == []


def write(recipe, run):
    Path("edge.toml").write_text(recipe)
    told = run("build", "edge.toml")
    assert told.status == 0, told.err
    return told


@pytest.fixture
def attempt_with(run):
    """Verify as a mount does on a machine with this TPM, and mount nothing."""

    def with_tpm(tpm):
        def call(*arguments, file=CFSB, keys=("--key", "k.pub")):
            return run(
                *("mount", "-n", "--json", "--tpm", tpm.name, "--base", "disk", "--bundle", file),
                *(*keys, *arguments, "root"),
            )

        return call

    return with_tpm


@pytest.fixture
def attempt(attempt_with, machine):
    return attempt_with(machine)


def reason(told):
    assert told.status in {5, 7}, told.err
    return json.loads(told.err)["error"]["reason"]


def test_what_was_sealed_to_this_machine_is_opened_and_verified(enrolled, attempt):
    told = attempt()
    assert told.status == 0, told.err
    assert told.json["verity"] == "require"
    assert sorted(path.name for path in Path("out").glob("edge-1.cfsb*")) == [
        *("edge-1.cfsb", "edge-1.cfsb.priv", "edge-1.cfsb.pub", "edge-1.cfsb.seed"),
    ]
    # It names the machine, so that one that is only signed is held against the counter as well.
    document = json.loads(Path("out/edge-1.bundle.json").read_bytes())
    assert document["target"]["srk"] == enrolled.enrolment.srk.name
    assert attempt(file="out/edge-1.bundle").status == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_mount_is_recorded_in_pcr_15_and_what_is_sealed_opens_once_a_boot(enrolled, run, machine):
    arguments = (
        *("mount", "--json", "--tpm", machine.name, "--base", "disk", "--bundle", CFSB, "--key", "k.pub"),
        *("--allow-insecure", "root"),
    )
    told = run(*arguments)
    assert told.status == 0, told.err
    assert told.json["recorded"]
    digest = json.loads(Path("out/edge-1.bundle.json").read_bytes())["image"]["digest"]
    with enrolled.tpm() as tpm:
        value = pcr.read_pcrs(tpm, [15])[15]
    machine.tool("pcrreset", "16")
    event = f"cfsbuild:edge:{digest}".encode()
    machine.tool("pcrevent", "16", given=event)
    with enrolled.tpm() as tpm:
        assert pcr.read_pcrs(tpm, [16])[16] == value
    subprocess.run(["umount", "root"], check=True)
    assert reason(run(*arguments)) == "pcr-mismatch"
    assert not os.path.ismount("root")


def test_a_bundle_that_an_attacker_sealed_opens_and_is_refused(enrolled, attempt):
    payload = Path("out/edge-1.bundle.json").read_bytes()
    forged = dsse.sign(PAYLOAD_TYPE, payload, generate(KeyAlgorithm.ED25519))
    terms = sealing.Terms(states=({7: bytes(32)},))
    files = sealing.seal_bundle(forged, name="forged", enrolments=[enrolled.enrolment], terms=terms)
    for name, data in files.items():
        Path(name).write_bytes(data)
    assert enrolled.unseal(Path("forged.cfsb").read_bytes(), _policy("forged.policy.json")) == forged
    assert reason(attempt(file="forged.cfsb")) == "signature-missing"


def _policy(name):
    return unseal_policy.decode(Path(name).read_bytes())


def extend(enrolled, register):
    with enrolled.tpm() as tpm:
        pcr.extend_pcr(tpm, register, b"something else")


@pytest.mark.parametrize("register", [7, 11, 15])
def test_another_boot_opens_nothing(enrolled, attempt, register):
    extend(enrolled, register)
    assert reason(attempt()) == "pcr-mismatch"


def advance(enrolled, to):
    with enrolled.tpm() as tpm:
        made = enrolled.enrolment.counter
        counter.advance_counter(tpm, made.index, made.base + to)


def test_an_old_generation_is_refused_by_the_tpm_and_again_by_the_machine(enrolled, attempt):
    advance(enrolled, 1)
    assert attempt().status == 0
    advance(enrolled, 2)
    assert reason(attempt()) == "rollback"
    assert reason(attempt(file="out/edge-1.bundle")) == "rollback"


def test_a_machine_that_knows_itself_holds_every_bundle_against_its_counter(enrolled, attempt, run):
    write(RECIPE.split("level", maxsplit=1)[0], run)
    assert attempt("--enrolment", "m.json", file="out/edge-1.bundle").status == 0
    advance(enrolled, 2)
    assert attempt(file="out/edge-1.bundle").status == 0
    assert reason(attempt("--enrolment", "m.json", file="out/edge-1.bundle")) == "rollback"


def test_a_counter_that_is_gone_or_made_again_lets_nothing_through(enrolled, attempt, machine):
    index = hex(enrolled.enrolment.counter.index)
    with enrolled.tpm() as tpm:
        attributes = read_nv_public(tpm, enrolled.enrolment.counter.index).public.attributes
    machine.tool("nvundefine", "-C", "o", index)
    assert reason(attempt()) == "counter-missing"
    assert reason(attempt(file="out/edge-1.bundle")) == "counter-missing"
    machine.tool(
        "nvdefine", "-C", "o", "-s", 8, "-a", "nt=counter|ownerwrite|ownerread|authread|no_da", index
    )
    machine.tool("nvincrement", "-C", "o", index)
    assert reason(attempt()) == "counter-name"
    assert reason(attempt(file="out/edge-1.bundle")) == "counter-name"
    # With the very same attributes it has the same Name, and starts above all that there ever were.
    machine.tool("nvundefine", "-C", "o", index)
    with enrolled.tpm() as tpm:
        assert counter.make_counter(tpm).name.hex() == enrolled.enrolment.counter.name
        assert read_nv_public(tpm, enrolled.enrolment.counter.index).public.attributes == attributes
    advance(enrolled, 2)
    assert reason(attempt()) == "rollback"


def test_what_is_sealed_to_another_machine_is_refused(enrolled, attempt_with, attempt, tmp_path):
    with swtpm.running(tmp_path / "other") as other:
        elsewhere = attempt_with(other)
        assert reason(elsewhere()) == "srk-missing"
        made = Enrolled(other)
        assert reason(elsewhere()) == "sealed-other-target"
        assert reason(elsewhere(file="out/edge-1.bundle")) == "srk-name"
        Path("other.json").write_bytes(enrolment.encode(made.enrolment))
    assert reason(attempt("--enrolment", "other.json")) == "srk-name"


def test_every_flipped_byte_and_every_cut_of_a_sealed_bundle_is_refused(enrolled, attempt):
    good = CFSB.read_bytes()
    seen = set()
    for position in range(0, len(good), 23):
        data = bytearray(good)
        data[position] ^= 1 << position % 8
        CFSB.write_bytes(data)
        seen.add(reason(attempt()))
    for length in range(0, len(good), 37):
        CFSB.write_bytes(good[:length])
        seen.add(reason(attempt()))
    assert seen <= {
        *("sealed-malformed", "sealed-damaged", "sealed-other-target", "policy-other", "malformed"),
    }
    CFSB.write_bytes(good)
    assert attempt().status == 0


def test_without_a_tpm_it_is_said_that_one_is_needed(enrolled, run):
    for file in (CFSB, "out/edge-1.bundle"):
        told = run("mount", "-n", "--json", "--bundle", file, "--key", "k.pub", "--base", "disk", "root")
        assert reason(told) == "tpm-missing"


def test_a_pin_is_asked_for_and_a_wrong_one_refused(enrolled, attempt, run):
    Path("pin").write_text("2580\n")
    Path("pin").chmod(0o600)
    Path("wrong").write_text("1111\n")
    Path("wrong").chmod(0o600)
    write(RECIPE + 'pin = "pin"\n', run)
    assert attempt("--pin-file", "pin").status == 0
    assert reason(attempt("--pin-file", "wrong")) == "pin"
    assert attempt().status == 2


CANARY = "correct horse battery staple"


def with_secret(run):
    Path("wifi").write_text(CANARY)
    Path("wifi").chmod(0o600)
    return write(
        RECIPE.replace('level = "sealed"', 'level = "sealed"\nsecrets = { "wifi.psk" = "wifi" }'), run
    )


def test_secrets_are_in_the_sealed_bundle_only(enrolled, attempt, run, lab, tmp_path):
    Path("out/edge-1.bundle").unlink()
    with_secret(run)
    for needle in (CANARY.encode(), base64.b64encode(CANARY.encode())[:20]):
        for path in tmp_path.rglob("*"):
            if path.is_file() and path.name != "wifi":
                assert needle not in path.read_bytes(), path
    assert not Path("out/edge-1.bundle").exists()
    assert attempt().status == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_secrets_are_written_to_memory_for_root_only(enrolled, run, machine):
    with_secret(run)
    arguments = (
        *("mount", "--tpm", machine.name, "--base", "disk", "--bundle", CFSB, "--key", "k.pub"),
        *("--allow-insecure", "--secrets"),
    )
    with tempfile.TemporaryDirectory(dir="/dev/shm") as memory:
        Path(memory).chmod(0o755)
        for place, why in ((memory, "others can reach it"), ("on-disk", "it is not in memory")):
            told = run(*arguments, place, "root")
            assert told.status == 2
            assert why in told.err
            assert not os.path.ismount("root")
        told = run(*arguments, Path(memory, "secrets"), "root")
        assert told.status == 0, told.err
        path = Path(memory, "secrets", "wifi.psk")
        assert path.read_text() == CANARY
        assert stat.S_IMODE(path.stat().st_mode) == 0o400
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text.replace('sign = ["k.key"]\n', ""), "must be signed"),
        (lambda text: text.split("[targets.bundle.seal]")[0], "needs [targets.bundle.seal]"),
        (lambda text: text.replace('level = "sealed"\n', ""), "it is not sealed"),
        (lambda text: text.replace("m.json", "none.json"), "no file none.json"),
        (lambda text: text.replace('"15" =', '"24" ='), "no register '24'"),
        (lambda text: text.replace('"15" =', f'"{"9" * 5000}" ='), "no register '99"),
        (lambda text: text.replace("sealed", "cred") + 'ukis = ["k.pub", "k.key"]\n', "one state only"),
        (lambda text: text.replace('"15" = "0"', '"15" = "5"'), "15"),
        (lambda text: text.replace("sealed", "cred") + 'pin = "k.pub"\n', "no PIN"),
    ],
)
def test_what_does_not_go_together_is_said_before_anything_runs(enrolled, run, change, words):
    Path("edge.toml").write_text(change(RECIPE))
    told = run("build", "edge.toml")
    assert told.status == 2
    assert words in told.err


def test_a_credential_is_made_for_systemd(enrolled, run):
    write(RECIPE.replace("sealed", "cred"), run)
    assert Path("out/edge-1.cred").stat().st_size > 500


def test_a_bundle_for_several_machines_finds_the_policy_of_this_one(enrolled, attempt, run, tmp_path):
    with swtpm.running(tmp_path / "other") as other:
        made = Enrolled(other)
        with made.tpm() as tpm:
            index = made.enrolment.counter.index
            counter.advance_counter(tpm, index, made.enrolment.counter.base + 3)
            Path("n.json").write_bytes(enrolment.encode(enrolment.enroll(tpm, counter=index)))
    write(RECIPE.replace('["m.json"]', '["m.json", "n.json"]'), run)
    assert not Path("out/edge-1.policy.json").exists()
    assert len(list(Path("out").glob("edge-1.*.policy.json"))) == 2
    assert attempt("--enrolment", "m.json").status == 0
    for path in Path("out").glob("edge-1.*.policy.json"):
        path.unlink()
    told = attempt()
    assert told.status == 2
    assert "there is no policy beside" in told.err


def test_a_credential_has_a_signature_for_each_kernel_image(enrolled, run):
    assert run("key", "new", "policy", "--algorithm", "rsa2048").status == 0
    for name in ("a", "b"):
        Path(f"{name}.efi").write_bytes(portable_executable((".linux", name.encode(), None)))
    recipe = RECIPE.replace("sealed", "cred").replace('"11" = "enrolled", ', "")
    write(recipe + 'ukis = ["a.efi", "b.efi"]\npolicy_key = "policy.key"\nphase = ""\n', run)
    for name, suffix in (("a", ""), ("b", ".1")):
        made = json.loads(Path(f"out/edge-1{suffix}.pcrsig").read_bytes())
        told = run(
            *(
                "seal",
                "out/edge-1.bundle",
                "--to",
                "m.json",
                "--level",
                "cred",
                "--pcr",
                "15=0",
                "--phase",
                "",
            ),
            *("--uki", f"{name}.efi", "--policy-key", "policy.key", "--output", f"{name}.cred"),
        )
        assert told.status == 0, told.err
        assert made == json.loads(Path(f"{name}.pcrsig").read_bytes())
