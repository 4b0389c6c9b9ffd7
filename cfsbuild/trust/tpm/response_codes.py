"""Response codes of a TPM: their names and what they mean to people.

Source: TPM 2.0 Library, Part 2, "TPM_RC"; checked against `tpm2_rc_decode`.
"""

from __future__ import annotations

from cfsbuild.errors import TpmError

SUCCESS = 0
VALUE = 0x084
HANDLE = 0x08B
AUTH_FAIL = 0x08E
POLICY_FAIL = 0x09D
SIGNATURE = 0x09B
INTEGRITY = 0x09F
BAD_AUTH = 0x0A2
POLICY = 0x126
AUTH_UNAVAILABLE = 0x12F
NV_RANGE = 0x146
PCR_CHANGED = 0x128
NV_LOCKED = 0x148
NV_AUTHORIZATION = 0x149
NV_UNINITIALIZED = 0x14A
YIELDED = 0x908
TESTING = 0x90A
_REFERENCE_H0 = 0x910
NV_RATE = 0x920
LOCKOUT = 0x921
RETRY = 0x922

RESEND = frozenset({YIELDED, TESTING, NV_RATE, RETRY})
"""The TPM did nothing yet, and wants the same command again."""

_FORMAT_ONE = 0x80
_PARAMETER = 0x40
_SESSION = 0x800
_WARNING = 0x900
_LAYERS = {0: "", 11: " (the resource manager of the kernel)"}

_NAMES = {
    0x081: ("ASYMMETRIC", "the asymmetric algorithm is not supported or not right here"),
    0x082: ("ATTRIBUTES", "the attributes are inconsistent"),
    0x083: ("HASH", "the hash algorithm is not supported or not right here"),
    VALUE: ("VALUE", "a value is out of range or not right here"),
    0x085: ("HIERARCHY", "the hierarchy is disabled or not right here"),
    0x087: ("KEY_SIZE", "the size of the key is not supported"),
    0x088: ("MGF", "the mask generation function is not supported"),
    0x089: ("MODE", "the mode of operation is not supported"),
    0x08A: ("TYPE", "the type of the value is not right here"),
    HANDLE: ("HANDLE", "there is nothing under this handle, or it is of the wrong kind"),
    0x08C: ("KDF", "the key derivation function is not supported or not right here"),
    0x08D: ("RANGE", "a value is out of the allowed range"),
    AUTH_FAIL: ("AUTH_FAIL", "the authorization is wrong, and the failure was counted"),
    0x08F: ("NONCE", "the size of the nonce is wrong"),
    0x090: ("PP", "physical presence is needed"),
    0x092: ("SCHEME", "the scheme is not supported or not right here"),
    0x095: ("SIZE", "a structure has the wrong size"),
    0x096: ("SYMMETRIC", "the symmetric algorithm is not supported or not right here"),
    0x097: ("TAG", "the tag of a structure is wrong"),
    0x098: ("SELECTOR", "the selector of a union is wrong"),
    0x09A: ("INSUFFICIENT", "the command is too short"),
    SIGNATURE: ("SIGNATURE", "the signature is wrong"),
    0x09C: ("KEY", "the key's fields are not compatible with its use"),
    POLICY_FAIL: ("POLICY_FAIL", "a check of the policy failed"),
    INTEGRITY: ("INTEGRITY", "the integrity check failed: damaged, or made for another TPM"),
    0x0A0: ("TICKET", "the ticket is wrong"),
    0x0A1: ("RESERVED_BITS", "reserved bits are set"),
    BAD_AUTH: ("BAD_AUTH", "the authorization is wrong"),
    0x0A3: ("EXPIRED", "the policy has expired"),
    0x0A4: ("POLICY_CC", "the policy is for another command"),
    0x0A5: ("BINDING", "the public and the private part do not belong together"),
    0x0A6: ("CURVE", "the elliptic curve is not supported"),
    0x0A7: ("ECC_POINT", "the point is not on the curve"),
    0x100: ("INITIALIZE", "the TPM was not started by TPM2_Startup"),
    0x101: ("FAILURE", "the TPM is in failure mode"),
    0x103: ("SEQUENCE", "the sequence handle is not right here"),
    0x10B: ("PRIVATE", "the private area is wrong"),
    0x119: ("HMAC", "the handle is not of an HMAC key"),
    0x120: ("DISABLED", "the command is disabled"),
    0x121: ("EXCLUSIVE", "an exclusive session is active"),
    0x124: ("AUTH_TYPE", "this kind of authorization is not allowed here"),
    0x125: ("AUTH_MISSING", "an authorization is missing"),
    POLICY: ("POLICY", "the policy is not satisfied"),
    0x127: ("PCR", "the PCR check failed"),
    PCR_CHANGED: ("PCR_CHANGED", "PCRs changed since they were checked"),
    0x12D: ("UPGRADE", "the TPM is in field upgrade mode"),
    0x12E: ("TOO_MANY_CONTEXTS", "the counter of contexts is at its end"),
    AUTH_UNAVAILABLE: ("AUTH_UNAVAILABLE", "the authorization value or policy is not available"),
    0x130: ("REBOOT", "the TPM needs TPM2_Startup(CLEAR)"),
    0x131: ("UNBALANCED", "the protection algorithms are not balanced"),
    0x142: ("COMMAND_SIZE", "the size of the command is wrong"),
    0x143: ("COMMAND_CODE", "the TPM does not have this command"),
    0x144: ("AUTHSIZE", "the size of the authorization area is wrong"),
    0x145: ("AUTH_CONTEXT", "this command takes no authorization"),
    NV_RANGE: ("NV_RANGE", "out of the range of the NV index"),
    0x147: ("NV_SIZE", "the size of the NV index is not allowed"),
    NV_LOCKED: ("NV_LOCKED", "the NV index is locked"),
    NV_AUTHORIZATION: ("NV_AUTHORIZATION", "this authorization does not allow access to the NV index"),
    NV_UNINITIALIZED: ("NV_UNINITIALIZED", "the NV index was never written"),
    0x14B: ("NV_SPACE", "the TPM has no room for another NV index"),
    0x14C: ("NV_DEFINED", "the NV index is there already"),
    0x150: ("BAD_CONTEXT", "the saved context is not valid"),
    0x151: ("CPHASH", "the hash of the parameters is not the expected one"),
    0x152: ("PARENT", "the handle is not of a parent"),
    0x153: ("NEEDS_TEST", "the function needs a self-test first"),
    0x154: ("NO_RESULT", "a function gave no result"),
    0x155: ("SENSITIVE", "the sensitive area is not right"),
    0x901: ("CONTEXT_GAP", "the gap between contexts is too large"),
    0x902: ("OBJECT_MEMORY", "the TPM has no room for another object: flush one"),
    0x903: ("SESSION_MEMORY", "the TPM has no room for another session: flush one"),
    0x904: ("MEMORY", "the TPM has no memory"),
    0x905: ("SESSION_HANDLES", "the TPM has no free session handle: flush one"),
    0x906: ("OBJECT_HANDLES", "the TPM has no free object handle: flush one"),
    0x907: ("LOCALITY", "not allowed in this locality"),
    YIELDED: ("YIELDED", "the TPM suspended the command"),
    0x909: ("CANCELED", "the command was cancelled"),
    TESTING: ("TESTING", "the TPM tests itself"),
    NV_RATE: ("NV_RATE", "the TPM limits the rate of writing to spare its memory"),
    LOCKOUT: ("LOCKOUT", "the TPM is locked: too many wrong authorizations"),
    RETRY: ("RETRY", "the TPM could not start the command: send it again"),
    0x923: ("NV_UNAVAILABLE", "the NV memory is not accessible now"),
    **{
        _REFERENCE_H0 + n: (f"REFERENCE_H{n}", f"handle {n + 1} is of nothing that is loaded")
        for n in range(7)
    },
    **{0x918 + n: (f"REFERENCE_S{n}", f"session {n + 1} is not loaded") for n in range(7)},
}


class ResponseError(TpmError):
    """The TPM refused a command. `code` is the whole response code, `command` the command's name."""

    def __init__(self, command: str, code: int) -> None:
        super().__init__(
            f"the TPM refused {command}: {meaning(code)}", details=name(code), reason="tpm-refused"
        )
        self.command = command
        self.code = code

    @property
    def about_parameter(self) -> bool:
        """Whether it is one of the command's parameters that is wrong."""
        return self.code & (_FORMAT_ONE | _PARAMETER) == _FORMAT_ONE | _PARAMETER

    def is_of(self, *bases: int) -> bool:
        """Say whether the code is one of `bases`, whichever handle, parameter or session it is about."""
        return base(self.code) in bases


def base(code: int) -> int:
    """Return a code without what it says about which handle, parameter or session it means."""
    code &= 0xFFFF
    return code & 0xBF if code & _FORMAT_ONE else code


def name(code: int) -> str:
    """Return a code's name in the specification, what it is about, and its number."""
    known = _NAMES.get(base(code))
    text = f"TPM_RC_{known[0]}" if known else "unknown"
    layer = _LAYERS.get(code >> 16, f" (layer {code >> 16})")
    return f"{text}{_about(code)}, code 0x{code:03x}{layer}"


def meaning(code: int) -> str:
    """Return what a code means, for people."""
    known = _NAMES.get(base(code))
    return known[1] if known else f"response code 0x{code:03x}"


def _about(code: int) -> str:
    if not code & _FORMAT_ONE:
        return ""
    if code & _PARAMETER:
        return f" of parameter {code >> 8 & 15}"
    return f" of {'session' if code & _SESSION else 'handle'} {code >> 8 & 7}"
