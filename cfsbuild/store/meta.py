"""`meta.json`: what makes a directory a store (composefs-rs repository format, version 1)."""

from __future__ import annotations

import msgspec

from cfsbuild.errors import StoreError, UsageError
from cfsbuild.fsverity.algorithm import Algorithm

META_VERSION = 1
KNOWN_READ_ONLY = frozenset({"v1_erofs"})
"""Read-only-compatible features that this program understands well enough to write."""

META_BYTES = 1 << 20


class Features(msgspec.Struct, frozen=True, rename="kebab"):
    """Feature flags in the manner of ext4: what a program that does not know a flag may still do."""

    compatible: tuple[str, ...] = ()
    read_only_compatible: tuple[str, ...] = ()
    incompatible: tuple[str, ...] = ()


class ErofsFormats(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which composefs image formats composefs-rs generates in the repository."""

    default: int
    extra: tuple[int, ...] = ()


class Meta(msgspec.Struct, frozen=True, omit_defaults=False):
    """The document itself. Fields that are not listed are ignored: composefs-rs may add some."""

    version: int
    algorithm: str
    features: Features = Features()
    erofs_formats: ErofsFormats | None = None

    @property
    def digest_algorithm(self) -> Algorithm:
        """Return the algorithm that names the store's objects."""
        return _ALGORITHMS[self.algorithm]

    @property
    def unknown_read_only(self) -> tuple[str, ...]:
        """Return the features that forbid this program to write."""
        return tuple(flag for flag in self.features.read_only_compatible if flag not in KNOWN_READ_ONLY)


_ALGORITHMS = {algorithm.repository_name: algorithm for algorithm in Algorithm}


def new_meta(algorithm: Algorithm) -> bytes:
    """Return the `meta.json` of a new store, as `cfsctl init --erofs-version 1` writes it."""
    meta = Meta(
        version=META_VERSION,
        algorithm=algorithm.repository_name,
        features=Features(read_only_compatible=("v1_erofs",)),
        erofs_formats=ErofsFormats(default=1),
    )
    return msgspec.json.format(msgspec.json.encode(meta), indent=2) + b"\n"


def parse_meta(data: bytes, where: str) -> Meta:
    """Return what `data`, the `meta.json` of the store at `where`, says.

    Raises `StoreError` when it is damaged, of another version, or needs features that are not known here.
    """
    try:
        meta = msgspec.json.decode(data, type=Meta, strict=True)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise StoreError(
            f"meta.json of the store {where} is damaged",
            details=str(error),
            resolution="restore it from a backup, or make a new store and build again",
            reason="meta",
        ) from error
    if meta.version != META_VERSION:
        raise StoreError(
            f"store {where} has format version {meta.version}, this program reads version {META_VERSION}",
            resolution="use the version of the program that made the store",
            reason="version",
        )
    if meta.features.incompatible:
        raise StoreError(
            f"store {where} uses features that this program does not know",
            details=", ".join(meta.features.incompatible),
            resolution="use the version of the program that made the store",
            reason="features",
        )
    if meta.algorithm not in _ALGORITHMS:
        raise StoreError(
            f"store {where} uses the digest algorithm {meta.algorithm!r}",
            details=f"known: {', '.join(_ALGORITHMS)}",
            reason="algorithm",
        )
    return meta


def check_algorithm(have: Algorithm, want: Algorithm, where: str) -> None:
    """Raise `UsageError` when a recipe or command wants another algorithm than the store at `where` has."""
    if have is not want:
        raise UsageError(
            f"store {where} names objects by {have.value}, but {want.value} is asked for",
            resolution=f'set `digest = "{have.value}"`, or use a store that was made with '
            f"`cfsbuild store init --digest {want.value}`",
            reason="algorithm",
        )
