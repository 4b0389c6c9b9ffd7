"""Sealed bundles: the machines they are for open them, and no byte of them can be another."""

import contextlib

import pytest
import swtpm
from hypothesis import given
from hypothesis import strategies as st
from tpm_tools import Device

from cfsbuild.errors import CfsError, UsageError, VerificationError
from cfsbuild.trust import sealed
from cfsbuild.trust.sealed import Recipient, open_sealed, parse
from cfsbuild.trust.tpm import offline, policy
from cfsbuild.trust.tpm.numbers import Attribute
from cfsbuild.trust.tpm.structures import SRK_ECC, SRK_RSA, EccPublic, RsaPublic, Symmetric, signer_public

PAYLOAD = b'{"payload":"..."}'
POLICY = policy.pcr(policy.START, {7: bytes(32)})


def storage_key(key):
    public = signer_public(key.public_key())
    numbers = {"x": public.x, "y": public.y} if isinstance(public, EccPublic) else {"modulus": public.modulus}
    template = SRK_ECC if isinstance(public, EccPublic) else SRK_RSA
    kind = EccPublic if isinstance(public, EccPublic) else RsaPublic
    return kind(attributes=template.attributes, symmetric=Symmetric(), **numbers)


@pytest.fixture
def recipients(key_of):
    keys = [key_of("p256"), key_of("p256", 1), key_of("rsa2048")]
    return [Recipient(storage_key(key), POLICY, b"1234" if key is keys[1] else b"") for key in keys]


@pytest.fixture
def remembered(monkeypatch):
    """Remember what is sealed: the keys that a TPM would release."""
    secrets = []
    real = offline.seal

    def seal(secret, *arguments):
        secrets.append(secret)
        return real(secret, *arguments)

    monkeypatch.setattr(offline, "seal", seal)
    return secrets


def reason_of(data, key):
    with pytest.raises(VerificationError) as caught:
        open_sealed(parse(data), lambda _: key)
    return caught.value.reason


def test_a_machine_opens_what_was_sealed_for_it_and_others(tmp_path):
    with swtpm.running(tmp_path / "a") as one, swtpm.running(tmp_path / "b") as two:
        for number in (1, 2):
            (tmp_path / f"{number}").mkdir()
        devices = [Device(one, tmp_path / "1", "ecc"), Device(two, tmp_path / "2", "rsa")]
        bundle = parse(sealed.seal(PAYLOAD, [Recipient(device.srk, POLICY) for device in devices]))
        # Keys are no text: tpm2_unseal writes them to a file.
        for device, slot in zip(devices, bundle.slots, strict=True):
            device.take_in(slot)
            key = tmp_path / "key"
            device.tool("unseal", "-c", device.work / "sealed.ctx", "-p", "pcr:sha256:7", "-o", key)
            mine = {slot: key.read_bytes()}
            assert open_sealed(bundle, mine.get) == PAYLOAD
            device.flush()
        devices[0].take_in(bundle.slots[1], ok=False)


def test_a_bundle_says_what_its_slots_need(recipients):
    bundle = parse(sealed.seal(PAYLOAD, recipients))
    publics = [sealed.slot_public(slot) for slot in bundle.slots]
    assert [not public.attributes & Attribute.NO_DA for public in publics] == [False, True, False]
    assert {public.auth_policy for public in publics} == {POLICY}
    assert b"payload" not in bundle.encrypted


def test_no_two_bundles_are_alike(recipients):
    one, two = (parse(sealed.seal(PAYLOAD, recipients)) for _ in range(2))
    assert one.encrypted != two.encrypted
    assert not set(one.slots) & set(two.slots)


def test_every_flipped_byte_is_refused(recipients, remembered):
    data = sealed.seal(PAYLOAD, recipients)
    assert open_sealed(parse(data), lambda _: remembered[0]) == PAYLOAD
    reasons = {}
    for position in range(len(data)):
        for flip in (0x01, 0x80):
            damaged = bytearray(data)
            damaged[position] ^= flip
            reasons[position] = reason_of(bytes(damaged), remembered[0])
            assert reasons[position] in {"sealed-malformed", "sealed-damaged"}
    assert set(reasons.values()) == {"sealed-malformed", "sealed-damaged"}


def test_every_shorter_and_every_longer_file_is_refused(recipients, remembered):
    data = sealed.seal(PAYLOAD, recipients)
    for length in range(len(data)):
        assert reason_of(data[:length], remembered[0]) in {"sealed-malformed", "sealed-damaged"}
    assert reason_of(data + b"\0", remembered[0]) == "sealed-damaged"
    assert reason_of(data + bytes(2 << 20), remembered[0]) == "sealed-malformed"


def test_a_key_of_another_bundle_or_length_opens_nothing(recipients, remembered):
    data = sealed.seal(PAYLOAD, recipients)
    assert reason_of(data, bytes(32)) == "sealed-damaged"
    assert reason_of(data, b"") == "sealed-damaged"
    assert reason_of(data, None) == "sealed-other-target"


def test_slots_cannot_be_moved_between_bundles(recipients, remembered):
    one = sealed.seal(PAYLOAD, recipients[:1])
    two = sealed.seal(PAYLOAD, recipients[:1])
    slot = sealed.encode_slot(parse(one).slots[0])
    moved = two[:7] + slot + two[7 + len(slot) :]
    assert reason_of(moved, remembered[1]) == "sealed-damaged"


@pytest.mark.parametrize("count", [0, 65])
def test_there_are_1_to_64_slots(recipients, count):
    with pytest.raises(UsageError, match="1 to 64") as caught:
        sealed.seal(PAYLOAD, recipients[:1] * count)
    assert caught.value.reason == "slots"


@pytest.mark.parametrize("payload", [b"", bytes((1 << 20) + 1)])
def test_a_document_has_a_byte_and_no_more_than_a_mebibyte(recipients, payload):
    with pytest.raises(UsageError) as caught:
        sealed.seal(payload, recipients[:1])
    assert caught.value.reason == "payload"


def test_as_much_as_is_allowed_is_read_again(recipients, remembered):
    payload = bytes(1 << 20)
    data = sealed.seal(payload, recipients[2:] * 64)
    assert open_sealed(parse(data), lambda _: remembered[0]) == payload


@given(data=st.data())
def test_damage_anywhere_is_an_expected_error(key_of, data):
    whole = sealed.seal(PAYLOAD, [Recipient(storage_key(key_of("p256")), POLICY)])
    at = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(at, len(whole)))
    damaged = whole[:at] + data.draw(st.binary(max_size=20)) + whole[end:]
    with contextlib.suppress(CfsError):
        bundle = parse(damaged)
        assert bundle.head + bundle.encrypted == damaged
        open_sealed(bundle, lambda _: bytes(32))
        pytest.fail("opened by another key")
