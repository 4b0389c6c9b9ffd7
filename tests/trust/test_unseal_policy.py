"""Unseal policies: one encoding each, digests as TPMs compute them, approvals that are checked."""

import contextlib
import json

import msgspec
import pytest
import swtpm
from hypothesis import given
from hypothesis import strategies as st
from tpm_tools import COUNTER_INDEX, Device

from cfsbuild.errors import CfsError, UsageError, VerificationError
from cfsbuild.trust import unseal_policy
from cfsbuild.trust.keys import sign
from cfsbuild.trust.unseal_policy import (
    Branch,
    CounterLimit,
    UnsealPolicy,
    approve,
    attach_approval,
    check_approval,
    decode,
    encode,
    policy_digest,
)

ZERO = "00" * 32
LIMIT = CounterLimit(0x01800100, "000b" + "ab" * 32, 48)
PLAIN = UnsealPolicy(name="edge", branches=[Branch({"7": ZERO, "11": ZERO}, LIMIT)])
FOUR = UnsealPolicy(name="edge", branches=[Branch({"11": f"{number:064x}"}) for number in range(4)])


def changed(**fields):
    document = json.loads(encode(PLAIN))
    document.update(fields)
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def branch(**fields):
    return changed(branches=[{"pcrs": {"7": ZERO}, "counter": None, **fields}])


def counter(**fields):
    return branch(counter={"index": 0x01800100, "name": LIMIT.name, "operand": 1, **fields})


@pytest.mark.parametrize("document", [PLAIN, FOUR, msgspec.structs.replace(PLAIN, auth_value=True)])
def test_a_policy_is_read_as_it_was_written(document):
    assert decode(encode(document)) == document
    # Changes to the helpers below are changes to a document that is good.
    assert decode(changed()) == PLAIN
    assert decode(counter())


WRONG = {
    "no branch": changed(branches=[]),
    "nine branches": changed(branches=[{"pcrs": {"7": f"{n:064x}"}, "counter": None} for n in range(9)]),
    "two branches alike": changed(branches=[{"pcrs": {"7": ZERO}, "counter": None}] * 2),
    "nothing asked for": branch(pcrs={}),
    "register 24": branch(pcrs={"24": ZERO}),
    "register -1": branch(pcrs={"-1": ZERO}),
    "register 07": branch(pcrs={"07": ZERO}),
    "register ٣": branch(pcrs={"\u0663": ZERO}),
    "value too short": branch(pcrs={"7": ZERO[2:]}),
    "value in capitals": branch(pcrs={"7": "AB" * 32}),
    "index of a key": counter(index=0x81000001),
    "name of another hash": counter(name="000c" + "ab" * 32),
    "negative operand": counter(operand=-1),
    "operand that JSON has not": counter(operand=1 << 53),
    "operand as text": counter(operand="1"),
    "more in a counter": counter(more=1),
    "more in a branch": branch(more=1),
    "more": changed(more=1),
    "another version": changed(v=2),
    "another type": changed(type="cfsbuild.mount"),
    "a name with a space": changed(name="a b"),
    "no name": changed(name=""),
    "a PIN in words": changed(auth_value="yes"),
    "too long": b" " * 70000,
    "deep": b"[" * 60000,
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_policy_is_refused(case):
    with pytest.raises(VerificationError) as caught:
        decode(WRONG[case])
    assert caught.value.reason == "malformed"


def test_what_could_not_be_read_is_not_written():
    for branches in ([], [Branch({})], [Branch({"24": ZERO})], FOUR.branches * 2):
        with pytest.raises(UsageError, match="no such policy"):
            encode(UnsealPolicy(name="edge", branches=branches))


@pytest.mark.parametrize("algorithm", ["p256", "rsa2048"])
def test_an_approval_is_of_these_branches_and_this_purpose(key_of, algorithm):
    key = key_of(algorithm)
    approved = approve(FOUR, key)
    check_approval(decode(encode(approved)))
    for other in (
        msgspec.structs.replace(approved, branches=FOUR.branches[:3]),
        msgspec.structs.replace(
            approved, authorize=msgspec.structs.replace(approved.authorize, ref=b"cfsbuild/other/v1".hex())
        ),
        FOUR,
    ):
        with pytest.raises(VerificationError) as caught:
            check_approval(other)
        assert caught.value.reason == "policy-signature"


def test_an_approval_made_elsewhere_is_verified_first(key_of):
    key, other = key_of("p256"), key_of("p256", 1)
    message = unseal_policy.approval_message(FOUR)
    check_approval(attach_approval(FOUR, key.public_key(), sign(key, message)))
    for signature in (b"", sign(other, message), sign(key, message[1:])):
        with pytest.raises(VerificationError) as caught:
            attach_approval(FOUR, key.public_key(), signature)
        assert caught.value.reason == "policy-signature"


@pytest.mark.parametrize("algorithm", ["ed25519", "rsa3072"])
def test_keys_that_tpms_do_not_know_approve_nothing(key_of, algorithm):
    with pytest.raises(UsageError, match="no policies by keys"):
        approve(FOUR, key_of(algorithm))


def test_the_digest_of_an_approved_policy_says_nothing_of_branches(key_of):
    key = key_of("p256")
    digests = {policy_digest(approve(document, key)) for document in (PLAIN, FOUR)}
    assert len(digests) == 1
    assert policy_digest(PLAIN) not in digests
    assert policy_digest(approve(PLAIN, key_of("p256", 1))) not in digests
    assert policy_digest(msgspec.structs.replace(approve(PLAIN, key), auth_value=True)) not in digests


def test_an_approval_in_another_form_is_refused(key_of):
    approved = approve(PLAIN, key_of("p256"))
    rsa = approve(PLAIN, key_of("rsa2048"))
    key, signature = approved.authorize.key, approved.authorize.signature
    forms = {
        "another attribute": {"key": key[:8] + "00060040" + key[16:]},
        "short key": {"key": key[:-2]},
        "off the curve": {"key": key[:-2] + f"{int(key[-2:], 16) ^ 1:02x}"},
        "the other key's signature": {"signature": rsa.authorize.signature},
        "short signature": {"signature": signature[:-2]},
        "another hash": {"signature": signature[:4] + "000c" + signature[8:]},
    }
    for fields in forms.values():
        document = msgspec.structs.replace(
            approved, authorize=msgspec.structs.replace(approved.authorize, **fields)
        )
        with pytest.raises(UsageError, match="no such policy"):
            encode(document)


@given(data=st.data())
def test_damage_anywhere_is_an_expected_error(key_of, data):
    whole = encode(approve(PLAIN, key_of("p256")))
    at = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(at, len(whole)))
    damaged = whole[:at] + data.draw(st.binary(max_size=20)) + whole[end:]
    with contextlib.suppress(CfsError):
        document = decode(damaged)
        assert encode(document) == damaged
        check_approval(document)
        assert damaged == whole


def test_a_tpm_comes_to_the_same_digests(tmp_path, key_of):
    with swtpm.running(tmp_path / "tpm") as machine:
        device = Device(machine, tmp_path, "ecc")
        limit = CounterLimit(COUNTER_INDEX, device_counter(device), 9)
        branches = [
            Branch({"7": ZERO, "11": ZERO}, limit),
            *(Branch({"7": f"{number:064x}"}, limit) for number in range(1, 8)),
        ]
        document = UnsealPolicy(name="edge", branches=branches)
        session, found = tmp_path / "session", tmp_path / "digest"
        files = [
            device.file(f"branch{number}", unseal_policy.branch_digest(branch))
            for number, branch in enumerate(branches)
        ]
        device.tool("startauthsession", "--policy-session", "-S", session)
        device.tool("policypcr", "-S", session, "-l", "sha256:7,11")
        operand = device.file("operand", (9).to_bytes(8, "big"))
        device.tool("policynv", "-S", session, "-C", "o", "-i", operand, COUNTER_INDEX, "ule", "-L", found)
        assert found.read_bytes() == unseal_policy.branch_digest(branches[0])
        device.tool("policyor", "-S", session, "-l", "sha256:" + ",".join(map(str, files)), "-L", found)
        assert found.read_bytes() == unseal_policy.approved_digest(document) == policy_digest(document)
        device.tool("policyauthvalue", "-S", session, "-L", found)
        assert found.read_bytes() == policy_digest(msgspec.structs.replace(document, auth_value=True))


def device_counter(device):
    device.define_counter()
    return device.counter_name().hex()
