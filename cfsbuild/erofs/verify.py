"""Whether an image is what it should be: by its digest, and by being what the writer makes of its tree.

The writer is a function: one tree and one format give one image. So an image is verified by reading it as
hostile input, writing what was read, and comparing: every bit, those in padding and reserved fields included,
either fails or is visible in the tree; nothing can hide. Only the digest tells a sound tree from another one.
"""

from __future__ import annotations

from cfsbuild.erofs import damage
from cfsbuild.erofs import format as fmt
from cfsbuild.erofs.reader import ImageInfo, read_image
from cfsbuild.erofs.writer import write_image
from cfsbuild.errors import InputError, VerificationError
from cfsbuild.fsverity.algorithm import Algorithm
from cfsbuild.fsverity.digest import digest_bytes

_REBUILD = "Build the image again, or fetch it again and check its digest."


def verify_image(data: bytes | bytearray | memoryview, *, expected: bytes | None = None) -> None:
    """Raise `VerificationError` unless `data` is an image in canonical form.

    With `expected`, a raw fs-verity digest, the image must also have it; this is checked first. Without, a
    changed owner, mode or name that gives another sound tree cannot be noticed.

    `reason` is `digest-mismatch` if the digest is another one; `magic`, `version`, `truncated`, `size`,
    `bounds`, `overlap`, `loop`, `order`, `name`, `type`, `xattr`, `overlay`, `digest`, `count` or `limit` for
    an image that cannot be read (docs/formats/image.md says what each means); `foreign` for a sound image of
    format 2, which this program does not write; `not-canonical` for one that describes a tree but differs
    from what the writer makes of it.
    """
    data = bytes(data)
    if expected is not None:
        verify_digest(data, expected)
    try:
        info = read_image(data)
        algorithm = info.algorithm
        entries = list(info.entries())
    except InputError as error:
        raise VerificationError(
            error.brief, details=error.details, resolution=error.resolution, reason=error.reason
        ) from error
    if info.format not in fmt.FORMATS:
        raise VerificationError(
            f"composefs image has format {info.format}, whose canonical form is not known",
            details="Its structure is sound. Older versions of composefs-rs write this format.",
            resolution="Check it by its fs-verity digest, or make an image of format 1 from its dump.",
            reason=damage.FOREIGN,
        )
    try:
        written = bytes(write_image(entries, format=info.format, algorithm=algorithm))
    except InputError as error:
        raise VerificationError(
            "composefs image describes a tree that cannot be written",
            details="\n".join(filter(None, (error.brief, error.details))),
            resolution=_REBUILD,
            reason=damage.NOT_CANONICAL,
        ) from error
    if written != data:
        raise _not_canonical(data, written, info)


def _not_canonical(data: bytes, written: bytes, info: ImageInfo) -> VerificationError:
    """Return the error that tells where `data` first differs from what was `written`."""
    common = min(len(data), len(written))
    # Bisection over equal prefixes: each step compares at C speed.
    low, high = 0, common
    while low < high:
        middle = (low + high + 1) // 2
        if data[:middle] == written[:middle]:
            low = middle
        else:
            high = middle - 1
    region = "file sizes" if low == common else _region(low, info)
    return VerificationError(
        "composefs image is not in canonical form",
        details=f"It first differs from what its own tree gives at offset {low} ({region}); "
        f"it has {len(data)} bytes, the canonical image {len(written)}.",
        resolution=_REBUILD,
        reason=damage.NOT_CANONICAL,
    )


def _region(offset: int, info: ImageInfo) -> str:
    """Return the name of the part of an image in which `offset` lies."""
    if offset < fmt.SUPERBLOCK_OFFSET:
        return "header"
    if offset < fmt.INODES_OFFSET:
        return "superblock"
    return "inodes" if offset < info.xattr_offset else "inodes, shared attributes or data"


def verify_digest(data: bytes | bytearray | memoryview, expected: bytes) -> None:
    """Raise `VerificationError` unless the fs-verity digest of `data` is `expected`.

    `expected` is a raw digest; its length says the algorithm: 32 bytes SHA-256, 64 bytes SHA-512.
    """
    sizes = {algorithm.digest_size: algorithm for algorithm in Algorithm}
    if len(expected) not in sizes:
        raise VerificationError(
            f"a digest of {len(expected)} bytes is no fs-verity digest",
            resolution="Give 64 (SHA-256) or 128 (SHA-512) hexadecimal digits.",
            reason=damage.DIGEST,
        )
    algorithm = sizes[len(expected)]
    found = digest_bytes(data, algorithm)
    if found != expected:
        raise VerificationError(
            "image is not what its digest says",
            details=f"{algorithm.value}\nexpected: {expected.hex()}\nfound:    {found.hex()}",
            resolution=_REBUILD,
            reason=damage.DIGEST_MISMATCH,
        )
