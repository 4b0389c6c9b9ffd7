"""Keys that are slow to make, once; and the programs that say whether we are right."""

import shutil
import subprocess

import pytest
import swtpm
from enrolled import Enrolled

from cfsbuild.trust.fsverity_signature import read_certificate
from cfsbuild.trust.key_files import write_key_pair
from cfsbuild.trust.keys import KeyAlgorithm, generate


@pytest.fixture(scope="session")
def key_of():
    made = {}

    def key(algorithm, number=0):
        if (algorithm, number) not in made:
            made[algorithm, number] = generate(KeyAlgorithm(algorithm))
        return made[algorithm, number]

    return key


@pytest.fixture(scope="session")
def openssl():
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")

    def call(*arguments, given=None):
        done = subprocess.run(
            ["openssl", *map(str, arguments)], input=given, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return call


class Signer:
    """A key with a certificate, in files."""

    def __init__(self, base, key, openssl):
        self.key = key
        self.private, self.public = write_key_pair(base / "k", key)
        self.path = base / "certificate.pem"
        openssl(
            *("req", "-new", "-x509", "-key", self.private, "-out", self.path),
            *("-subj", "/CN=image signing/O=a & b", "-days", "3650", "-set_serial", "0x8001"),
        )
        self.certificate = read_certificate(self.path)


@pytest.fixture(scope="session")
def signer_of(tmp_path_factory, key_of, openssl):
    made = {}

    def signer(kind, number=0):
        if (kind, number) not in made:
            made[kind, number] = Signer(tmp_path_factory.mktemp("signer"), key_of(kind, number), openssl)
        return made[kind, number]

    return signer


@pytest.fixture
def machine(tmp_path):
    """Give a TPM of the test's own."""
    with swtpm.running(tmp_path / "tpm") as made:
        yield made


@pytest.fixture
def enrolled(machine):
    """Give a machine that is enrolled; nothing may be left loaded in its TPM."""
    made = Enrolled(machine)
    yield made
    assert machine.handles() == []
