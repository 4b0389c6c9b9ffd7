"""How the reader says that an image is not what it claims to be."""

from __future__ import annotations

from cfsbuild.errors import InputError

MAGIC = "magic"
VERSION = "version"
TRUNCATED = "truncated"
BOUNDS = "bounds"
OVERLAP = "overlap"
LOOP = "loop"
ORDER = "order"
NAME = "name"
TYPE = "type"
SIZE = "size"
XATTR = "xattr"
OVERLAY = "overlay"
DIGEST = "digest"
COUNT = "count"
LIMIT = "limit"
NOT_CANONICAL = "not-canonical"
FOREIGN = "foreign"
DIGEST_MISMATCH = "digest-mismatch"


def damaged(reason: str, what: str) -> InputError:
    """Return the error for an image in which `what` is wrong; `reason` is the machine-readable word."""
    return InputError(
        f"composefs image is damaged: {what}",
        resolution="Build the image again, or fetch it again and check its digest.",
        reason=reason,
    )


def over_limit(what: str) -> InputError:
    """Return the error for an image that asks for more than is allowed."""
    return InputError(
        f"composefs image exceeds a limit: {what}",
        resolution="Only images within the limits of docs/formats/image.md are read.",
        reason=LIMIT,
    )
