"""DER: openssl reads what is written, and nothing but DER is read."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfsbuild.trust import der


@pytest.mark.parametrize("size", [0, 1, 127, 128, 255, 256, 65535, 65536])
def test_openssl_reads_elements_of_every_length(openssl, size):
    written = der.encode(der.SEQUENCE, der.encode(der.OCTET_STRING, bytes(size)))
    lines = openssl("asn1parse", "-inform", "DER", given=written).decode().splitlines()
    found = [re.search(r"l= *(\d+) (?:prim|cons): (\w+)", line).groups() for line in lines]
    assert found == [(str(len(der.only(written, der.SEQUENCE))), "SEQUENCE"), (str(size), "OCTET")]


def test_elements_come_apart_as_they_were_put_together():
    data = der.encode(der.SET, b"ab") + der.encode(der.OCTET_STRING, bytes(300))
    assert [(element.tag, len(element.content)) for element in der.elements(data)] == [
        (der.SET, 2),
        (der.OCTET_STRING, 300),
    ]
    assert b"".join(element.whole for element in der.elements(data)) == data


@pytest.mark.parametrize(
    "data",
    [
        b"\x30",
        b"\x30\x01",
        b"\x30\x80\x00\x00",  # of indefinite length
        b"\x30\x81\x01\x00",  # a longer length than needed
        b"\x30\x82\x00\x80" + bytes(128),
        b"\x30\x85\x00\x00\x00\x00\x01\x00",
        b"\x30\xff",
        b"\x1f\x81\x01\x00",  # a tag of several bytes
        b"\x30\x84\xff\xff\xff\xff",
    ],
)
def test_what_is_no_der_is_refused(data):
    with pytest.raises(ValueError, match=r"DER|length|tag"):
        der.elements(data)


def test_only_one_element_of_the_tag_is_taken():
    assert der.only(b"\x04\x01x", der.OCTET_STRING) == b"x"
    for wrong in (b"", b"\x04\x01x\x04\x01x", b"\x30\x00"):
        with pytest.raises(ValueError, match="not one element"):
            der.only(wrong, der.OCTET_STRING)


@given(st.binary(max_size=60))
def test_what_is_read_is_what_would_be_written(data):
    try:
        found = der.elements(data)
    except ValueError:
        return
    assert b"".join(der.encode(element.tag, element.content) for element in found) == data
