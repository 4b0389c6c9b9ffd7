"""The PKCS#7 signature: byte for byte that of `fsverity sign`, and one that openssl verifies."""

import shutil
import subprocess

import pytest

from cfsbuild.errors import InputError, UsageError
from cfsbuild.fsverity.algorithm import Algorithm
from cfsbuild.fsverity.digest import digest_bytes
from cfsbuild.trust.fsverity_signature import formatted_digest, read_certificate, sign_digest
from cfsbuild.trust.key_files import write_key_pair

CONTENT = b"an image, say" * 3000


class Signer:
    """A key with a certificate, in files."""

    def __init__(self, base, key, openssl):
        self.key = key
        self.private, _ = write_key_pair(base / "k", key)
        self.path = base / "certificate.pem"
        openssl(
            *("req", "-new", "-x509", "-key", self.private, "-out", self.path),
            *("-subj", "/CN=image signing/O=a & b", "-days", "3650", "-set_serial", "0x8001"),
        )

    def sign(self, algorithm):
        digest = digest_bytes(CONTENT, algorithm)
        return sign_digest(self.key, read_certificate(self.path), digest, algorithm)


@pytest.mark.parametrize("algorithm", list(Algorithm))
@pytest.mark.parametrize("kind", ["rsa2048", "rsa3072"])
def test_an_rsa_signature_is_that_of_fsverity_sign(tmp_path, key_of, openssl, algorithm, kind):
    if shutil.which("fsverity") is None:
        pytest.skip("fsverity is not installed")
    signer = Signer(tmp_path, key_of(kind), openssl)
    (tmp_path / "file").write_bytes(CONTENT)
    subprocess.run(
        [
            *("fsverity", "sign", tmp_path / "file", tmp_path / "theirs"),
            *(f"--key={signer.private}", f"--cert={signer.path}", f"--hash-alg={algorithm.value}"),
        ],
        check=True,
        capture_output=True,
    )
    assert signer.sign(algorithm) == (tmp_path / "theirs").read_bytes()


@pytest.mark.parametrize("algorithm", list(Algorithm))
@pytest.mark.parametrize("kind", ["rsa2048", "p256"])
def test_openssl_verifies_the_signature(tmp_path, key_of, openssl, algorithm, kind):
    signer = Signer(tmp_path, key_of(kind), openssl)
    (tmp_path / "signature").write_bytes(signer.sign(algorithm))
    content = tmp_path / "content"
    content.write_bytes(formatted_digest(digest_bytes(CONTENT, algorithm), algorithm))
    arguments = (
        *("smime", "-verify", "-binary", "-inform", "DER", "-in", tmp_path / "signature"),
        *("-content", content, "-certfile", signer.path, "-nointern", "-noverify", "-out", tmp_path / "out"),
    )
    openssl(*arguments)
    content.write_bytes(content.read_bytes()[:-1] + b"!")
    assert subprocess.run(["openssl", *map(str, arguments)], capture_output=True, check=False).returncode != 0


def test_an_ed25519_key_is_refused_for_the_kernel_knows_none(tmp_path, key_of, openssl):
    signer = Signer(tmp_path, key_of("ed25519"), openssl)
    with pytest.raises(UsageError, match="ed25519"):
        signer.sign(Algorithm.SHA256)


def test_a_certificate_of_another_key_is_refused(tmp_path, key_of, openssl):
    signer = Signer(tmp_path, key_of("p256"), openssl)
    with pytest.raises(UsageError, match="another key"):
        sign_digest(key_of("p256", 1), read_certificate(signer.path), bytes(32), Algorithm.SHA256)


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
