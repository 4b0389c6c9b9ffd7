"""The mount bundle as a document: one encoding, nothing that contradicts itself, trusted only when signed."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfsbuild.errors import CfsError, UsageError, VerificationError
from cfsbuild.trust import bundle as bundles
from cfsbuild.trust import dsse
from cfsbuild.trust.bundle import (
    Bundle,
    Counter,
    Machine,
    State,
    Upper,
    check_generation,
    check_not_expired,
    decode_bundle,
    encode_bundle,
    is_envelope_of_bundle,
    kernel_features,
    payload_type_of,
    secrets_of,
    type_of,
    verify_bundle,
    with_secrets,
)
from cfsbuild.trust.statement import check_is_called, image_file

NAME = "000b" + "ab" * 32


def bundle(**changes):
    verity = changes.get("verity", "require")
    made = Bundle(
        type=type_of(verity, changes.get("upper")),
        name="edge",
        version="2026.8",
        generation=7,
        image=image_file(bytes(range(32)), 1, 4096),
        objects=["objects"],
        verity="require",
        ro=True,
        upper=None,
        state=None,
        kernel=kernel_features(verity),
        target=None,
        not_after=None,
        secrets={},
    )
    return msgspec.structs.replace(made, **changes)


def test_a_bundle_is_one_line_of_json_with_every_field():
    assert encode_bundle(bundle()) == (
        b'{"generation":7,"image":{"digest":"fsverity-sha256-12:'
        b'000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f","format":"erofs.v1","size":4096},'
        b'"kernel":["fs-verity","overlay-data-only","overlay-verity"],"name":"edge","not_after":null,'
        b'"objects":["objects"],"ro":true,"secrets":{},"state":null,"target":null,"type":"cfsbuild.mount",'
        b'"upper":null,"v":1,"verity":"require","version":"2026.8"}'
    )


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"verity": "off"},
        {"ro": False, "upper": Upper("rw/upper", "rw/work")},
        {"state": State(directory="state/edge", etc="bind", var="read-only")},
        {"target": Machine(NAME, Counter(0x1800100, NAME, 41)), "not_after": 0},
        {"secrets": {"wifi.psk": "c2VjcmV0"}},
        {"objects": ["a/b", "c-d_e.f@g+h"]},
    ],
)
def test_what_can_be_written_is_read_back(changes):
    made = bundle(**changes)
    assert decode_bundle(encode_bundle(made)) == made


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"verity": "off", "type": "cfsbuild.mount"}, "does not go with verity off"),
        ({"type": "cfsbuild.mount-insecure"}, "does not go with verity require"),
        ({"ro": False}, "`ro`"),
        ({"upper": Upper("a", "b")}, "`ro`"),
        (
            {
                "ro": False,
                "upper": Upper("a", "b"),
                "state": State(directory="s", etc="bind", var="bind"),
            },
            "`state` says nothing",
        ),
        ({"ro": False, "upper": Upper("a", "a/w")}, "lie in the other"),
        ({"ro": False, "upper": Upper("a", "a")}, "lie in the other"),
        ({"ro": False, "upper": Upper("a", "b"), "type": "cfsbuild.mount"}, "upper"),
        ({"objects": []}, "objects"),
        ({"objects": ["a", "a"]}, "twice"),
        ({"objects": ["../a"]}, "objects"),
        ({"objects": ["/a"]}, "objects"),
        ({"objects": ["a//b"]}, "objects"),
        ({"objects": ["a/./b"]}, "objects"),
        ({"objects": ["a\n"]}, "objects"),
        ({"objects": ["a$(b)"]}, "objects"),
        ({"objects": ["a,b"]}, "objects"),
        ({"objects": [f"o{number}" for number in range(17)]}, "objects"),
        ({"kernel": ["overlay-verity", "fs-verity"]}, "sorted"),
        ({"kernel": ["fs-verity", "fs-verity"]}, "none twice"),
        ({"kernel": ["time-travel"]}, "kernel"),
        ({"generation": -1}, "generation"),
        ({"generation": True}, "generation"),
        ({"generation": 1 << 54}, "generation"),
        ({"not_after": -1}, "not_after"),
        ({"name": ""}, "name"),
        ({"name": "a b"}, "name"),
        ({"secrets": {"-a": ""}}, "name of a secret"),
        ({"secrets": {"a/b": ""}}, "name of a secret"),
        ({"secrets": {"a": "c2VjcmV"}}, "secret a"),
        ({"secrets": {"a": "c2VjcmV1"[:-1] + "="}}, "secret a"),
        ({"target": Machine("000b", None)}, "target"),
        ({"target": Machine(NAME, Counter(1, NAME, 0))}, "index"),
    ],
)
def test_what_contradicts_itself_or_could_be_misread_is_refused(changes, words):
    with pytest.raises(UsageError, match="cannot be a mount bundle") as caught:
        encode_bundle(bundle(**changes))
    assert words in caught.value.details


@pytest.mark.parametrize("field", sorted(msgspec.to_builtins(bundle())))
def test_no_field_has_a_default(field):
    document = msgspec.to_builtins(bundle())
    del document[field]
    if field == "v":
        document["v"] = 2
    data = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    with pytest.raises(VerificationError) as caught:
        decode_bundle(data)
    assert caught.value.reason == "malformed"


def test_an_unknown_field_is_refused():
    document = {**msgspec.to_builtins(bundle()), "zzz": 1}
    with pytest.raises(VerificationError, match="malformed"):
        decode_bundle(json.dumps(document, sort_keys=True, separators=(",", ":")).encode())


def signed(made, key):
    return dsse.sign(payload_type_of(made), encode_bundle(made), key)


def test_a_signed_bundle_is_taken_from_a_trusted_key_only(key_of):
    mine, other = key_of("ed25519"), key_of("ed25519", 1)
    envelope = signed(bundle(), mine)
    assert is_envelope_of_bundle(envelope)
    opened = verify_bundle(envelope, [mine.public_key()])
    assert opened.bundle == bundle()
    with pytest.raises(VerificationError) as caught:
        verify_bundle(envelope, [other.public_key()])
    assert caught.value.reason == "signature-missing"


def test_an_insecure_bundle_is_never_taken_for_a_secure_one(key_of):
    key = key_of("ed25519")
    made = bundle(verity="off")
    with pytest.raises(VerificationError) as caught:
        verify_bundle(signed(made, key), [key.public_key()])
    assert caught.value.reason == "insecure"
    assert verify_bundle(signed(made, key), [key.public_key()], allow_insecure=True).bundle == made
    # Even who has the key cannot sign one under the other's type.
    wrong = dsse.sign(bundles.PAYLOAD_TYPE, encode_bundle(made), key)
    with pytest.raises(VerificationError) as caught:
        verify_bundle(wrong, [key.public_key()], allow_insecure=True)
    assert caught.value.reason == "malformed"


def test_a_signature_of_something_else_is_no_bundle(key_of):
    key = key_of("ed25519")
    envelope = dsse.sign("application/x-other", encode_bundle(bundle()), key)
    assert not is_envelope_of_bundle(envelope)
    with pytest.raises(VerificationError) as caught:
        verify_bundle(envelope, [key.public_key()])
    assert caught.value.reason == "payload-type"


def test_every_flipped_bit_and_every_cut_is_refused(key_of):
    key = key_of("ed25519")
    envelope = signed(bundle(), key)
    trusted = [key.public_key()]
    for position in range(len(envelope) * 8):
        flipped = bytearray(envelope)
        flipped[position // 8] ^= 1 << position % 8
        with pytest.raises(VerificationError) as caught:
            verify_bundle(bytes(flipped), trusted)
        assert caught.value.reason
    for length in range(len(envelope)):
        with pytest.raises(VerificationError):
            verify_bundle(envelope[:length], trusted)


def test_expiry_generation_and_name_have_reasons_of_their_own():
    made = bundle(not_after=100)
    check_not_expired(made, 100)
    check_generation(made, 7)
    check_is_called(made, "edge", None)
    for check, arguments, reason in (
        (check_not_expired, (101,), "expired"),
        (check_generation, (8,), "rollback"),
        (check_is_called, ("other", None), "signature-other-name"),
        (check_is_called, (None, "2026.9"), "signature-other-name"),
    ):
        with pytest.raises(VerificationError) as caught:
            check(made, *arguments)
        assert caught.value.reason == reason


def test_secrets_go_in_and_come_out():
    secrets = {"a": b"\0\xff", "b": b""}
    assert secrets_of(decode_bundle(encode_bundle(with_secrets(bundle(), secrets)))) == secrets


@given(st.binary(max_size=300))
def test_any_bytes_give_a_bundle_or_an_error(data):
    with pytest.raises(CfsError):
        decode_bundle(data)
