"""Writes composefs images, byte for byte as `mkcomposefs --from-file` writes them from the same dump."""

from __future__ import annotations

import os
from collections.abc import Iterable

from cfsbuild import limits
from cfsbuild.errors import InputError, UsageError
from cfsbuild.fsverity.algorithm import Algorithm
from cfsbuild.tree import paths
from cfsbuild.tree.dump import DumpEntry

LARGEST_FORMAT = 1


def write_image(
    entries: Iterable[DumpEntry],
    *,
    format: int,  # noqa: A002 (the field's own word, and never the built-in here)
    max_format: int | None = None,
    algorithm: Algorithm = Algorithm.SHA256,
    native: bool = True,
) -> bytes:
    """Return the image of the tree that `entries` describe.

    `format` is the composefs image format, 0 or 1; with a larger `max_format` it is the smallest of the range
    that can hold the tree. `entries` begin with the root; parents precede children, and any order does
    otherwise. Digests are of `algorithm`. The native emitter does the work if it was built, unless `native`
    is false or CFSBUILD_NATIVE=0 is in the environment; the bytes are the same. Raises `InputError` for what
    is no tree or exceeds the format's limits, `UsageError` for an unknown format.
    """
    largest = format if max_format is None else max(format, max_format)
    if format < 0 or largest > LARGEST_FORMAT:
        raise UsageError(f"composefs image formats are 0 to {LARGEST_FORMAT}, not {format} to {largest}")
    if native and os.environ.get("CFSBUILD_NATIVE") != "0":
        try:
            from cfsbuild.erofs import _emit  # noqa: PLC0415 (optional)
        except ImportError:
            return _pure(entries, (format, largest), algorithm)
        try:
            return _emit.emit(
                entries, format, largest, algorithm.digest_size, algorithm.kernel_id, limits.TREE_ENTRIES
            )
        except _emit.Error as error:
            path, problem = error.args
            raise InputError(f"{paths.show(path)} {problem}", reason="tree") from None
        except OverflowError:
            raise InputError(OUT_OF_RANGE, reason="tree") from None
    return _pure(entries, (format, largest), algorithm)


OUT_OF_RANGE = "an entry has a number that an image cannot hold"


def _pure(entries: Iterable[DumpEntry], formats: tuple[int, int], algorithm: Algorithm) -> bytes:
    import struct  # noqa: PLC0415 (with the next: not needed where the native emitter is)

    from cfsbuild.erofs import image  # noqa: PLC0415

    try:
        return image.build(entries, formats=formats, algorithm=algorithm)
    except struct.error:
        raise InputError(OUT_OF_RANGE, reason="tree") from None
