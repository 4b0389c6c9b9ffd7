"""Fuzz what trust reads from outside with atheris: `python tests/trust/fuzz_trust.py [-max_total_time=60] [CORPUS]`.

The first byte says which reader; the rest is what it reads. Whatever that is, it is read or refused by a `CfsError`.
"""

import sys

import atheris

with atheris.instrument_imports(
    include=["cfsbuild.trust", "cfsbuild.deploy.boot_config", "cfsbuild.deploy.boot_report"]
):
    from cfsbuild.deploy import boot_config, boot_report
    from cfsbuild.trust import (
        bundle,
        dsse,
        enrolment,
        pkcs7,
        sealed,
        statement,
        uki,
        unseal_policy,
    )
    from cfsbuild.trust.tpm import structures

from cfsbuild.errors import CfsError
from cfsbuild.trust.keys import KeyAlgorithm, generate

KEY = generate(KeyAlgorithm.ED25519).public_key()


def verified(data):
    bundle.verify_bundle(data, [KEY])


def unsealed(data):
    sealed.open_sealed(sealed.parse(data), lambda _: bytes(32))


def public(data):
    assert structures.encode_public(structures.decode_public(data)) == data


READERS = (
    verified,
    bundle.decode_bundle,
    dsse.decode,
    statement.decode_statement,
    unsealed,
    unseal_policy.decode,
    enrolment.decode,
    boot_config.decode,
    boot_report.decode,
    uki.measured_sections,
    public,
    structures.decode_signature,
    pkcs7.loose_signature,
)


def one_input(data):
    if not data:
        return
    try:
        READERS[data[0] % len(READERS)](data[1:])
    except CfsError as error:
        assert error.brief  # noqa: PT017


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
