"""Keys and their signatures agree with openssl, in both directions."""

import hashlib

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa, utils

from cfsbuild.errors import InputError
from cfsbuild.trust import keys
from cfsbuild.trust.key_files import public_pem, write_key_pair
from cfsbuild.trust.keys import KeyAlgorithm

MESSAGE = b"what is signed \0 \xff" * 9
ALL = [algorithm.value for algorithm in KeyAlgorithm]


@pytest.mark.parametrize("algorithm", ALL)
def test_a_key_knows_its_kind(key_of, algorithm):
    key = key_of(algorithm)
    assert keys.algorithm_of(key).value == algorithm
    assert keys.algorithm_of(key.public_key()).value == algorithm


@pytest.mark.parametrize("algorithm", ALL)
def test_the_id_is_that_of_the_public_key_in_der(key_of, openssl, algorithm):
    public = key_of(algorithm).public_key()
    der = openssl("pkey", "-pubin", "-outform", "DER", given=public_pem(public))
    assert keys.key_id(public) == hashlib.sha256(der).hexdigest()[:32]


@pytest.mark.parametrize("algorithm", ALL)
def test_openssl_verifies_what_we_sign(key_of, openssl, tmp_path, algorithm):
    key = key_of(algorithm)
    for name, data in (
        ("message", MESSAGE),
        ("signature", keys.sign(key, MESSAGE)),
        ("public", public_pem(key.public_key())),
    ):
        (tmp_path / name).write_bytes(data)
    public, signature, message = (tmp_path / name for name in ("public", "signature", "message"))
    if algorithm == "ed25519":
        openssl(
            "pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", public, "-sigfile", signature, "-in", message
        )
    else:
        assert b"OK" in openssl("dgst", "-sha256", "-verify", public, "-signature", signature, message)


@pytest.mark.parametrize("algorithm", ALL)
def test_we_verify_what_openssl_signs(key_of, openssl, tmp_path, algorithm):
    key = key_of(algorithm)
    private, _ = write_key_pair(tmp_path / "k", key)
    (tmp_path / "message").write_bytes(MESSAGE)
    if algorithm == "ed25519":
        openssl(
            *("pkeyutl", "-sign", "-rawin", "-inkey", private),
            *("-in", tmp_path / "message", "-out", tmp_path / "signature"),
        )
    else:
        openssl("dgst", "-sha256", "-sign", private, "-out", tmp_path / "signature", tmp_path / "message")
    signature = (tmp_path / "signature").read_bytes()
    assert keys.verifies(key.public_key(), MESSAGE, signature)
    assert not keys.verifies(key.public_key(), MESSAGE + b"!", signature)


@pytest.mark.parametrize("algorithm", ALL)
def test_signing_again_gives_the_same_bytes(key_of, algorithm):
    assert keys.sign(key_of(algorithm), MESSAGE) == keys.sign(key_of(algorithm), MESSAGE)


@pytest.mark.parametrize("algorithm", ALL)
def test_no_other_bytes_are_a_signature(key_of, algorithm):
    key = key_of(algorithm)
    signature = keys.sign(key, MESSAGE)
    for wrong in (b"", signature[:-1], signature + b"\0", bytes(len(signature)), b"\x30" * 4000):
        assert not keys.verifies(key.public_key(), MESSAGE, wrong)


@pytest.mark.parametrize(
    ("what", "make"),
    [
        ("secp384r1", lambda: ec.generate_private_key(ec.SECP384R1())),
        ("secp256k1", lambda: ec.generate_private_key(ec.SECP256K1())),
        ("1024 bits", lambda: rsa.generate_private_key(65537, 1024)),  # noqa: S505 (refused)
        ("exponent of 2 bits", lambda: rsa.generate_private_key(3, 2048)),
        ("Ed448", ed448.Ed448PrivateKey.generate),
    ],
)
def test_keys_of_other_kinds_are_refused(what, make):
    for key in (make(), make().public_key()):
        with pytest.raises(InputError, match="cannot be used") as caught:
            keys.algorithm_of(key)
        assert caught.value.reason == "key-algorithm"
        assert what in caught.value.brief
        assert "ed25519, p256" in caught.value.resolution


def test_a_p256_key_whose_coordinate_begins_with_zero_signs_as_any_other(openssl, tmp_path):
    key = next(
        key
        for key in iter(lambda: keys.generate(KeyAlgorithm.P256), None)
        if key.public_key().public_numbers().x >> 248 == 0
    )
    public = tmp_path / "public"
    public.write_bytes(public_pem(key.public_key()))
    point = key.public_key().public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
    )
    assert point[1] == 0
    (tmp_path / "m").write_bytes(MESSAGE)
    (tmp_path / "s").write_bytes(keys.sign(key, MESSAGE))
    assert b"OK" in openssl(
        "dgst", "-sha256", "-verify", public, "-signature", tmp_path / "s", tmp_path / "m"
    )


FIELD = 2**255 - 19


def add(one, other):
    """Return the sum of two points of Ed25519's curve (RFC 8032, 5.1.4, in affine coordinates)."""
    d = -121665 * pow(121666, -1, FIELD) % FIELD
    (x1, y1), (x2, y2) = one, other
    k = d * x1 * x2 * y1 * y2
    return (
        (x1 * y2 + x2 * y1) * pow(1 + k, -1, FIELD) % FIELD,
        (y1 * y2 + x1 * x2) * pow(1 - k, -1, FIELD) % FIELD,
    )


def small_order_points():
    """Return the points whose multiples by 8 are the neutral one: those of x = 0, y = 0, and between."""
    root = pow(2, (FIELD - 1) // 4, FIELD)  # of -1: where y is 0
    # Doubling a point of order 8 gives y = 0, so x² = -y² there: d·y⁴ + 2·y² - 1 = 0.
    d = -121665 * pow(121666, -1, FIELD) % FIELD
    half = square_root((1 + d) % FIELD)
    (y,) = {
        y
        for sign in (1, -1)
        if (y := square_root((-1 + sign * half) * pow(d, -1, FIELD) % FIELD)) is not None
    }
    points = [(0, 1)]
    step = (root * y % FIELD, y)
    for _ in range(7):
        points.append(add(points[-1], step))
    assert add(points[-1], step) == points[0]
    return points


def square_root(value):
    root = pow(value, (FIELD + 3) // 8, FIELD)
    for candidate in (root, root * pow(2, (FIELD - 1) // 4, FIELD) % FIELD):
        if candidate * candidate % FIELD == value:
            return candidate
    return None


def test_ed25519_keys_by_which_anybody_can_sign_are_refused():
    points = small_order_points()
    assert len(set(points)) == 8
    encodings = {y + (sign << 255) for _, y in points for sign in (0, 1)}
    encodings |= {y + FIELD + (sign << 255) for _, y in points if y < 19 for sign in (0, 1)}
    for encoding in encodings:
        public = ed25519.Ed25519PublicKey.from_public_bytes(encoding.to_bytes(32, "little"))
        with pytest.raises(InputError, match="Ed25519") as caught:
            keys.algorithm_of(public)
        assert caught.value.reason == "key-weak"


def test_the_danger_is_real():
    # The neutral point, and R = the base point, S = 1: the equation S·B = R + k·A holds for every message.
    neutral = ed25519.Ed25519PublicKey.from_public_bytes((1).to_bytes(32, "little"))
    base = (4 * pow(5, -1, FIELD) % FIELD).to_bytes(32, "little")
    forged = base + (1).to_bytes(32, "little")
    assert keys.verifies(neutral, b"anything", forged)
    assert keys.verifies(neutral, b"anything else", forged)


@pytest.mark.parametrize("y", range(FIELD, 2**255))
def test_ed25519_keys_that_are_not_written_in_the_only_way_are_refused(y):
    for sign in (0, 1):
        public = ed25519.Ed25519PublicKey.from_public_bytes((y + (sign << 255)).to_bytes(32, "little"))
        with pytest.raises(InputError) as caught:
            keys.algorithm_of(public)
        assert caught.value.reason == "key-weak"


def test_two_numbers_of_32_bytes_are_a_p256_signature_too(key_of):
    key = key_of("p256")
    made = keys.sign(key, MESSAGE)
    raw = b"".join(number.to_bytes(32, "big") for number in utils.decode_dss_signature(made))
    assert keys.in_our_form(key.public_key(), MESSAGE, raw) == made
    assert keys.in_our_form(key.public_key(), MESSAGE, made) == made
    # They are taken where a signature is put in, and never where one is verified.
    assert not keys.verifies(key.public_key(), MESSAGE, raw)
    for wrong in (bytes(64), raw[:-1], raw[32:] + raw[:32], b"\xff" * 64):
        assert keys.in_our_form(key.public_key(), MESSAGE, wrong) is None
    assert keys.in_our_form(key_of("ed25519").public_key(), MESSAGE, raw) is None
