"""Structures of TPM 2.0: bytes in, the same bytes out, and nothing else goes in."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfsbuild.errors import CfsError, InputError, UsageError
from cfsbuild.trust.keys import sign
from cfsbuild.trust.tpm.structures import (
    LEGACY_PRIMARY,
    SRK_ECC,
    SRK_RSA,
    KeyedHashPublic,
    NvPublic,
    decode_nv_public,
    decode_public,
    encode_nv_public,
    encode_public,
    encode_signature,
    name_of,
    pcr_selection,
    public_key,
    signer_public,
)

SEALED = KeyedHashPublic(attributes=0x480, auth_policy=bytes(32), unique=b"u" * 32)
COUNTER = NvPublic(index=0x1800100, attributes=0x2004001A, auth_policy=b"p" * 32)


@pytest.mark.parametrize("public", [SRK_ECC, SRK_RSA, LEGACY_PRIMARY, SEALED])
def test_a_public_area_is_read_as_it_was_written(public):
    assert decode_public(encode_public(public)) == public
    assert decode_nv_public(encode_nv_public(COUNTER)) == COUNTER
    assert len(name_of(public)) == len(name_of(COUNTER)) == 34


@pytest.mark.parametrize("public", [SRK_ECC, SRK_RSA, SEALED])
def test_every_shorter_and_every_longer_public_area_is_refused(public):
    whole = encode_public(public)
    for wrong in [whole[:length] for length in range(len(whole))] + [whole + b"\0"]:
        with pytest.raises(InputError) as caught:
            decode_public(wrong)
        assert caught.value.reason == "tpm-structure"


@given(data=st.data())
def test_a_damaged_public_area_is_refused_or_means_something_else(data):
    whole = encode_public(data.draw(st.sampled_from([SRK_ECC, SRK_RSA, SEALED])))
    at = data.draw(st.integers(0, len(whole)))
    changed = whole[:at] + data.draw(st.binary(max_size=8)) + whole[data.draw(st.integers(at, len(whole))) :]
    for decode, encode in ((decode_public, encode_public), (decode_nv_public, encode_nv_public)):
        with contextlib.suppress(CfsError):
            assert encode(decode(changed)) == changed


@pytest.mark.parametrize("algorithm", ["p256", "rsa2048"])
def test_a_signer_is_the_key_that_it_was(key_of, algorithm):
    key = key_of(algorithm).public_key()
    assert public_key(signer_public(key)) == key


@pytest.mark.parametrize("algorithm", ["ed25519", "rsa3072"])
def test_other_keys_sign_no_policies(key_of, algorithm):
    with pytest.raises(UsageError, match="no policies"):
        signer_public(key_of(algorithm).public_key())


@pytest.mark.parametrize("public", [SRK_ECC, SRK_RSA, SEALED])
def test_a_template_is_no_key(public):
    with pytest.raises(InputError, match="public key"):
        public_key(public)


def test_a_signature_has_whole_numbers_or_is_refused(key_of):
    ecc, rsa = key_of("p256"), key_of("rsa2048")
    assert len(encode_signature(ecc.public_key(), sign(ecc, b"m"))) == 72
    assert len(encode_signature(rsa.public_key(), sign(rsa, b"m"))) == 262
    with pytest.raises(InputError, match="signature"):
        encode_signature(ecc.public_key(), b"no DER")


def test_registers_are_bits_from_the_lowest_byte_on():
    assert pcr_selection(frozenset({7, 11, 15})).hex() == "00000001000b03808800"
