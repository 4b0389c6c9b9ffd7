"""Keys that are slow to make, once; and the programs that say whether we are right."""

import shutil
import subprocess

import pytest
import swtpm
from enrolled import Enrolled

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
