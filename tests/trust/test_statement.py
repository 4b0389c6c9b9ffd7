"""What is signed of an image."""

import pytest

from cfsbuild.errors import UsageError, VerificationError
from cfsbuild.trust.statement import (
    ImageStatement,
    check_is_about,
    decode_statement,
    encode_statement,
    image_file,
)

FILE = image_file(bytes(range(32)), 1, 4096)


def statement(name="edge", version="2026.8"):
    return ImageStatement(name=name, version=version, image=FILE)


def test_a_statement_is_one_line_of_json():
    assert encode_statement(statement()) == (
        b'{"image":{"digest":"fsverity-sha256-12:'
        b'000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",'
        b'"format":"erofs.v1","size":4096},"name":"edge","type":"cfsbuild.image","v":1,"version":"2026.8"}'
    )
    assert decode_statement(encode_statement(statement())) == statement()


def test_a_sha512_image_is_named_as_composefs_rs_names_it():
    assert image_file(bytes(64), 0, 1).digest == "fsverity-sha512-12:" + "00" * 64


@pytest.mark.parametrize("name", ["", "a b", "a\n", "é", "x" * 256, "\0"])
def test_names_that_people_could_mistake_are_refused(name):
    with pytest.raises(UsageError, match="cannot be signed"):
        encode_statement(statement(name=name))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"v":1', b'"v":2'),
        (b"cfsbuild.image", b"cfsbuild.mount"),
        (b"sha256-12", b"sha256-16"),
        (b"sha256-12", b"sha512-12"),
        (b"erofs.v1", b"erofs.v2"),
        (b'"size":4096', b'"size":0'),
        (b'"size":4096', b'"size":4096.0'),
        (b"0a0b", b"0A0B"),
        (b'"version":"2026.8"', b'"version":null'),
    ],
)
def test_anything_else_is_malformed(old, new):
    data = encode_statement(statement())
    assert old in data
    with pytest.raises(VerificationError) as caught:
        decode_statement(data.replace(old, new))
    assert caught.value.reason == "malformed"


@pytest.mark.parametrize(
    "other", [(bytes(32), 1, 4096), (bytes(range(32)), 0, 4096), (bytes(range(32)), 1, 8192)]
)
def test_a_statement_about_another_file_is_refused(other):
    check_is_about(statement(), FILE, "a.cfs")
    with pytest.raises(VerificationError, match=r"not of a\.cfs") as caught:
        check_is_about(statement(), image_file(*other), "a.cfs")
    assert caught.value.reason == "signature-other-image"


def test_an_image_of_an_unknown_format_is_not_signed():
    with pytest.raises(UsageError, match="format 2"):
        image_file(bytes(32), 2, 1)
