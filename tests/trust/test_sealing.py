"""Which files carry a bundle to machines: one of a kind where machines are alike, else one for each."""

import msgspec
import pytest

from cfsbuild.errors import UsageError, VerificationError
from cfsbuild.trust import dsse, sealing, unseal_policy
from cfsbuild.trust.enrolment import EnrolledCounter, Enrolment, StorageKey
from cfsbuild.trust.sealing import Terms
from cfsbuild.trust.tpm.structures import (
    LEGACY_PRIMARY,
    SRK_ECC,
    encode_public,
    name_of,
    signer_public,
)

ZERO, ONE, TWO = (bytes([number]) * 32 for number in range(3))
COUNTER = EnrolledCounter(0x01800100, "000b" + "ab" * 32, 41)


@pytest.fixture
def machine_of(key_of):
    def machine(number, counter=COUNTER, pcrs=None):
        point = signer_public(key_of("p256", number).public_key())
        keys = [msgspec.structs.replace(each, x=point.x, y=point.y) for each in (SRK_ECC, LEGACY_PRIMARY)]
        srk, legacy = (StorageKey(encode_public(key).hex(), name_of(key).hex()) for key in keys)
        return Enrolment(srk=srk, legacy=legacy, counter=counter, pcrs=pcrs or {"7": ONE.hex()})

    return machine


@pytest.fixture
def envelope(key_of):
    return dsse.sign("application/x-test", b"{}", key_of("ed25519"))


def seal(envelope, machines, **terms):
    return sealing.seal_bundle(envelope, name="edge", enrolments=machines, terms=Terms(**terms))


def policies(files):
    return {name: unseal_policy.decode(data) for name, data in files.items() if name.endswith(".json")}


def test_machines_that_are_alike_share_a_policy_and_an_approval(machine_of, envelope, key_of):
    machines = [machine_of(1), machine_of(2)]
    files = seal(envelope, machines, states=[{7: ZERO}], generation=7, policy_key=key_of("p256"))
    assert list(policies(files)) == ["edge.policy.json"]
    assert sum(name.endswith(".unseal.sh") for name in files) == 1
    assert sum(name.endswith(".cfsb.pub") for name in files) == 2
    (document,) = policies(files).values()
    unseal_policy.check_approval(document)
    assert document.branches[0].counter.operand == 48


def test_machines_whose_counters_differ_have_policies_of_their_own(machine_of, envelope):
    other = machine_of(2, msgspec.structs.replace(COUNTER, base=50))
    files = policies(seal(envelope, [machine_of(1), other], states=[{7: ZERO}], generation=7))
    operands = {name: document.branches[0].counter.operand for name, document in files.items()}
    assert operands == {
        f"edge.{sealing.machine_id(machine_of(1))}.policy.json": 48,
        f"edge.{sealing.machine_id(other)}.policy.json": 57,
    }


def test_states_are_all_choices_of_values():
    assert sealing.states([]) == [{}]
    assert sealing.states([(7, ZERO), (15, ZERO), (7, ZERO)]) == [{7: ZERO, 15: ZERO}]
    assert sealing.states([(7, ONE), (7, None)], [(11, ONE), (11, TWO)]) == [
        {7: ONE, 11: ONE},
        {7: ONE, 11: TWO},
        {7: None, 11: ONE},
        {7: None, 11: TWO},
    ]
    many = [(register, value) for register in range(24) for value in (ZERO, ONE)]
    with pytest.raises(UsageError, match="more than 8") as caught:
        sealing.states(many)
    assert caught.value.reason == "branches"
    with pytest.raises(UsageError, match="kernel image"):
        sealing.states([(11, ONE)], [(11, ONE)])


def test_terms_that_no_machine_can_hold_are_refused(machine_of, envelope, key_of):
    machine = machine_of(1)
    for reason, machines, terms in (
        ("machines", [], {"states": [{7: ZERO}]}),
        ("machines", [machine, machine], {"states": [{7: ZERO}]}),
        ("counter", [machine_of(1, None)], {"generation": 1}),
        ("counter", [machine], {"generation": -1}),
        ("policy", [machine], {}),
        ("policy", [machine], {"states": []}),
        ("policy", [machine], {"states": [{7: ONE}, {7: None}]}),  # the same, as it was enrolled
        ("policy", [machine], {"generation": 1 << 53}),
        ("pcr", [machine], {"states": [{8: None}]}),
        ("pin", [machine], {"states": [{7: ZERO}], "pin": b"x" * 33}),
        ("key-algorithm", [machine], {"states": [{7: ZERO}], "policy_key": key_of("ed25519")}),
    ):
        with pytest.raises(UsageError) as caught:
            seal(envelope, machines, **terms)
        assert caught.value.reason == reason, terms


def test_only_what_is_signed_is_sealed(machine_of):
    machines = [machine_of(1)]
    for wrong in (b"", b"{}", b"x" * 99):
        with pytest.raises(VerificationError):
            seal(wrong, machines, states=[{7: ZERO}])
        with pytest.raises(VerificationError):
            sealing.seal_credential(wrong, name="edge", enrolments=machines, state={7: ZERO})


def test_each_machine_has_a_credential_of_its_own(machine_of, envelope):
    machines = [machine_of(1), machine_of(2, pcrs={"7": TWO.hex()})]
    files = sealing.seal_credential(envelope, name="edge", enrolments=machines, state={7: None})
    assert list(files) == [f"edge.{sealing.machine_id(machine)}.cred" for machine in machines]
    assert len(set(files.values())) == 2
