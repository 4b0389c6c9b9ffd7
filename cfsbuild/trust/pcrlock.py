"""What a mounted image leaves in PCR 15, as a component of systemd-pcrlock (systemd.pcrlock(5)).

Who mounts a bundle extends PCR 15 with one event: latch, because what is sealed with PCR 15 at zero is not
released again in this boot, and record, because a remote verifier can see which image it was.
"""

from __future__ import annotations

import hashlib
import json
import re

from cfsbuild.errors import UsageError
from cfsbuild.trust.uki import BANKS

MOUNT_PCR = 15
PLACE = 780
"""Where the event stands in the boot: in the initrd, between 750-enter-initrd and 800-leave-initrd."""


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}")


def mount_event(name: str, digest: str) -> bytes:
    """Return the event for the mount of an image, whose digest is in composefs-rs's notation.

    Each bank is extended with its own digest of these bytes.
    """
    return f"cfsbuild:{name}:{digest}".encode()


def file_name(name: str, digest: str) -> str:
    """Return where a component lies below a directory of components: one variant for each image of a name.

    Raises `UsageError` (reason `name`) for a name that is no part of a file's name.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot be the name of a component",
            resolution="use letters, digits and ._+- for what is mounted",
            reason="name",
        )
    return f"{PLACE}-cfsbuild-{name}.pcrlock.d/{digest.rpartition(':')[2]}.pcrlock"


def component(name: str, digest: str) -> bytes:
    """Return the component that expects this image, as `systemd-pcrlock lock-raw` writes it."""
    event = mount_event(name, digest)
    digests = [
        {"hashAlg": algorithm, "digest": hashlib.new(algorithm, event).hexdigest()}
        for algorithm in BANKS.values()
    ]
    return (
        json.dumps({"records": [{"pcr": MOUNT_PCR, "digests": digests}]}, separators=(",", ":")).encode()
        + b"\n"
    )
