"""Sealed bundles are released in the state that their policy names, and each refusal says why."""

import hashlib
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest
import swtpm
from enrolled import PAYLOAD, SRK, ZERO, Enrolled, code_of

from cfsbuild.errors import TpmError, VerificationError
from cfsbuild.trust import counter, sealed, unsealing
from cfsbuild.trust.sealed import Recipient
from cfsbuild.trust.tpm import pcr
from cfsbuild.trust.tpm.command_codes import CommandCode
from cfsbuild.trust.unseal_policy import Branch, CounterLimit, approve, policy_digest

OTHER = "11" * 32


def reasons_of(explained):
    return [
        register.pcr for branch in explained.branches for register in branch.registers if not register.fits
    ]


def extended(data, value=bytes(32)):
    return hashlib.sha256(value + hashlib.sha256(data).digest()).hexdigest()


@pytest.mark.parametrize("kind", ["ecc", "rsa"])
def test_what_is_sealed_to_a_machine_unseals_on_it(machine, kind):
    enrolled = Enrolled(machine, kind)
    document = enrolled.policy()
    data = enrolled.seal(document)
    assert enrolled.unseal(data, document) == PAYLOAD
    assert enrolled.explain(data, document).unseals
    assert machine.handles() == []


def test_it_unseals_after_a_reboot_too(enrolled):
    document = enrolled.policy()
    data = enrolled.seal(document)
    enrolled.machine.reboot()
    assert enrolled.unseal(data, document) == PAYLOAD


def test_a_register_that_changed_is_named_with_what_was_expected_and_found(enrolled):
    document = enrolled.policy()
    data = enrolled.seal(document)
    with enrolled.tpm() as tpm:
        pcr.extend_pcr(tpm, 11, b"another kernel")
    with pytest.raises(VerificationError) as caught:
        enrolled.unseal(data, document)
    assert caught.value.reason == "pcr-mismatch"
    assert caught.value.brief.endswith("PCR 11")
    assert f"expected {ZERO}" in caught.value.details
    assert f"found    {extended(b'another kernel')}" in caught.value.details
    assert "UKI" in caught.value.details
    explained = enrolled.explain(data, document)
    assert (explained.unseals, explained.reason, reasons_of(explained)) == (False, "pcr-mismatch", [11])


def test_extending_register_15_ends_it_until_the_next_boot(enrolled):
    document = enrolled.policy(Branch({"15": ZERO}))
    data = enrolled.seal(document)
    assert enrolled.unseal(data, document) == PAYLOAD
    with enrolled.tpm() as tpm:
        pcr.extend_pcr(tpm, 15, b"mounted")
    with pytest.raises(VerificationError, match="PCR 15") as caught:
        enrolled.unseal(data, document)
    assert "once in each boot" in caught.value.resolution
    enrolled.machine.reboot()
    assert enrolled.unseal(data, document) == PAYLOAD


def test_an_old_generation_is_refused_for_ever(enrolled):
    old, new = (enrolled.policy(Branch({}, enrolled.limit(generation))) for generation in (1, 2))
    old_data, new_data = enrolled.seal(old), enrolled.seal(new)
    with enrolled.tpm() as tpm:
        counter.advance_counter(tpm, counter.DEFAULT_INDEX, enrolled.limit(1).operand)
    assert enrolled.unseal(old_data, old) == PAYLOAD
    with enrolled.tpm() as tpm:
        counter.advance_counter(tpm, counter.DEFAULT_INDEX, enrolled.limit(2).operand)
    assert enrolled.refused(old_data, old) == "rollback"
    assert enrolled.unseal(new_data, new) == PAYLOAD
    enrolled.machine.reboot()
    assert enrolled.refused(old_data, old) == "rollback"


def test_a_counter_that_is_made_again_is_another_one_and_never_lower(enrolled):
    document = enrolled.policy(Branch({}, enrolled.limit(0)))
    data = enrolled.seal(document)
    enrolled.machine.tool("nvundefine", "-C", "o", hex(counter.DEFAULT_INDEX))
    assert enrolled.refused(data, document) == "counter-missing"
    with enrolled.tpm() as tpm:
        assert counter.make_counter(tpm).value > enrolled.enrolment.counter.base
    # With the same attributes it even has the same Name: it is the value that tells.
    assert enrolled.refused(data, document) == "rollback"
    enrolled.machine.tool("nvundefine", "-C", "o", hex(counter.DEFAULT_INDEX))
    attributes = "nt=counter|ownerwrite|ownerread|authread|no_da"
    enrolled.machine.tool("nvdefine", hex(counter.DEFAULT_INDEX), "-C", "o", "-s", 8, "-a", attributes)
    assert enrolled.refused(data, document) == "counter-name"
    enrolled.machine.tool("nvincrement", "-C", "o", hex(counter.DEFAULT_INDEX))
    assert enrolled.refused(data, document) == "counter-name"


def test_lying_about_the_operand_releases_nothing(enrolled):
    document = enrolled.policy(Branch({}, enrolled.limit(0)))
    data = enrolled.seal(document)
    lie = enrolled.policy(Branch({}, enrolled.limit(5)))
    assert enrolled.refused(data, lie) == "policy-other"


@pytest.mark.parametrize("algorithm", ["p256", "rsa2048"])
def test_one_sealed_bundle_serves_each_release_that_the_policy_key_approves(enrolled, key_of, algorithm):
    key = key_of(algorithm)
    first = approve(enrolled.policy(Branch({"11": ZERO}, enrolled.limit(1))), key)
    data = enrolled.seal(first)
    assert enrolled.unseal(data, first) == PAYLOAD
    with enrolled.tpm() as tpm:
        pcr.extend_pcr(tpm, 11, b"next kernel")
    assert enrolled.refused(data, first) == "pcr-mismatch"
    second = approve(enrolled.policy(Branch({"11": extended(b"next kernel")}, enrolled.limit(2))), key)
    assert enrolled.unseal(data, second) == PAYLOAD
    assert enrolled.explain(data, second).approved


def test_what_the_policy_key_did_not_sign_is_refused(enrolled, key_of):
    first = approve(enrolled.policy(), key_of("p256"))
    data = enrolled.seal(first)
    changed = msgspec.structs.replace(first, branches=[Branch({"8": ZERO})])
    assert enrolled.refused(data, changed) == "policy-signature"
    assert enrolled.explain(data, changed).approved is False
    by_another = approve(enrolled.policy(), key_of("p256", 9))
    assert enrolled.refused(data, by_another) == "policy-other"
    for_another_purpose = approve(enrolled.policy(), key_of("p256"), b"other/v1")
    assert enrolled.refused(data, for_another_purpose) == "policy-other"


def test_of_several_states_the_one_that_fits_is_run_and_the_nearest_explained(enrolled):
    states = [
        Branch({"7": OTHER, "11": OTHER}),
        Branch({"7": ZERO, "11": OTHER}, enrolled.limit(3)),
        Branch({"7": ZERO, "11": extended(b"kernel")}, enrolled.limit(3)),
    ]
    document = enrolled.policy(*states)
    data = enrolled.seal(document)
    assert enrolled.refused(data, document) == "pcr-mismatch"
    explained = enrolled.explain(data, document)
    assert explained.nearest == 1
    assert [branch.misses for branch in explained.branches] == [2, 1, 1]
    with enrolled.tpm() as tpm:
        pcr.extend_pcr(tpm, 11, b"kernel")
    assert enrolled.unseal(data, document) == PAYLOAD


def test_a_state_whose_counter_was_replaced_does_not_hide_one_that_fits(enrolled):
    gone = CounterLimit(counter.DEFAULT_INDEX, "000b" + "22" * 32, 1 << 40)
    document = enrolled.policy(Branch({}, gone), Branch({"7": ZERO}))
    data = enrolled.seal(document)
    assert enrolled.unseal(data, document) == PAYLOAD


def test_the_right_pin_opens_and_a_wrong_one_is_counted(enrolled):
    document = enrolled.policy(auth_value=True)
    data = enrolled.seal(document, b"1234")
    assert enrolled.unseal(data, document, pin=lambda: b"1234") == PAYLOAD
    assert enrolled.refused(data, document, pin=lambda: b"12345") == "pin"
    explained = enrolled.explain(data, document)
    assert explained.unseals
    assert (explained.pin, explained.lockout.failures, explained.lockout.locked) == (True, 1, False)
    assert enrolled.unseal(data, document, pin=lambda: b"1234") == PAYLOAD


def test_the_first_use_of_a_pin_after_a_boot_is_sent_again(enrolled):
    document = enrolled.policy(auth_value=True)
    data = enrolled.seal(document, b"1234")
    with enrolled.through() as (tpm, between):
        assert unsealing.unseal(tpm, data, document, pin=lambda: b"1234") == PAYLOAD
    sent = [command for command in between.commands if code_of(command) == CommandCode.UNSEAL]
    assert len(sent) == 2  # TPM_RC_RETRY: this TPM had to write something first
    assert sent[0] == sent[1]


def test_too_many_wrong_pins_lock_the_tpm_but_not_what_has_no_pin(enrolled):
    document = enrolled.policy(auth_value=True)
    data = enrolled.seal(document, b"1234")
    for _ in range(3):
        assert enrolled.refused(data, document, pin=lambda: b"no") == "pin"
    assert enrolled.refused(data, document, pin=lambda: b"1234") == "lockout"
    assert enrolled.explain(data, document).lockout.locked
    plain = enrolled.policy()
    assert enrolled.unseal(enrolled.seal(plain), plain) == PAYLOAD
    enrolled.machine.tool("dictionarylockout", "--clear-lockout")
    assert enrolled.unseal(data, document, pin=lambda: b"1234") == PAYLOAD


def test_the_pin_is_asked_for_once_and_only_if_all_else_holds(enrolled):
    asked = []

    def ask():
        asked.append(1)
        return b"1234"

    document = enrolled.policy(auth_value=True)
    data = enrolled.seal(document, b"1234")
    with enrolled.through() as (tpm, between):
        between.before = changing_registers(between, times=1)
        assert unsealing.unseal(tpm, data, document, pin=ask) == PAYLOAD
    assert asked == [1]
    with enrolled.tpm() as tpm:
        pcr.extend_pcr(tpm, 7, b"x")
    assert enrolled.refused(data, document, pin=ask) == "pcr-mismatch"
    assert asked == [1]
    assert enrolled.refused(data, document) == "pcr-mismatch"


def test_two_programs_at_once_both_get_it(enrolled):
    document = enrolled.policy()
    data = enrolled.seal(document)
    with ThreadPoolExecutor(4) as pool:
        opened = list(pool.map(lambda _: enrolled.unseal(data, document), range(12)))
    assert opened == [PAYLOAD] * 12


def test_who_gives_up_at_the_pin_leaves_nothing_behind(enrolled):
    def interrupted():
        raise KeyboardInterrupt

    document = enrolled.policy(auth_value=True)
    data = enrolled.seal(document, b"1234")
    with pytest.raises(KeyboardInterrupt):
        enrolled.unseal(data, document, pin=interrupted)
    assert enrolled.machine.handles() == []


def test_a_counter_that_was_never_counted_is_missing(enrolled):
    attributes = "nt=counter|ownerwrite|authread|no_da"
    enrolled.machine.tool("nvdefine", "0x01800200", "-C", "o", "-s", 8, "-a", attributes)
    name = enrolled.machine.tool("nvreadpublic", "0x01800200").split("name:")[1].split()[0]
    document = enrolled.policy(Branch({}, CounterLimit(0x01800200, name, 5)))
    assert enrolled.refused(enrolled.seal(document), document) == "counter-missing"


def test_without_a_pin_it_says_that_there_is_one(enrolled):
    document = enrolled.policy(auth_value=True)
    assert enrolled.refused(enrolled.seal(document, b"1234"), document) == "pin-missing"


EXTEND_PCR_1 = bytes.fromhex(
    "8002 00000041 00000182 00000001 00000009 40000009 0000 01 0000 00000001 000b" + "33" * 32
)


def changing_registers(between, *, times):
    """Return what extends a register that no policy names just before the TPM is asked to unseal."""
    left = [times]

    def before(command):
        if code_of(command) == CommandCode.UNSEAL and left[0]:
            left[0] -= 1
            assert between.inner.exchange(EXTEND_PCR_1)[6:10] == bytes(4)

    return before


def test_registers_that_change_meanwhile_restart_the_policy_a_few_times(enrolled):
    document = enrolled.policy()
    data = enrolled.seal(document)
    with enrolled.through() as (tpm, between):
        between.before = changing_registers(between, times=3)
        assert unsealing.unseal(tpm, data, document) == PAYLOAD
        between.before = changing_registers(between, times=100)
        with pytest.raises(VerificationError) as caught:
            unsealing.unseal(tpm, data, document)
    assert caught.value.reason == "pcr-changed"


@pytest.mark.parametrize("kind", ["ecc", "rsa"])
def test_what_is_sealed_to_another_machine_is_said_to_be(enrolled, tmp_path, kind):
    document = enrolled.policy()
    with swtpm.running(tmp_path / "other") as machine:
        other = Enrolled(machine, kind)
    assert enrolled.refused(other.seal(document), document) == "sealed-other-target"
    both = [Recipient(parent, policy_digest(document)) for parent in (other.srk, enrolled.srk)]
    assert enrolled.unseal(sealed.seal(PAYLOAD, both), document) == PAYLOAD


def test_a_storage_key_can_be_pinned(enrolled):
    document = enrolled.policy()
    data = enrolled.seal(document)
    name = bytes.fromhex(enrolled.enrolment.srk.name)
    assert enrolled.unseal(data, document, srk_name=name) == PAYLOAD
    with enrolled.through() as (tpm, between):
        with pytest.raises(VerificationError) as caught:
            unsealing.unseal(tpm, data, document, srk_name=name[:-1] + bytes([name[-1] ^ 1]))
        assert len(between.commands) == 1
    assert caught.value.reason == "srk-name"


def test_a_machine_without_a_storage_key_is_told_how_to_get_one(machine, enrolled):
    document = enrolled.policy()
    data = enrolled.seal(document)
    machine.tool("evictcontrol", "-C", "o", "-c", hex(SRK))
    for ask in (enrolled.unseal, enrolled.explain):
        with pytest.raises(TpmError) as caught:
            ask(data, document)
        assert caught.value.reason == "srk-missing"
        assert "--create-srk" in caught.value.resolution


def test_every_flipped_bit_of_a_bundle_is_refused(enrolled):
    document = enrolled.policy()
    data = enrolled.seal(document)
    reasons = set()
    with enrolled.tpm() as tpm:
        for position in range(len(data)):
            changed = bytearray(data)
            changed[position] ^= 1 << position % 8
            with pytest.raises(VerificationError) as caught:
                unsealing.unseal(tpm, bytes(changed), document)
            reasons.add(caught.value.reason)
    assert reasons == {"sealed-malformed", "sealed-other-target", "sealed-damaged", "policy-other"}
