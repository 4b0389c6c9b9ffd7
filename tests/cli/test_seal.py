"""seal: what is written for which machines, what they open, and what is refused before anything is written."""

import hashlib
import json
import os
import subprocess
from pathlib import Path

import pytest
import swtpm
from enrolled import Enrolled
from kernel_images import portable_executable

from cfsbuild.trust import dsse, enrolment, sealed, unseal_policy
from cfsbuild.trust.keys import KeyAlgorithm, generate
from cfsbuild.trust.tpm import pcr
from cfsbuild.trust.tpm.wire import sized

DOCUMENT = b'{"generation":1,"name":"edge","type":"test"}'
KERNEL = b"a kernel"


@pytest.fixture(scope="module")
def envelope():
    return dsse.sign("application/x-test", DOCUMENT, generate(KeyAlgorithm.ED25519))


@pytest.fixture
def bundle(lab, envelope):
    Path("edge.dsse").write_bytes(envelope)
    return envelope


def enrol(machine, name="m.json"):
    made = Enrolled(machine)
    Path(name).write_bytes(enrolment.encode(made.enrolment))
    return made


@pytest.fixture
def enrolled(bundle, machine):
    return enrol(machine)


def opened(enrolled, name="edge", policy=None, **more):
    document = unseal_policy.decode(Path(policy or f"{name}.policy.json").read_bytes())
    return enrolled.unseal(Path(f"{name}.cfsb").read_bytes(), document, **more)


def refused(enrolled, **more):
    document = unseal_policy.decode(Path("edge.policy.json").read_bytes())
    return enrolled.refused(Path("edge.cfsb").read_bytes(), document, **more)


def extend(enrolled, register, *events):
    with enrolled.tpm() as tpm:
        for event in events:
            pcr.extend_pcr(tpm, register, event)


def after(*events):
    value = bytes(32)
    for event in events:
        value = hashlib.sha256(value + hashlib.sha256(event).digest()).digest()
    return value.hex()


def kernel_image(name="linux.efi", kernel=KERNEL):
    """Write a kernel image, and return what it measures."""
    Path(name).write_bytes(portable_executable((".linux", kernel, None)))
    return b".linux\0", kernel


def test_a_bundle_opens_on_the_machine_that_it_is_for(run, bundle, enrolled):
    made = run("seal", "edge.dsse", "--to", "m.json", "--pcr", "7=0", "--pcr", f"15={'00' * 32}")
    assert made.status == 0, made.err
    assert made.err == ""
    assert made.lines == [
        "edge.policy.json",
        "edge.unseal.sh",
        "edge.cfsb.pub",
        "edge.cfsb.priv",
        "edge.cfsb.seed",
        "edge.cfsb",
    ]
    assert opened(enrolled) == bundle
    extend(enrolled, 15, b"mounted")
    assert refused(enrolled) == "pcr-mismatch"


def test_json_says_what_was_sealed(run, bundle, enrolled):
    told = run("seal", "edge.dsse", "--to", "m.json", "--pcr", "7=0", "--json").json
    assert told["name"] == "edge"
    assert told["machines"] == [enrolled.enrolment.srk.name[4:20]]
    assert (told["level"], told["states"], told["generation"], told["pin"]) == ("sealed", 1, 1, False)
    assert told["policy_key"] is None
    assert set(told["files"]) == {str(path) for path in Path().iterdir()} - {"edge.dsse", "m.json"}


def test_it_does_not_open_when_the_counter_has_passed_its_generation(run, bundle, enrolled):
    assert run("seal", "edge.dsse", "--to", "m.json", "--pcr", "7=0").status == 0
    index = enrolled.enrolment.counter.index
    enrolled.machine.tool("nvincrement", "-C", "o", index)
    assert opened(enrolled) == bundle
    enrolled.machine.tool("nvincrement", "-C", "o", index)
    assert refused(enrolled) == "rollback"
    newer = run("seal", "edge.dsse", "--to", "m.json", "--pcr", "7=0", "--generation", "2")
    assert newer.status == 0, newer.err
    assert opened(enrolled) == bundle


def test_without_a_counter_it_opens_for_ever_and_that_is_said(run, bundle, enrolled):
    made = run("seal", "edge.dsse", "--to", "m.json", "--pcr", "7=0", "--no-counter")
    assert made.status == 0, made.err
    assert "opens for ever" in made.err
    assert json.loads(Path("edge.policy.json").read_bytes())["branches"][0]["counter"] is None


def test_a_policy_key_approves_states_of_what_is_sealed_already(run, bundle, enrolled):
    run("key", "new", "policy", "--algorithm", "p256")
    seal = ("seal", "edge.dsse", "--to", "m.json", "--policy-key", "policy.key")
    assert run(*seal, "--pcr", "7=0", "--pcr", "11=0").status == 0
    assert opened(enrolled) == bundle
    extend(enrolled, 11, b"new kernel")
    assert refused(enrolled) == "pcr-mismatch"
    before = Path("edge.cfsb").read_bytes()
    new = run(*seal, "--pcr", "7=0", "--pcr", f"11={after(b'new kernel')}", "--policy-only")
    assert new.lines == ["edge.policy.json", "edge.unseal.sh"], new.err
    assert Path("edge.cfsb").read_bytes() == before
    assert opened(enrolled) == bundle
    # Another key approves nothing here.
    run("key", "new", "other", "--algorithm", "p256")
    assert run(*seal[:-1], "other.key", "--pcr", "7=0", "--policy-only").status == 0
    assert refused(enrolled) == "policy-other"


def test_a_pin_comes_from_a_file_that_only_its_owner_reads(run, bundle, enrolled):
    Path("pin").write_text("1234\n")
    seal = ("seal", "edge.dsse", "--to", "m.json", "--pcr", "7=0", "--pin-file", "pin")
    assert run(*seal).status == 2
    Path("pin").chmod(0o600)
    assert run(*seal).status == 0
    assert not Path("edge.unseal.sh").exists()
    assert opened(enrolled, pin=lambda: b"1234") == bundle
    assert refused(enrolled, pin=lambda: b"1235") == "pin"


def test_either_of_two_kernel_images_opens_it_when_it_booted(run, bundle, enrolled):
    kernel_image("old.efi", b"an old kernel")
    events = kernel_image("new.efi")
    made = run("seal", "edge.dsse", "--to", "m.json", "--uki", "old.efi", "--uki", "new.efi", "--json")
    assert made.json["states"] == 2
    assert "PCR 11 without PCR 7" in made.err
    assert refused(enrolled) == "pcr-mismatch"
    extend(enrolled, 11, *events, b"enter-initrd")
    assert opened(enrolled) == bundle
    extend(enrolled, 11, b"leave-initrd")
    assert refused(enrolled) == "pcr-mismatch"
    later = run(
        "seal", "edge.dsse", "--to", "m.json", "--uki", "new.efi", "--phase", "enter-initrd:leave-initrd"
    )
    assert later.status == 0, later.err
    assert opened(enrolled) == bundle


def test_several_machines_open_one_bundle_each_with_its_own_policy(run, bundle, enrolled, tmp_path):
    with swtpm.running(tmp_path / "other") as machine:
        same = enrol(machine, "o.json")
        made = run("seal", "edge.dsse", "--to", "m.json", "--to", "o.json", "--pcr", "7=0", "--json")
        assert str(Path("edge.policy.json")) in made.json["files"]  # their counters stand alike
        assert opened(enrolled) == opened(same) == bundle
        machine.tool("nvincrement", "-C", "o", same.enrolment.counter.index)
        other = enrol(machine, "o.json")
        made = run("seal", "edge.dsse", "--to", "m.json", "--to", "o.json", "--pcr", "7=0", "--json")
        assert made.status == 0, made.err
        for each, name in zip((enrolled, other), made.json["machines"], strict=True):
            assert opened(each, policy=f"edge.{name}.policy.json") == bundle
            assert Path(f"edge.{name}.cfsb.pub").exists()
        twice = run("seal", "edge.dsse", "--to", "m.json", "--to", "m.json", "--pcr", "7=0")
        assert (twice.status, "none twice" in twice.err) == (2, True)


def test_a_register_without_a_value_is_as_it_was_at_enrolment(run, bundle, machine, tmp_path):
    machine.tool("pcrextend", f"7:sha256={'22' * 32}")
    mine = enrol(machine)
    with swtpm.running(tmp_path / "other") as zeros:
        other = enrol(zeros, "o.json")
        made = run("seal", "edge.dsse", "--to", "m.json", "--to", "o.json", "--pcr", "7", "--json").json
        for each, name in zip((mine, other), made["machines"], strict=True):
            assert opened(each, policy=f"edge.{name}.policy.json") == bundle
    document = json.loads(Path("m.json").read_bytes())
    del document["pcrs"]["7"]
    Path("m.json").write_text(json.dumps(document, sort_keys=True, separators=(",", ":")))
    unknown = run("seal", "edge.dsse", "--to", "m.json", "--pcr", "7")
    assert unknown.status == 2
    assert "says nothing of PCR 7" in unknown.err


def test_tpm2_tools_take_the_parts(run, bundle, enrolled):
    seal = ("seal", "edge.dsse", "--to", "m.json", "--pcr", "7=0", "--no-counter", "--output", "out/x.cfsb")
    assert run(*seal).status == 0
    slot = sealed.parse(Path("out/x.cfsb").read_bytes()).slots[0]
    parts = {"pub": slot.public, "priv": slot.duplicate, "seed": slot.seed}
    for suffix, part in parts.items():
        assert Path(f"out/x.cfsb.{suffix}").read_bytes() == sized(part)
    done = subprocess.run(
        ["sh", "out/x.unseal.sh", "out/x.cfsb"],
        env={**os.environ, "TPM2TOOLS_TCTI": enrolled.machine.tools},
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    whole = sealed.parse(Path("out/x.cfsb").read_bytes())
    assert sealed.open_sealed(whole, lambda _: done.stdout) == bundle


def test_a_credential_has_a_signature_of_the_kernel_image_beside_it(run, bundle, enrolled):
    kernel_image()
    run("key", "new", "policy", "--algorithm", "rsa2048")
    made = run(
        *("seal", "edge.dsse", "--to", "m.json", "--level", "cred", "--uki", "linux.efi", "--pcr", "15=0"),
        *("--policy-key", "policy.key"),
    )
    assert made.status == 0, made.err
    assert made.lines == ["edge.cred", "edge.pcrsig"]
    assert "opens for ever" in made.err
    assert [entry["pcrs"] for entry in json.loads(Path("edge.pcrsig").read_bytes())["sha256"]] == [[11]]
    public = run(
        *("seal", "edge.dsse", "--to", "m.json", "--level", "cred", "--pcr", "15=0"),
        *("--policy-key", "policy.pub", "--json"),
    )
    assert public.json["files"] == ["edge.cred"]


def test_what_a_document_holds_beside_its_name_does_not_matter(run, enrolled):
    deep = b'{"generation":1,"x":' + b"[" * 100000
    Path("edge.dsse").write_bytes(dsse.sign("application/x-test", deep, generate(KeyAlgorithm.ED25519)))
    told = run("seal", "edge.dsse", "--to", "m.json", "--pcr", "7=0", "--generation", "1")
    assert told.status == 0, told.err


WRONG = {
    "pcr": [
        ["--pcr", "24=0"],
        ["--pcr", "7="],
        ["--pcr", "7=00"],
        ["--pcr", "07=0"],
        ["--pcr", f"7={'zz' * 32}"],
    ],
    "policy": [["--no-counter"], ["--pcr", "7=0", "--name", "a b"]],
    "branches": [
        ["--pcr", "7=0"] + [word for n in range(1, 9) for word in ("--pcr", f"7={n:064x}")],
        ["--level", "cred", "--pcr", "7=0", "--pcr", f"7={1:064x}"],
    ],
    "usage": [
        ["--level", "cred", "--pcr", "7=0", "--generation", "1"],
        ["--level", "cred", "--pcr", "7=0", "--counter"],
        ["--level", "cred", "--policy-only"],
        ["--no-counter", "--generation", "1"],
    ],
    "policy-key": [["--pcr", "7=0", "--policy-only"], ["--pcr", "7=0", "--policy-key", "p.pub"]],
    "key-algorithm": [
        ["--pcr", "7=0", "--policy-key", "e.key"],
        ["--level", "cred", "--policy-key", "p.pub"],
    ],
    "output": [["--pcr", "7=0", "--output", "x.cred"], ["--pcr", "7=0", "--output", ".cfsb"]],
    "name": [["--level", "cred", "--pcr", "7=0", "--name", "a/b"]],
}


@pytest.mark.parametrize(
    ("reason", "arguments"), [(reason, each) for reason, cases in WRONG.items() for each in cases]
)
def test_what_makes_no_sense_is_refused_and_nothing_is_written(run, bundle, enrolled, reason, arguments):
    if any(argument.startswith(("p.", "e.")) for argument in arguments):
        run("key", "new", "p", "--algorithm", "p256")
        run("key", "new", "e")
    before = set(Path().iterdir())
    made = run("seal", "edge.dsse", "--to", "m.json", "--json", *arguments)
    assert made.status == 2, made.err
    assert json.loads(made.err)["error"]["reason"] == reason, made.err
    assert set(Path().iterdir()) == before


def test_a_document_that_does_not_say_how_new_it_is_needs_to_be_told(run, lab, enrolled):
    Path("edge.dsse").write_bytes(dsse.sign("x/y", b"no json", generate(KeyAlgorithm.ED25519)))
    made = run("seal", "edge.dsse", "--to", "m.json", "--pcr", "7=0", "--json")
    assert (made.status, json.loads(made.err)["error"]["reason"]) == (2, "generation")
    assert run("seal", "edge.dsse", "--to", "m.json", "--pcr", "7=0", "--generation", "3").status == 0


def test_what_is_not_signed_is_not_sealed_and_what_is_no_enrolment_not_sealed_to(run, bundle, enrolled):
    Path("plain").write_bytes(DOCUMENT)
    assert run("seal", "plain", "--to", "m.json", "--pcr", "7=0").status == 5
    for wrong in (
        b"",
        b"{}",
        Path("m.json").read_bytes()[:-1],
        Path("m.json").read_bytes().replace(b"000b", b"000c"),
    ):
        Path("w.json").write_bytes(wrong)
        made = run("seal", "edge.dsse", "--to", "w.json", "--pcr", "7=0")
        assert made.status == 5
        assert "Traceback" not in made.err
