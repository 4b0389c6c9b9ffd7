"""Credentials: what cannot be one is refused. Whether systemd opens them, the lab says."""

import base64

import pytest

from cfsbuild.errors import InputError, UsageError
from cfsbuild.trust import credential
from cfsbuild.trust.credential import Conditions
from cfsbuild.trust.tpm.structures import LEGACY_PRIMARY, SRK_RSA, EccPublic, signer_public

ZERO = {7: bytes(32)}


@pytest.fixture
def parent(key_of):
    point = signer_public(key_of("p256").public_key())
    return EccPublic(
        attributes=LEGACY_PRIMARY.attributes, symmetric=LEGACY_PRIMARY.symmetric, x=point.x, y=point.y
    )


def refused(parent, *, payload=b"x", name="cfs.mount", conditions=None):
    with pytest.raises((UsageError, InputError)) as caught:
        credential.encrypt(
            payload,
            name=name,
            parent=parent,
            conditions=Conditions(ZERO) if conditions is None else conditions,
        )
    return caught.value.reason


def test_a_credential_is_text_that_hides_its_payload(parent):
    text = credential.encrypt(b"payload" * 99, name="cfs.mount", parent=parent, conditions=Conditions(ZERO))
    assert text.isascii()
    assert max(map(len, text.splitlines())) == 76
    assert b"payload" not in base64.b64decode(text)
    assert b"cfs.mount" not in base64.b64decode(text)


@pytest.mark.parametrize("name", ["", "a/b", "..", ".", "é", "a\0b", "a\nb", "x" * 256])
def test_a_credential_is_called_as_a_file_can_be(parent, name):
    assert refused(parent, name=name) == "name"


def test_there_is_a_condition_and_a_bound(parent, key_of):
    assert refused(parent, conditions=Conditions({})) == "policy"
    assert refused(parent, conditions=Conditions({24: bytes(32)})) == "pcr"
    assert refused(parent, payload=bytes((1 << 20) + 1)) == "payload"


@pytest.mark.parametrize("algorithm", ["p256", "rsa3072", "ed25519"])
def test_systemd_takes_rsa_2048_for_signed_registers_only(parent, key_of, algorithm):
    signer = key_of(algorithm).public_key()
    assert refused(parent, conditions=Conditions({}, signer)) == "key-algorithm"


def test_systemd_has_its_key_on_p256(parent):
    assert refused(SRK_RSA) == "parent"
