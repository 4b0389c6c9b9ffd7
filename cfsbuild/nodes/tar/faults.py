"""How the readers of archives say what is wrong."""

from __future__ import annotations

from cfsbuild.errors import InputError

CHECKSUM = "checksum"
TRUNCATED = "truncated"
TRAILING = "trailing-data"
NUMBER = "number"
NAME = "name"
TYPE = "member-type"
EXTENSION = "extension-header"
SPARSE = "sparse"
LINK = "link"
XATTR = "xattr"
LIMIT = "limit"
COMPRESSION = "compression"
DIGEST_MISMATCH = "digest-mismatch"


def malformed(reason: str, what: str) -> InputError:
    """Return the error for an archive in which `what` is wrong; `reason` is the machine-readable word."""
    return InputError(
        f"archive is malformed: {what}",
        resolution="Make the archive again with GNU tar, bsdtar or another tool that follows POSIX.",
        reason=reason,
    )


def refused(reason: str, what: str, *, resolution: str) -> InputError:
    """Return the error for an archive that is well-formed but asks for something that is not done."""
    return InputError(f"archive is refused: {what}", resolution=resolution, reason=reason)


def over_limit(what: str) -> InputError:
    """Return the error for an archive that needs more than is allowed."""
    return refused(LIMIT, what, resolution="The limits are listed in docs/formats/archive.md.")
