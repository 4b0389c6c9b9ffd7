"""Signed PCR policies as systemd knows them: the `.pcrsig` section of a UKI, the bytes that it would write.

One signature for each bank and phase path says that PCR 11 may have the value which is predicted for it. Such
a signature never ends: what is released under it needs other conditions too, against older images.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from cfsbuild.errors import UsageError
from cfsbuild.trust import keys, uki
from cfsbuild.trust.keys import PrivateKey, PublicKey
from cfsbuild.trust.registers import KERNEL_PCR
from cfsbuild.trust.tpm import policy
from cfsbuild.trust.tpm.numbers import Alg

SUFFIX = ".pcrsig"
PATHS = tuple(uki.PHASES[:end] for end in range(1, 1 + len(uki.PHASES)))
"""What systemd-measure signs unless told otherwise: each phase on the way up."""


def fingerprint(public: PublicKey) -> str:
    """Return how systemd names a policy key: SHA-256 of its PKCS#1 encoding (DER), in hex.

    Raises `UsageError` (reason `key-algorithm`) for what is not RSA-2048, which is all that systemd takes.
    """
    if not isinstance(public, rsa.RSAPublicKey) or public.key_size != 2048:
        raise UsageError(
            "systemd takes signed PCR policies by RSA keys of 2048 bits only",
            resolution="`cfsbuild key new NAME --algorithm rsa2048` makes one",
            reason="key-algorithm",
        )
    pkcs1 = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.PKCS1)
    return hashlib.sha256(pkcs1).hexdigest()


def sign(
    sections: Mapping[str, bytes | memoryview],
    private: PrivateKey,
    *,
    paths: Sequence[Sequence[str]] = PATHS,
    banks: Sequence[Alg] = tuple(uki.BANKS),
) -> bytes:
    """Return signatures for a UKI's sections, the JSON text that `systemd-measure sign` prints.

    Raises `UsageError` as `fingerprint` and `uki.predict` do.
    """
    name = fingerprint(private.public_key())
    document = {}
    for bank in sorted(set(banks)):
        entries = []
        for path in paths:
            value = uki.predict(sections, path, bank)
            digest = policy.pcr(policy.START, {KERNEL_PCR: value}, bank=bank)
            signature = base64.b64encode(keys.sign(private, digest)).decode()
            entries.append({"pcrs": [KERNEL_PCR], "pkfp": name, "pol": digest.hex(), "sig": signature})
        document[uki.BANKS[bank]] = entries
    return json.dumps(document, separators=(",", ":")).encode() + b"\n"
