"""Keys in a PKCS#11 token: the commands of docs/trust.md, with SoftHSM as the token."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs/trust.md"
MODULE = Path("/usr/lib/softhsm/libsofthsm2.so")
PIN = "2468"


def commands():
    """Return the shell commands of the page, one text a block: keys, two steps and one, P-256, RSA."""
    return re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture
def shell(lab, monkeypatch):
    """Run shell commands where there are a token called `release` and an image; return what they say."""
    for program in ("softhsm2-util", "pkcs11-tool", "openssl"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    if not MODULE.exists():
        pytest.skip(f"there is no {MODULE}")
    place = lab.directory.parent / "token"
    (place / "tokens").mkdir(parents=True)
    (place / "bin").mkdir()
    (place / "softhsm2.conf").write_text(
        f"directories.tokendir = {place}/tokens\nobjectstore.backend = file\n"
    )
    # At a terminal it asks for the PIN; here it is told.
    wrapper = place / "bin/pkcs11-tool"
    wrapper.write_text(f'#!/bin/sh\nexec {shutil.which("pkcs11-tool")} --pin env:PIN "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("SOFTHSM2_CONF", str(place / "softhsm2.conf"))
    monkeypatch.setenv("PIN", PIN)
    monkeypatch.setenv("PATH", f"{place}/bin:{Path(sys.executable).parent}:{os.environ['PATH']}")
    pins = ["--pin", PIN, "--so-pin", "13579"]
    subprocess.run(
        ["softhsm2-util", "--init-token", "--free", "--label", "release", *pins],
        check=True,
        capture_output=True,
    )
    Path("out").mkdir()
    lab.image("out/hello-1.0.cfs")

    def call(*texts):
        script = "set -e\n" + "\n".join(texts)
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stderr

    return call


IMAGE = "out/hello-1.0.cfs"


def halves(block):
    """Return the parts of a block that a blank line divides."""
    return block.split("\n\n")


def test_an_ed25519_key_in_a_token_signs_in_two_steps_and_in_one(run, shell):
    key, signing, *_ = commands()
    shell(key)
    module, *_ = key.splitlines()
    for way in halves(signing):
        shell(module, way)
        assert run("verify", "--structure", IMAGE, "--key", "ed25519.pub").status == 0
        Path(f"{IMAGE}.dsse").unlink()


def test_a_p256_key_in_a_token_signs_in_two_steps_and_in_one(run, shell):
    module, *_ = commands()[0].splitlines()
    key, *ways = halves(commands()[2])
    shell(module, key)
    for way in ways:
        shell(module, way)
        assert run("verify", "--structure", IMAGE, "--key", "p256.pub").status == 0
        Path(f"{IMAGE}.dsse").unlink()
    assert Path("signature").stat().st_size == 64


def test_an_rsa_key_in_a_token_makes_the_kernels_signature(run, shell):
    module, *_ = commands()[0].splitlines()
    key, *ways = halves(commands()[3])
    shell(module, key)
    made = set()
    for way in ways:
        shell(module, way)
        assert run("verify", "--structure", IMAGE, "--fsverity-certificate", "image.pem").status == 0
        made.add(Path(f"{IMAGE}.p7s").read_bytes())
        Path(f"{IMAGE}.p7s").unlink()
    assert len(made) == 1


def test_a_signature_by_another_key_of_the_token_is_not_attached(run, shell):
    module, *_ = commands()[0].splitlines()
    shell(commands()[0])
    shell(module, commands()[0].replace("01", "04").replace("ed25519.pub", "other.pub"))
    two_steps, _ = halves(commands()[1])
    failed = subprocess.run(
        ["bash", "-c", "\n".join([module, two_steps.replace("--id 01", "--id 04")])],
        capture_output=True,
        text=True,
        check=False,
    )
    assert failed.returncode == 5
    assert "not a signature of the document" in failed.stderr
    assert not Path(f"{IMAGE}.dsse").exists()
