"""Envelopes: only what trusted keys signed comes out, and any change to one is refused."""

import base64
import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from hypothesis import given
from hypothesis import strategies as st

from cfsbuild.errors import CfsError, InputError, UsageError, VerificationError
from cfsbuild.trust import dsse
from cfsbuild.trust.keys import key_id, sign

TYPE = "application/x-test"
PAYLOAD = b'{"a":1}'


@pytest.fixture
def alice(key_of):
    return key_of("ed25519", 1)


@pytest.fixture
def bob(key_of):
    return key_of("p256", 2)


@pytest.fixture
def both(alice, bob):
    return dsse.merge(dsse.sign(TYPE, PAYLOAD, alice), dsse.sign(TYPE, PAYLOAD, bob))


def reason_of(data, keys, threshold=1, kind=TYPE):
    with pytest.raises(VerificationError) as caught:
        dsse.verify(data, kind, [key.public_key() for key in keys], threshold)
    return caught.value.reason


def test_what_is_signed_is_as_the_protocol_says():
    assert (
        dsse.pae("http://example.com/HelloWorld", b"hello world")
        == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


def test_the_payload_comes_out_with_the_keys_that_vouch_for_it(alice, bob, both):
    opened = dsse.verify(both, TYPE, [alice.public_key(), bob.public_key()], 2)
    assert opened.payload == PAYLOAD
    assert set(opened.key_ids) == {key_id(alice.public_key()), key_id(bob.public_key())}


def test_the_envelope_is_json_that_other_programs_read(alice):
    document = json.loads(dsse.sign(TYPE, PAYLOAD, alice))
    assert base64.b64decode(document["payload"]) == PAYLOAD
    assert document["payloadType"] == TYPE
    assert [signature["keyid"] for signature in document["signatures"]] == [key_id(alice.public_key())]


def test_a_signature_by_another_key_is_missing(alice, bob):
    assert reason_of(dsse.sign(TYPE, PAYLOAD, alice), [bob]) == "signature-missing"


def test_another_key_under_a_trusted_name_is_invalid(alice, key_of):
    mallory = key_of("ed25519", 3)
    document = json.loads(dsse.sign(TYPE, PAYLOAD, mallory))
    document["signatures"][0]["keyid"] = key_id(alice.public_key())
    forged = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    assert reason_of(forged, [alice]) == "signature-invalid"


def test_one_wrong_signature_of_a_trusted_key_spoils_the_good_one(alice, bob, both):
    document = json.loads(both)
    for signature in document["signatures"]:
        if signature["keyid"] == key_id(bob.public_key()):
            signature["sig"] = base64.b64encode(sign(bob, b"other")).decode()
    spoiled = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    assert reason_of(spoiled, [alice, bob]) == "signature-invalid"
    # Who does not know bob never looks at his.
    assert dsse.verify(spoiled, TYPE, [alice.public_key()]).payload == PAYLOAD


def test_fewer_signatures_than_asked_for_are_not_enough(alice, bob):
    assert reason_of(dsse.sign(TYPE, PAYLOAD, alice), [alice, bob], 2) == "signature-threshold"


def test_one_key_given_twice_counts_once(alice):
    envelope = dsse.sign(TYPE, PAYLOAD, alice)
    with pytest.raises(UsageError, match="1 different keys"):
        dsse.verify(envelope, TYPE, [alice.public_key(), alice.public_key()], 2)


def test_no_threshold_and_no_keys_are_never_enough(alice):
    envelope = dsse.sign(TYPE, PAYLOAD, alice)
    for trusted, threshold in (([], 1), ([alice.public_key()], 0), ([], 0)):
        with pytest.raises(UsageError):
            dsse.verify(envelope, TYPE, trusted, threshold)


def test_a_payload_of_another_type_is_refused(alice):
    envelope = dsse.sign(TYPE, PAYLOAD, alice)
    assert reason_of(envelope, [alice], kind="application/x-other") == "payload-type"


def test_a_revoked_key_never_counts(alice, bob, both):
    alices, bobs = (key_id(key.public_key()) for key in (alice, bob))
    trusted = [alice.public_key(), bob.public_key()]
    assert dsse.verify(both, TYPE, trusted, revoked=[alices]).key_ids == (bobs,)
    for threshold, revoked, reason in (
        (2, [alices], "signature-threshold"),
        (1, [alices, bobs], "key-revoked"),
        (2, {alices: "lost", bobs: "stolen"}, "key-revoked"),
    ):
        with pytest.raises(VerificationError) as caught:
            dsse.verify(both, TYPE, trusted, threshold, revoked=revoked)
        assert caught.value.reason == reason
        assert f"{alices} (revoked)" in caught.value.details


def test_who_signed_nothing_is_not_missed_because_of_being_revoked(alice, bob):
    by_alice = dsse.sign(TYPE, PAYLOAD, alice)
    bobs = key_id(bob.public_key())
    with pytest.raises(VerificationError) as caught:
        dsse.verify(by_alice, TYPE, [bob.public_key()], revoked=[bobs])
    assert caught.value.reason == "signature-missing"
    assert dsse.verify(by_alice, TYPE, [alice.public_key()], revoked=[bobs]).payload == PAYLOAD


@pytest.mark.parametrize(
    "change", [str.upper, lambda name: name[:-1], lambda name: f"{name}\n", lambda _: ""]
)
def test_an_id_that_no_key_has_revokes_nothing_and_is_an_error(alice, change):
    envelope = dsse.sign(TYPE, PAYLOAD, alice)
    name = change(key_id(alice.public_key()))
    with pytest.raises(UsageError) as caught:
        dsse.verify(envelope, TYPE, [alice.public_key()], revoked=[name])
    assert caught.value.reason == "key-id"
    # Nor is one id in place of a list of them.
    with pytest.raises(UsageError):
        dsse.verify(envelope, TYPE, [alice.public_key()], revoked=key_id(alice.public_key()))


def test_a_wrong_signature_of_a_revoked_key_spoils_nothing(alice, bob, both):
    bobs = key_id(bob.public_key())
    document = json.loads(both)
    for signature in document["signatures"]:
        if signature["keyid"] == bobs:
            signature["sig"] = base64.b64encode(b"no signature").decode()
    spoiled = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    trusted = [alice.public_key(), bob.public_key()]
    assert reason_of(spoiled, [alice, bob]) == "signature-invalid"
    assert dsse.verify(spoiled, TYPE, trusted, revoked=[bobs]).payload == PAYLOAD


def test_a_key_by_which_anybody_can_sign_is_not_trusted(alice):
    weak = ed25519.Ed25519PublicKey.from_public_bytes((1).to_bytes(32, "little"))
    with pytest.raises(InputError) as caught:
        dsse.verify(dsse.sign(TYPE, PAYLOAD, alice), TYPE, [alice.public_key(), weak])
    assert caught.value.reason == "key-weak"


def test_an_rsa_key_signs_no_documents(key_of):
    with pytest.raises(UsageError, match="rsa2048"):
        dsse.sign(TYPE, PAYLOAD, key_of("rsa2048"))


@pytest.mark.parametrize("algorithm", ["ed25519", "p256"])
def test_every_flipped_bit_is_refused(key_of, algorithm):
    key = key_of(algorithm, 1)
    envelope = dsse.sign(TYPE, PAYLOAD, key)
    reasons = set()
    for position in range(8 * len(envelope)):
        data = bytearray(envelope)
        data[position // 8] ^= 1 << position % 8
        reasons.add(reason_of(bytes(data), [key]))
    assert {"malformed", "signature-invalid", "signature-missing", "payload-type"} <= reasons


def test_every_shorter_file_is_refused(alice, both):
    for length in range(len(both)):
        assert reason_of(both[:length], [alice]) == "malformed"


def test_an_unknown_field_is_refused(alice):
    document = json.loads(dsse.sign(TYPE, PAYLOAD, alice))
    for place in (document, document["signatures"][0]):
        place["more"] = ""
        assert (
            reason_of(json.dumps(document, sort_keys=True, separators=(",", ":")).encode(), [alice])
            == "malformed"
        )
        del place["more"]


@pytest.mark.parametrize("count", [0, 17])
def test_there_are_one_to_sixteen_signatures(alice, count):
    signatures = [{"keyid": f"{number:032x}", "sig": ""} for number in range(count)]
    document = {"payload": "", "payloadType": TYPE, "signatures": signatures}
    data = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    assert reason_of(data, [alice]) == "malformed"


def test_a_key_may_not_sign_twice(alice):
    document = json.loads(dsse.sign(TYPE, PAYLOAD, alice))
    document["signatures"] *= 2
    assert (
        reason_of(json.dumps(document, sort_keys=True, separators=(",", ":")).encode(), [alice])
        == "malformed"
    )


def test_merging_adds_and_replaces(alice, bob, both):
    assert dsse.merge(both, dsse.sign(TYPE, PAYLOAD, bob)) == both
    assert dsse.merge(both, dsse.sign(TYPE, b"other", bob)) is None
    assert dsse.merge(both, dsse.sign("other", PAYLOAD, bob)) is None


def test_an_attached_signature_is_verified_first(alice, bob):
    message = dsse.pae(TYPE, PAYLOAD)
    assert dsse.attach(TYPE, PAYLOAD, alice.public_key(), sign(alice, message)) == dsse.sign(
        TYPE, PAYLOAD, alice
    )
    for wrong in (b"", sign(alice, PAYLOAD), sign(bob, message)):
        with pytest.raises(VerificationError) as caught:
            dsse.attach(TYPE, PAYLOAD, alice.public_key(), wrong)
        assert caught.value.reason == "signature-invalid"


@given(data=st.data())
def test_damage_anywhere_is_an_expected_error(key_of, data):
    key = key_of("ed25519", 1)
    whole = dsse.sign(TYPE, PAYLOAD, key)
    start = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(start, len(whole)))
    changed = whole[:start] + data.draw(st.binary(max_size=20)) + whole[end:]
    try:
        opened = dsse.verify(changed, TYPE, [key.public_key()])
    except CfsError:
        return
    assert changed == whole
    assert opened.payload == PAYLOAD
