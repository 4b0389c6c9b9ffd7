"""The rollback counter only goes up, and what it says comes from the TPM."""

import pytest
from enrolled import code_of, value_of

from cfsbuild.errors import TpmError, UsageError, VerificationError
from cfsbuild.trust.counter import DEFAULT_INDEX, STEPS, advance_counter, make_counter, read_counter


def test_it_is_advanced_to_a_value_and_never_back(enrolled, tmp_path):
    with enrolled.tpm() as tpm:
        first = read_counter(tpm)
        assert first.name.hex() == enrolled.enrolment.counter.name
        assert advance_counter(tpm, DEFAULT_INDEX, first.value + 3).value == first.value + 3
        assert advance_counter(tpm, DEFAULT_INDEX, first.value).value == first.value + 3
    enrolled.machine.reboot()
    with enrolled.tpm() as tpm:
        assert read_counter(tpm).value == first.value + 3
    assert value_of(enrolled.machine, tmp_path) == first.value + 3


def test_a_typo_does_not_wear_the_tpm_out(enrolled):
    with enrolled.tpm() as tpm:
        before = read_counter(tpm).value
        with pytest.raises(UsageError) as caught:
            advance_counter(tpm, DEFAULT_INDEX, before + STEPS + 1)
        assert caught.value.reason == "counter-far"
        assert read_counter(tpm).value == before


def test_one_that_is_not_there_or_was_never_counted_is_missing(enrolled):
    with enrolled.tpm() as tpm, pytest.raises(VerificationError) as caught:
        read_counter(tpm, DEFAULT_INDEX + 1)
    assert caught.value.reason == "counter-missing"
    attributes = "nt=counter|ownerwrite|authread|no_da"
    enrolled.machine.tool("nvdefine", hex(DEFAULT_INDEX + 1), "-C", "o", "-s", 8, "-a", attributes)
    with enrolled.tpm() as tpm:
        with pytest.raises(VerificationError) as caught:
            read_counter(tpm, DEFAULT_INDEX + 1)
        assert caught.value.reason == "counter-missing"
        assert make_counter(tpm, DEFAULT_INDEX + 1).value == 1


def test_an_owner_with_a_password_is_said_to_be_the_reason(enrolled):
    enrolled.machine.tool("changeauth", "-c", "owner", "secret")
    with enrolled.tpm() as tpm:
        value = read_counter(tpm).value
        with pytest.raises(TpmError) as caught:
            advance_counter(tpm, DEFAULT_INDEX, value + 1)
        assert caught.value.reason == "owner-auth"
        with pytest.raises(VerificationError) as missing:
            read_counter(tpm, DEFAULT_INDEX + 1)
        assert missing.value.reason == "counter-missing"
        assert read_counter(tpm).value == value


def test_whose_counter_it_is_can_be_pinned(enrolled):
    name = bytes.fromhex(enrolled.enrolment.srk.name)
    with enrolled.tpm() as tpm:
        assert read_counter(tpm, srk_name=name) == read_counter(tpm)
        with pytest.raises(VerificationError) as caught:
            read_counter(tpm, srk_name=name[::-1])
    assert caught.value.reason == "srk-name"


@pytest.mark.parametrize("index", [0, 0x00FFFFFF, 0x02000000, 0x81000001, -1])
def test_other_handles_are_no_indices(enrolled, index):
    with enrolled.tpm() as tpm, pytest.raises(UsageError) as caught:
        read_counter(tpm, index)
    assert caught.value.reason == "counter-index"


@pytest.mark.parametrize(
    "attributes", ["ownerwrite|ownerread|authread|no_da", "nt=counter|ownerwrite|ownerread|no_da"]
)
def test_what_can_be_set_back_or_not_be_read_by_all_is_no_counter(enrolled, attributes):
    index = DEFAULT_INDEX + 1
    enrolled.machine.tool("nvdefine", hex(index), "-C", "o", "-s", 8, "-a", attributes)
    for use in (read_counter, make_counter):
        with enrolled.tpm() as tpm, pytest.raises(VerificationError) as caught:
            use(tpm, index)
        assert caught.value.reason == "counter-kind"


def test_that_it_was_advanced_is_what_the_tpm_itself_says(enrolled):
    """An answer that something between made up is not taken for it."""

    def made_up(command, response):
        if code_of(command) != 0x134:
            return response
        return response[:-1] + bytes([response[-1] ^ 1])

    with enrolled.tpm() as tpm:
        value = read_counter(tpm).value
    with enrolled.through(change=made_up) as (tpm, _), pytest.raises(TpmError) as caught:
        advance_counter(tpm, DEFAULT_INDEX, value + 1)
    assert caught.value.reason == "tpm-response"
