"""The readers of trust under a fuzzer that sees which code an input reaches."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import test_bundle
from enrolled import Enrolled

from cfsbuild.deploy import boot_config, boot_report
from cfsbuild.trust import dsse, enrolment, statement, unseal_policy
from cfsbuild.trust.bundle import PAYLOAD_TYPE, encode_bundle
from cfsbuild.trust.tpm.structures import SRK_ECC, encode_public


def good_inputs(machine, key_of):
    """Yield an input that each reader accepts, with the number by which the fuzzer chooses it."""
    enrolled = Enrolled(machine)
    document = enrolled.policy()
    payload = encode_bundle(test_bundle.bundle())
    yield 0, dsse.sign(PAYLOAD_TYPE, payload, key_of("ed25519"))
    yield 1, payload
    yield 2, dsse.sign("application/x", b"payload", key_of("p256"))
    image = statement.ImageStatement(name="a", version="1", image=test_bundle.bundle().image)
    yield 3, statement.encode_statement(image)
    yield 4, enrolled.seal(document)
    yield 5, unseal_policy.encode(document)
    yield 6, enrolment.encode(enrolled.enrolment)
    config = boot_config.BootConfig(state=boot_config.StateDevice(device="/dev/vda"), bundle="a.cfsb")
    yield 7, boot_config.encode(config)
    yield 8, boot_report.encode(boot_report.BootReport(event="started"))
    yield 10, encode_public(SRK_ECC)


@pytest.mark.slow
def test_atheris_finds_nothing_in_what_trust_reads(machine, key_of, tmp_path):
    if find_spec("atheris") is None:
        pytest.skip("atheris is not installed")
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for number, data in good_inputs(machine, key_of):
        (corpus / f"good-{number}").write_bytes(bytes([number]) + data)
    target = Path(__file__).with_name("fuzz_trust.py")
    # Python, atheris and cryptography take 60 to 200 MiB before the first input, as they are compiled or not.
    limits = ("-max_total_time=25", "-timeout=1", "-rss_limit_mb=328", "-malloc_limit_mb=64", "-max_len=8192")
    done = subprocess.run(
        [sys.executable, target, *limits, corpus],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
