"""The PKCS#7 signature: byte for byte that of `fsverity sign`; it is believed where openssl does, and only there."""

import base64
import shutil
import subprocess

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from cfsbuild.errors import InputError, UsageError, VerificationError
from cfsbuild.fsverity.algorithm import Algorithm
from cfsbuild.fsverity.digest import digest_bytes
from cfsbuild.trust import der, keys
from cfsbuild.trust.fsverity_signature import (
    attach,
    certified_key,
    formatted_digest,
    read_certificate,
    sign_digest,
    verify,
)

CONTENT = b"an image, say" * 3000
KINDS = ["rsa2048", "rsa3072", "p256"]


def digest(algorithm):
    return digest_bytes(CONTENT, algorithm)


def sign(signer, algorithm=Algorithm.SHA256):
    return sign_digest(signer.key, signer.certificate, digest(algorithm), algorithm)


def reason_of(data, signer, content=CONTENT, revoked=()):
    with pytest.raises(VerificationError) as caught:
        verify(data, signer.certificate, lambda algorithm: digest_bytes(content, algorithm), revoked=revoked)
    return caught.value.reason


def is_good(data, signer):
    return verify(data, signer.certificate, digest) == keys.key_id(signer.key.public_key())


@pytest.fixture
def theirs(tmp_path):
    """Return what `fsverity sign` makes of the content."""
    if shutil.which("fsverity") is None:
        pytest.skip("fsverity is not installed")
    (tmp_path / "file").write_bytes(CONTENT)

    def made(signer, algorithm):
        subprocess.run(
            [
                *("fsverity", "sign", tmp_path / "file", tmp_path / "theirs"),
                *(f"--key={signer.private}", f"--cert={signer.path}", f"--hash-alg={algorithm.value}"),
            ],
            check=True,
            capture_output=True,
        )
        return (tmp_path / "theirs").read_bytes()

    return made


@pytest.fixture
def smime(tmp_path, openssl):
    """Return what `openssl smime -sign` (or `cms`) makes of the content's digest."""

    def made(signer, *options, verb="smime", digest_name="sha256", algorithm=Algorithm.SHA256):
        message = tmp_path / "message"
        message.write_bytes(formatted_digest(digest(algorithm), algorithm))
        return openssl(
            *(verb, "-sign", "-binary", "-outform", "DER", "-md", digest_name, "-in", message),
            *("-signer", signer.path, "-inkey", signer.private, *options),
        )

    return made


BARE = ("-noattr", "-nocerts")


@pytest.mark.parametrize("algorithm", list(Algorithm))
@pytest.mark.parametrize("kind", ["rsa2048", "rsa3072"])
def test_an_rsa_signature_is_that_of_fsverity_sign_and_of_openssl(theirs, smime, signer_of, algorithm, kind):
    signer = signer_of(kind)
    ours = sign(signer, algorithm)
    assert ours == theirs(signer, algorithm)
    assert ours == smime(signer, *BARE, digest_name=algorithm.value, algorithm=algorithm)


@pytest.mark.parametrize("algorithm", list(Algorithm))
@pytest.mark.parametrize("kind", KINDS)
def test_what_fsverity_sign_makes_is_verified(theirs, signer_of, algorithm, kind):
    assert is_good(theirs(signer_of(kind), algorithm), signer_of(kind))


@pytest.mark.parametrize("algorithm", list(Algorithm))
@pytest.mark.parametrize("kind", KINDS)
def test_openssl_verifies_the_signature(tmp_path, signer_of, openssl, algorithm, kind):
    signer = signer_of(kind)
    (tmp_path / "signature").write_bytes(sign(signer, algorithm))
    content = tmp_path / "content"
    content.write_bytes(formatted_digest(digest(algorithm), algorithm))
    arguments = (
        *("smime", "-verify", "-binary", "-inform", "DER", "-in", tmp_path / "signature"),
        *("-content", content, "-certfile", signer.path, "-nointern", "-noverify", "-out", tmp_path / "out"),
    )
    openssl(*arguments)
    content.write_bytes(content.read_bytes()[:-1] + b"!")
    assert subprocess.run(["openssl", *map(str, arguments)], capture_output=True, check=False).returncode != 0


@pytest.mark.parametrize("algorithm", list(Algorithm))
@pytest.mark.parametrize("kind", KINDS)
def test_a_signature_made_elsewhere_is_put_into_the_same_form(
    tmp_path, signer_of, openssl, theirs, *, algorithm, kind
):
    signer = signer_of(kind)
    (tmp_path / "message").write_bytes(formatted_digest(digest(algorithm), algorithm))
    made = openssl("dgst", f"-{algorithm.value}", "-sign", signer.private, tmp_path / "message")
    attached = attach(made, signer.certificate, digest(algorithm), algorithm)
    assert is_good(attached, signer)
    if kind != "p256":
        assert attached == theirs(signer, algorithm)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("verb", ["smime", "cms"])
@pytest.mark.parametrize("options", [BARE, ("-noattr",), (*BARE, "-nodetach")])
def test_finished_pkcs7_is_put_into_the_same_form(smime, signer_of, kind, verb, options):
    signer = signer_of(kind)
    made = smime(signer, *options, verb=verb)
    attached = attach(made, signer.certificate, digest(Algorithm.SHA256), Algorithm.SHA256)
    assert is_good(attached, signer)
    if kind != "p256":
        assert attached == sign(signer)


def test_attributes_are_no_signature_of_the_digest(smime, signer_of):
    signer = signer_of("rsa2048")
    with pytest.raises(VerificationError) as caught:
        attach(smime(signer), signer.certificate, digest(Algorithm.SHA256), Algorithm.SHA256)
    assert caught.value.reason == "signature-attributes"
    assert "-noattr" in caught.value.resolution


@pytest.mark.parametrize("kind", ["rsa2048", "p256"])
def test_what_is_not_this_signature_is_not_attached(signer_of, kind):
    signer, other = signer_of(kind), signer_of(kind, 1)
    message = formatted_digest(digest(Algorithm.SHA256), Algorithm.SHA256)
    for wrong in (
        b"",
        bytes(256),
        keys.sign(other.key, message),
        keys.sign(signer.key, b"something else"),
        sign(other),
        sign(signer, Algorithm.SHA512),
        sign(signer)[:-1],
    ):
        with pytest.raises(VerificationError) as caught:
            attach(wrong, signer.certificate, digest(Algorithm.SHA256), Algorithm.SHA256)
        assert caught.value.reason == "signature-invalid"


@pytest.mark.parametrize(
    ("reason", "options", "digest_name"),
    [
        ("signature-attached", (*BARE, "-nodetach"), "sha256"),
        ("signature-attributes", ("-nocerts",), "sha256"),
        ("signature-certificates", ("-noattr",), "sha256"),
        ("signature-algorithm", BARE, "sha384"),
        ("signature-algorithm", BARE, "sha1"),
        ("signature-invalid", BARE, "sha512"),
    ],
)
@pytest.mark.parametrize("kind", ["rsa2048", "p256"])
def test_every_other_form_has_its_own_refusal(smime, signer_of, *, kind, reason, options, digest_name):
    signer = signer_of(kind)
    assert reason_of(smime(signer, *options, digest_name=digest_name), signer) == reason


def test_the_form_of_openssl_cms_is_none_that_kernels_are_given(smime, signer_of):
    signer = signer_of("rsa2048")
    assert reason_of(smime(signer, *BARE, verb="cms"), signer) == "signature-algorithm"


def test_two_signers_are_refused(smime, signer_of):
    signer, other = signer_of("rsa2048"), signer_of("rsa2048", 1)
    made = smime(signer, *BARE, "-signer", other.path, "-inkey", other.private)
    assert reason_of(made, signer) == "signature-signers"


def test_another_signer_and_another_image_are_refused(tmp_path, signer_of, openssl):
    signer, other = signer_of("rsa2048"), signer_of("rsa2048", 1)
    # Both certificates have the same issuer and serial number: only the signature tells them apart.
    assert reason_of(sign(other), signer) == "signature-invalid"
    assert reason_of(sign(signer), signer, content=b"another image") == "signature-invalid"
    renamed = tmp_path / "renamed.pem"
    openssl("req", "-new", "-x509", "-key", signer.private, "-out", renamed, "-subj", "/CN=other")
    made = sign_digest(signer.key, read_certificate(renamed), digest(Algorithm.SHA256), Algorithm.SHA256)
    assert reason_of(made, signer) == "signature-other-signer"


def test_a_certificate_whose_key_is_revoked_vouches_for_nothing(signer_of):
    signer = signer_of("p256")
    identity = keys.key_id(signer.key.public_key())
    assert reason_of(sign(signer), signer, revoked=[identity]) == "key-revoked"
    assert is_good(sign(signer), signer)


@pytest.mark.parametrize("kind", ["rsa2048", "p256"])
def test_every_flipped_bit_and_every_truncation_is_refused(signer_of, kind):
    signer = signer_of(kind)
    good = sign(signer)
    for position in range(8 * len(good)):
        data = bytearray(good)
        data[position // 8] ^= 1 << position % 8
        assert reason_of(bytes(data), signer)
    for length in range(len(good)):
        assert reason_of(good[:length], signer)
        assert reason_of(good[length + 1 :], signer)
    assert reason_of(good + b"\0", signer) == "malformed"


def test_an_ed25519_key_is_refused_for_the_kernel_knows_none(signer_of):
    signer = signer_of("ed25519")
    with pytest.raises(UsageError, match="ed25519"):
        sign(signer)
    with pytest.raises(UsageError, match="ed25519"):
        verify(b"", signer.certificate, digest)


def test_a_certificate_of_a_key_for_pss_only_is_refused(tmp_path, openssl):
    key, path = tmp_path / "k", tmp_path / "c"
    openssl("genpkey", "-algorithm", "RSA-PSS", "-pkeyopt", "rsa_keygen_bits:2048", "-out", key)
    openssl("req", "-new", "-x509", "-key", key, "-out", path, "-subj", "/CN=x")
    with pytest.raises(InputError, match="RSA-PSS") as caught:
        certified_key(read_certificate(path))
    assert caught.value.reason == "key-algorithm"


def test_a_certificate_of_another_key_is_refused(key_of, signer_of):
    with pytest.raises(UsageError, match="another key"):
        sign_digest(key_of("p256", 1), signer_of("p256").certificate, bytes(32), Algorithm.SHA256)


@pytest.mark.parametrize(
    "content", [b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", b"x" * 99999]
)
def test_what_is_no_certificate_is_refused(tmp_path, content):
    (tmp_path / "c").write_bytes(content)
    with pytest.raises(InputError, match=r"not a certificate|too long"):
        read_certificate(tmp_path / "c")


def test_a_certificate_whose_key_nobody_knows_is_refused(tmp_path, openssl):
    openssl("ecparam", "-name", "secp112r1", "-genkey", "-noout", "-out", tmp_path / "k")
    openssl("req", "-new", "-x509", "-key", tmp_path / "k", "-out", tmp_path / "c", "-subj", "/CN=x")
    with pytest.raises(InputError, match="not a certificate"):
        read_certificate(tmp_path / "c")


@pytest.mark.parametrize("serial", [b"\0", b"\xff\x01"])
def test_a_certificate_with_a_serial_number_below_one_is_refused(tmp_path, signer_of, serial):
    top = der.elements(der.only(signer_of("p256").certificate.public_bytes(Encoding.DER), der.SEQUENCE))
    fields = [element.whole for element in der.elements(top[0].content)]
    fields[1] = der.encode(2, serial)
    body = der.encode(der.SEQUENCE, der.encode(der.SEQUENCE, *fields), *(part.whole for part in top[1:]))
    text = base64.encodebytes(body)
    (tmp_path / "c").write_bytes(b"-----BEGIN CERTIFICATE-----\n" + text + b"-----END CERTIFICATE-----\n")
    with pytest.raises(InputError, match="not a certificate"):
        read_certificate(tmp_path / "c")
