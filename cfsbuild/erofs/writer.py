"""Writes composefs images, byte for byte as `mkcomposefs --from-file` writes them from the same dump."""

from __future__ import annotations

from collections.abc import Iterable

from cfsbuild.erofs.inodes import check_formats
from cfsbuild.fsverity.algorithm import Algorithm
from cfsbuild.tree.dump import DumpEntry


def write_image(
    entries: Iterable[DumpEntry],
    *,
    format: int,  # noqa: A002 (the field's own word, and never the built-in here)
    max_format: int | None = None,
    algorithm: Algorithm = Algorithm.SHA256,
) -> bytes:
    """Return the image of the tree that `entries` describe.

    `format` is the composefs image format, 0 or 1; with a larger `max_format` it is the smallest of the range
    that can hold the tree. `entries` begin with the root; parents precede children, and any order does
    otherwise. Digests are of `algorithm`. Raises `InputError` for what is no tree or exceeds the format's
    limits, `UsageError` for an unknown format.
    """
    formats = check_formats(format, max_format)
    from cfsbuild.erofs import image  # noqa: PLC0415 (not needed where the native emitter is)

    return image.build(entries, formats=formats, algorithm=algorithm)
