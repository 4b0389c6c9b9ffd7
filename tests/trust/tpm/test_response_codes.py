"""Response codes are named as tpm2-tools name them."""

import shutil
import subprocess

import pytest

from cfsbuild.trust.tpm import response_codes
from cfsbuild.trust.tpm.response_codes import ResponseError, name


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (0x99D, "TPM_RC_POLICY_FAIL of session 1"),
        (0x1C4, "TPM_RC_VALUE of parameter 1"),
        (0x2DB, "TPM_RC_SIGNATURE of parameter 2"),
        (0x126, "TPM_RC_POLICY"),
        (0x3DF, "TPM_RC_INTEGRITY of parameter 3"),
        (0x98E, "TPM_RC_AUTH_FAIL of session 1"),
        (0x921, "TPM_RC_LOCKOUT"),
        (0x18B, "TPM_RC_HANDLE of handle 1"),
        (0x000B0143, "TPM_RC_COMMAND_CODE"),
        (0x7FF, "unknown of parameter 7"),
    ],
)
def test_codes_of_the_specification(code, text):
    assert name(code).startswith(f"{text}, code ")


TOOLS_SAY = {
    "VALUE": "value is out of range",
    "HANDLE": "handle is not correct",
    "AUTH_FAIL": "authorization HMAC check failed and DA counter",
    "POLICY_FAIL": "policy check failed",
    "SIGNATURE": "signature is not valid",
    "INTEGRITY": "integrity check failed",
    "BAD_AUTH": "authorization failure without DA",
    "POLICY": "policy failure",
    "PCR_CHANGED": "PCR have changed",
    "AUTH_UNAVAILABLE": "authValue or authPolicy is not available",
    "NV_RANGE": "NV offset+size is out of range",
    "NV_LOCKED": "NV access locked",
    "NV_AUTHORIZATION": "NV access authorization fails",
    "NV_UNINITIALIZED": "NV Index is used before being initialized",
    "YIELDED": "TPM has suspended operation",
    "TESTING": "TPM is performing self",
    "NV_RATE": "rate limiting",
    "LOCKOUT": "DA lockout mode",
    "RETRY": "not able to start the command",
}


@pytest.mark.parametrize("short", TOOLS_SAY)
def test_the_tools_mean_the_same(short):
    if shutil.which("tpm2_rc_decode") is None:
        pytest.skip("tpm2_rc_decode is not installed")
    code = getattr(response_codes, short)
    # Of format one the tool wants to know what it is about: here handle 1.
    asked = code | 0x100 if code & 0x80 and code < 0x100 else code
    said = subprocess.run(["tpm2_rc_decode", hex(asked)], capture_output=True, text=True, check=True).stdout
    assert TOOLS_SAY[short] in said
    assert f"TPM_RC_{short}" in name(code)


def test_an_error_says_what_was_refused_and_why():
    error = ResponseError("TPM2_Unseal", 0x99D)
    assert error.brief == "the TPM refused TPM2_Unseal: a check of the policy failed"
    assert error.details == "TPM_RC_POLICY_FAIL of session 1, code 0x99d"
    assert error.is_of(response_codes.POLICY_FAIL)
    assert not error.about_parameter
    assert ResponseError("x", 0x3DF).about_parameter
