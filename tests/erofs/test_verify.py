import random

import pytest
import reader_images as images

from cfsbuild.erofs.reader import read_image
from cfsbuild.erofs.verify import verify_digest, verify_image
from cfsbuild.erofs.writer import write_image
from cfsbuild.errors import VerificationError
from cfsbuild.fsverity.algorithm import Algorithm
from cfsbuild.fsverity.digest import digest_bytes

GOOD = images.example()
# fsverity digest prints this for the image that mkcomposefs makes.
GOOD_DIGEST = bytes.fromhex("115947246ec012d695aaa0cbd80739a2d2d0e9c829963e89d18ab66d4ea6d37e")
BITS = len(GOOD) * 8


def flipped(bit):
    data = bytearray(GOOD)
    data[bit // 8] ^= 1 << bit % 8
    return bytes(data)


def failure(data, **options):
    with pytest.raises(VerificationError) as caught:
        verify_image(data, **options)
    error = caught.value
    assert error.exit_code == 5
    assert error.brief
    assert error.resolution
    return error


def test_what_the_writer_makes_verifies():
    verify_image(GOOD)
    verify_image(GOOD, expected=GOOD_DIGEST)
    verify_image(bytearray(GOOD))
    for format in (0, 1):  # noqa: A001
        verify_image(
            images.image(b"/ 4096 40755 2 0 0 0 1.0 - - -\n/w 0 20000 1 0 0 0 1.0 - - -\n", format=format)
        )


@pytest.mark.parametrize(
    ("offset", "replacement"),
    [
        (100, b"x"),  # header padding
        (1028, b"x"),  # superblock checksum
        (1072, b"x"),  # uuid
        (images.BIG + 12, b"x"),  # reserved field of an inode
        (images.BIG + 32, b"\0\0\0\0"),  # name filter
        (images.BIG + 20, b"\1\1"),  # inode number
        (images.SHARED + 12, b"x"),  # behind the shared attributes
        (images.ROOT_BLOCK + 4095, b"\0"),
        (8, b"\1"),  # the promise of ACLs
    ],
)
def test_what_no_dump_shows_is_still_verified(offset, replacement):
    data = images.patched(GOOD, [(offset, replacement)])
    if data == GOOD:
        verify_image(data)
    else:
        assert failure(data).reason == "not-canonical"


def test_a_hard_link_whose_file_comes_later_is_not_canonical():
    dump = b"/ 4096 40755 2 0 0 0 1.0 - - -\n/b 0 100644 2 0 0 0 1.0 - - -\n/a 0 @100644 2 0 0 0 1.0 /b - -\n"
    assert failure(images.image(dump)).reason == "not-canonical"


def test_the_error_names_place_and_offset():
    error = failure(images.patched(GOOD, [(100, b"x")]))
    assert "offset 100 (header)" in error.details


def test_damage_keeps_its_reason_and_becomes_a_verification_failure():
    assert failure(GOOD[:8192]).reason == "truncated"
    assert failure(b"").reason == "truncated"
    assert failure(bytes(20000)).reason == "magic"
    assert failure(GOOD + b"\0" * 4096).reason == "size"


@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_the_digest_is_compared_before_anything_is_read(algorithm):
    expected = digest_bytes(b"something", algorithm)
    verify_digest(b"something", expected)
    with pytest.raises(VerificationError) as caught:
        verify_digest(b"something else", expected)
    assert caught.value.reason == "digest-mismatch"
    assert expected.hex() in caught.value.details
    assert failure(b"no image", expected=expected).reason == "digest-mismatch"


def test_a_digest_of_no_known_length_is_refused():
    with pytest.raises(VerificationError) as caught:
        verify_digest(b"", b"123")
    assert caught.value.reason == "digest"


def assert_seen_or_shown(bit, entries):
    """A flipped bit must fail, or show in the tree, so that the image is the canonical one of another tree."""
    try:
        verify_image(flipped(bit))
    except VerificationError:
        return
    info = read_image(flipped(bit))
    changed = list(info.entries())
    assert changed != entries or info.format != 0, f"bit {bit} is hidden"
    assert bytes(write_image(changed, format=info.format)) == flipped(bit)


@pytest.mark.parametrize("part", range(4))
def test_a_flipped_bit_fails_or_shows_in_the_tree(part):
    entries = list(read_image(GOOD).entries())
    chosen = random.Random(part).sample(range(BITS // 4 * part, BITS // 4 * (part + 1)), 60)
    for bit in chosen:
        assert_seen_or_shown(bit, entries)


def missed_by_digest(bits):
    return [bit for bit in bits if digest_bytes(flipped(bit), Algorithm.SHA256) == GOOD_DIGEST]


def test_a_bit_flipped_in_every_byte_fails_against_the_digest():
    assert missed_by_digest(8 * byte + byte % 8 for byte in range(len(GOOD))) == []
    for bit in range(0, BITS, 1009):
        assert failure(flipped(bit), expected=GOOD_DIGEST).reason == "digest-mismatch"


@pytest.mark.slow
def test_every_flipped_bit_fails_against_the_digest():
    assert missed_by_digest(range(BITS)) == []


@pytest.mark.slow
def test_a_bit_flipped_in_every_byte_fails_or_shows_in_the_tree():
    entries = list(read_image(GOOD).entries())
    for byte in range(len(GOOD)):
        assert_seen_or_shown(8 * byte + byte * 5 % 8, entries)


@pytest.mark.slow
def test_every_bit_of_the_parts_that_steer_fails_or_shows_in_the_tree():
    entries = list(read_image(GOOD).entries())
    steering = [
        range(32),
        range(1024, 1280),
        range(images.BIG, images.BIG + 256),
        range(images.DIRECTORY, 8192),
    ]
    steering += [range(images.SYMLINK, images.SHARED + 32)]
    for part in steering:
        for bit in range(8 * part.start, 8 * part.stop):
            assert_seen_or_shown(bit, entries)
