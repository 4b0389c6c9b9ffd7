"""Where things lie in a store, and which names are allowed there.

Every name that reaches the file system below a store is made here, from a validated digest or reference.
"""

from __future__ import annotations

from cfsbuild.errors import UsageError
from cfsbuild.fsverity.algorithm import Algorithm

META = "meta.json"
OBJECTS = "objects"
IMAGES = "images"
REFS = "images/refs"
STREAMS = "streams"
"""Splitstreams of composefs-rs: not ours, never touched."""

ROOM = "cfsbuild"
NODES = "cfsbuild/nodes"
LAYERS = "cfsbuild/layers"
TREES = "cfsbuild/trees"
CONTENTS = "cfsbuild/images"
LEASES = "cfsbuild/leases"
LOCKS = "cfsbuild/locks"
TRASH = "cfsbuild/trash"
STAGING = "cfsbuild/staging"
STATE = "cfsbuild/state"

DIRECTORIES = (
    OBJECTS,
    IMAGES,
    REFS,
    ROOM,
    NODES,
    LAYERS,
    TREES,
    CONTENTS,
    LEASES,
    LOCKS,
    TRASH,
    STAGING,
    STATE,
)
"""All directories of a new store, parents first. Shards (`objects/xx`) are made when they are needed."""

GC_TRASH = "gc-"
"""Prefix of the directories in `TRASH` that hold what gc removed; a lookup looks there."""

QUARANTINE = "quarantine-"
"""Prefix of the directories in `TRASH` that hold what fsck removed; nothing looks there."""

REF_BYTES = 1024
COMPONENT_BYTES = 255

_HEX = frozenset("0123456789abcdef")
_REF_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._+-=:@%~")


def object_name(digest: bytes) -> str:
    """Return the name of an object below `objects/`: `xx/rest`."""
    name = digest.hex()
    return f"{name[:2]}/{name[2:]}"


def object_path(digest: bytes) -> str:
    """Return the name of an object in the store: `objects/xx/rest`."""
    return f"{OBJECTS}/{object_name(digest)}"


def is_hex(text: str, length: int) -> bool:
    """Say whether `text` is exactly `length` lower-case hexadecimal digits."""
    return len(text) == length and _HEX.issuperset(text)


def is_shard(name: str) -> bool:
    """Say whether `name` can be a directory in `objects/`."""
    return is_hex(name, 2)


def digest_of(shard: str, rest: str, algorithm: Algorithm) -> bytes | None:
    """Return the digest that `objects/shard/rest` stands for; None when that is not a digest's name."""
    return parse_digest(shard + rest, algorithm) if len(shard) == 2 else None


def parse_digest(text: str, algorithm: Algorithm) -> bytes | None:
    """Return the raw digest that `text`, lower-case hex, stands for; None when it is not one."""
    return bytes.fromhex(text) if is_hex(text, 2 * algorithm.digest_size) else None


def check_digest(digest: bytes, algorithm: Algorithm) -> bytes:
    """Return `digest`; raises `UsageError` unless it has the length of the store's algorithm."""
    if len(digest) != algorithm.digest_size:
        raise UsageError(
            f"a digest of {len(digest)} bytes is no {algorithm.value} digest",
            details=f"this store names objects by {algorithm.repository_name}",
        )
    return digest


def check_document(name: str) -> str:
    """Return `name`, the name of a document; raises `UsageError` unless it is 64 lower-case hex digits."""
    if not is_hex(name, 64):
        raise UsageError(
            f"{name!r} cannot name a document in a store", details="it is not a BLAKE3 digest in hex"
        )
    return name


def check_ref(name: str) -> str:
    """Return `name`, the name of a reference; raises `UsageError` unless it is a safe relative path.

    Components are separated by `/`, do not begin with a dot or a dash, and consist of ASCII letters, digits
    and `._+-=:@%~`.
    """
    components = name.split("/")
    for component in components:
        if not component or component[0] in ".-" or len(component) > COMPONENT_BYTES:
            break
        if not _REF_CHARACTERS.issuperset(component):
            break
    else:
        if len(name) <= REF_BYTES:
            return name
    raise UsageError(
        f"{name!r} cannot name an image",
        resolution="use ASCII letters, digits and ._+-=:@%~ in components that are separated by / and "
        "do not begin with a dot or a dash",
    )


def ref_target(name: str, digest: bytes) -> str:
    """Return what the symbolic link `images/refs/NAME` points to: `images/HEX`, relative to the link."""
    return "../" * (name.count("/") + 1) + digest.hex()


def image_target(digest: bytes) -> str:
    """Return what the symbolic link `images/HEX` points to."""
    return f"../{object_path(digest)}"
