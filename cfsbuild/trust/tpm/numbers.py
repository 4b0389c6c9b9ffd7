"""Names for numbers of the TPM 2.0 specification, part 2: algorithms, attributes, comparisons."""

from __future__ import annotations

import enum


class Alg(enum.IntEnum):
    """TPM_ALG_ID (part 2, 6.3)."""

    RSA = 0x0001
    SHA1 = 0x0004
    AES = 0x0006
    KEYEDHASH = 0x0008
    SHA256 = 0x000B
    SHA384 = 0x000C
    SHA512 = 0x000D
    NULL = 0x0010
    RSASSA = 0x0014
    ECDSA = 0x0018
    ECC = 0x0023
    CFB = 0x0043


class Attribute(enum.IntFlag):
    """TPMA_OBJECT (part 2, 8.3)."""

    FIXED_TPM = 1 << 1
    FIXED_PARENT = 1 << 4
    SENSITIVE_DATA_ORIGIN = 1 << 5
    USER_WITH_AUTH = 1 << 6
    ADMIN_WITH_POLICY = 1 << 7
    NO_DA = 1 << 10
    RESTRICTED = 1 << 16
    DECRYPT = 1 << 17
    SIGN = 1 << 18


class NvAttribute(enum.IntFlag):
    """TPMA_NV (part 2, 13.4); `COUNTER` is the value 1 of the field TPM_NT."""

    OWNER_WRITE = 1 << 1
    COUNTER = 1 << 4
    OWNER_READ = 1 << 17
    AUTH_READ = 1 << 18
    NO_DA = 1 << 25
    WRITTEN = 1 << 29


class Comparison(enum.IntEnum):
    """TPM_EO: what PolicyNV compares, the index before the operand (part 2, 6.6)."""

    UNSIGNED_LT = 0x0005
    UNSIGNED_LE = 0x0009


NIST_P256 = 0x0003
"""TPM_ECC_CURVE of the only curve that is used here."""

PERSISTENT_SRK = 0x81000001
"""Where a storage root key lies by convention (TCG "TPM v2.0 Provisioning Guidance")."""
