"""enroll, unseal, advance: what a user sees on the machine that images are sealed to."""

import json
import os
from pathlib import Path

import pytest
from enrolled import PAYLOAD, ZERO, Enrolled

from cfsbuild.trust import unseal_policy
from cfsbuild.trust.unseal_policy import Branch


@pytest.fixture
def sealed(lab, machine):
    """Return an enrolled machine, with a bundle and its policy in the working directory."""
    enrolled = Enrolled(machine)
    put(enrolled, enrolled.policy())
    return enrolled


def put(enrolled, document, pin=b""):
    Path("edge.cfsb").write_bytes(enrolled.seal(document, pin))
    Path("edge.policy.json").write_bytes(unseal_policy.encode(document))


@pytest.fixture
def tpm(machine):
    return ("--tpm", machine.name)


def test_a_machine_is_enrolled_into_a_document_that_can_be_read(lab, run, machine, tpm):
    refused = run("enroll", *tpm)
    assert refused.status == 7
    assert "--create-srk" in refused.err
    made = run("enroll", *tpm, "--create-srk")
    assert made.status == 0, made.err
    assert made.json["counter"]["index"] == 0x01800100
    assert "storage root key" in made.err
    assert run("enroll", *tpm, "--output", "m.json").out == b""
    assert Path("m.json").read_bytes() == made.out
    without = run("enroll", *tpm, "--no-counter").json
    assert without["counter"] is None
    other = run("enroll", *tpm, "--counter", "0x01800200")
    assert other.json["counter"]["index"] == 0x01800200


def test_a_bundle_is_unsealed_and_said_not_to_be_verified(run, sealed, tpm):
    opened = run("unseal", "edge.cfsb", *tpm)
    assert opened.status == 0, opened.err
    assert opened.out == PAYLOAD
    assert "not verified" in opened.err
    assert run("unseal", "edge.cfsb", *tpm, "--output", "out").out == b""
    assert Path("out").read_bytes() == PAYLOAD
    assert Path("out").stat().st_mode & 0o777 == 0o600
    Path("edge.policy.json").rename("other.json")
    assert run("unseal", "edge.cfsb", *tpm).status == 2
    assert run("unseal", "edge.cfsb", *tpm, "--policy", "other.json").out == PAYLOAD


def test_of_the_policies_of_several_machines_it_takes_its_own(run, sealed, tpm):
    machine = sealed.enrolment.srk.name[4:20]
    Path("edge.policy.json").rename(f"edge.{machine}.policy.json")
    assert run("unseal", "edge.cfsb", *tpm).out == PAYLOAD
    Path(f"edge.{machine}.policy.json").unlink()
    missing = run("unseal", "edge.cfsb", *tpm)
    assert missing.status == 2
    assert machine in missing.err


def test_explaining_shows_each_condition(run, sealed, tpm):
    fine = run("unseal", "--explain", "edge.cfsb", *tpm)
    assert fine.status == 0
    assert fine.lines[0] == "edge: would unseal here and now: yes"
    assert [line.split()[0] for line in fine.lines if line.startswith("  ")] == ["ok"] * 4
    assert run("unseal", "--explain", "edge.cfsb", *tpm, "--json").json["unseals"] is True


def test_explaining_a_refusal_names_register_and_counter(run, sealed, tpm, machine):
    machine.tool("pcrextend", "7:sha256=" + "11" * 32)
    assert run("advance", *tpm, "9").text == "9\n"
    refused = run("unseal", "edge.cfsb", *tpm)
    assert refused.status == 5
    assert refused.out == b""
    assert "PCR 7" in refused.err
    explained = run("unseal", "--explain", "edge.cfsb", *tpm)
    assert explained.status == 5
    assert explained.lines[0].endswith("no")
    assert "(pcr-mismatch)" in explained.lines[1]
    text = explained.text
    assert "NO  PCR 7: Secure Boot" in text
    assert f"expected {ZERO}" in text
    assert "NO  counter 0x01800100: rollback" in text
    assert "counter  9" in text
    told = run("unseal", "--explain", "edge.cfsb", *tpm, "--json")
    assert (told.status, told.json["reason"]) == (5, "pcr-mismatch")
    assert told.json["branches"][0]["counter"]["value"] == 9


def test_a_pin_comes_from_a_file_or_a_descriptor(run, sealed, tpm):
    put(sealed, sealed.policy(auth_value=True), b"1234")
    asked = run("unseal", "edge.cfsb", *tpm)
    assert asked.status == 2
    assert "PIN" in asked.err
    Path("pin").write_text("1234\n")
    assert run("unseal", "edge.cfsb", *tpm, "--pin-file", "pin").status == 2
    Path("pin").chmod(0o600)
    assert run("unseal", "edge.cfsb", *tpm, "--pin-file", "pin").out == PAYLOAD
    fd = os.open("pin", os.O_RDONLY)
    assert run("unseal", "edge.cfsb", *tpm, "--pin-fd", fd).out == PAYLOAD
    os.close(fd)
    Path("pin").write_text("4321")
    wrong = run("unseal", "edge.cfsb", *tpm, "--pin-file", "pin", "--json")
    assert wrong.status == 5
    assert json.loads(wrong.err)["error"]["reason"] == "pin"
    assert "4321" not in wrong.err
    explained = run("unseal", "--explain", "edge.cfsb", *tpm)
    assert explained.status == 0
    assert "PIN" in explained.text
    assert "1 of 3 wrong ones" in explained.text


def test_states_are_told_apart(run, sealed, tpm):
    other = "11" * 32
    put(sealed, sealed.policy(Branch({"7": other, "11": other}), Branch({"7": ZERO, "11": other})))
    explained = run("unseal", "--explain", "edge.cfsb", *tpm)
    assert "state 1 of 2:" in explained.lines
    assert "state 2 of 2, the nearest:" in explained.lines


@pytest.mark.parametrize("name", ["edge.cfsb", "edge.policy.json"])
@pytest.mark.parametrize("content", [b"", b"CFSB1\0", b"{}", b"\0" * 3_000_000])
def test_files_that_are_something_else_are_refused_in_words(run, sealed, tpm, name, content):
    Path(name).write_bytes(content)
    refused = run("unseal", "edge.cfsb", *tpm)
    assert refused.status in {1, 5}
    assert refused.err.startswith("error: ")
    assert "Traceback" not in refused.err


def test_a_storage_key_can_be_asked_for(run, sealed, tpm):
    name = sealed.enrolment.srk.name
    assert run("unseal", "edge.cfsb", *tpm, "--srk", name).out == PAYLOAD
    assert run("unseal", "edge.cfsb", *tpm, "--srk", name[:-2] + "00").status == 5
    assert run("unseal", "edge.cfsb", *tpm, "--srk", "xyz").status == 2


def test_the_counter_is_shown_and_advanced(run, sealed, tpm):
    base = sealed.enrolment.counter.base
    assert run("advance", *tpm).text == f"{base}\n"
    assert run("advance", *tpm, base + 2, "-n").text == f"{base}\n"
    assert run("advance", *tpm, base + 2, "--json").json["value"] == base + 2
    back = run("advance", *tpm, base)
    assert (back.status, back.text) == (0, f"{base + 2}\n")
    assert "already" in back.err
    assert run("advance", *tpm, base + 100_000).status == 2
    assert run("advance", *tpm, "--counter", "0x01800999").status == 5


def test_without_a_tpm_it_says_so(lab, run):
    for verb in (["enroll"], ["advance"]):
        refused = run(*verb, "--tpm", "/dev/none", "--json")
        assert refused.status == 7
        assert json.loads(refused.err)["error"]["reason"] == "tpm-missing"
