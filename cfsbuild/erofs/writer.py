"""Writes composefs images, byte for byte as `mkcomposefs --from-file` writes them from the same dump."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

from cfsbuild import limits
from cfsbuild.errors import InputError, UsageError
from cfsbuild.fsverity.algorithm import Algorithm
from cfsbuild.native import extension
from cfsbuild.tree import paths
from cfsbuild.tree.dump import DumpEntry, line_parser, parse_dump

Row = tuple[Any, ...]
"""The fields of a `DumpEntry` in their order: what `zip` makes of columns, without an object for each."""

LARGEST_FORMAT = 1
OUT_OF_RANGE = "an entry has a number that an image cannot hold"


def write_image(
    entries: Iterable[DumpEntry | Row],
    *,
    format: int,  # noqa: A002 (the field's own word, and never the built-in here)
    max_format: int | None = None,
    algorithm: Algorithm = Algorithm.SHA256,
    native: bool = True,
) -> bytes:
    """Return the image of the tree that `entries` describe, each a `DumpEntry` or a tuple of its fields.

    `format` is the composefs image format, 0 or 1; with a larger `max_format` it is the smallest of the range
    that can hold the tree. `entries` begin with the root; parents precede children, and any order does
    otherwise. Digests are of `algorithm`. The native emitter does the work if it was built, unless `native`
    is false or CFSBUILD_NATIVE=0 is in the environment; the bytes are the same. Raises `InputError` for what
    is no tree or exceeds the format's limits, `UsageError` for an unknown format.
    """
    formats = _formats(format, max_format)
    module = extension("cfsbuild.erofs._emit") if native else None
    if module is None:
        return _pure(entries, formats, algorithm)
    return _emit(module, entries, None, formats, algorithm)


def write_dump(  # noqa: PLR0913 (all but two have defaults)
    lines: Iterable[bytes],
    *,
    format: int,  # noqa: A002 (as above)
    max_format: int | None = None,
    algorithm: Algorithm = Algorithm.SHA256,
    strict: bool = False,
    name: str = "dump",
) -> bytes:
    """Return the image of a dump in text form: `write_image` of `parse_dump`, but faster.

    The native emitter reads the usual line by itself and asks the parser about any other, so what is accepted
    does not depend on it. Raises what those two raise.
    """
    formats = _formats(format, max_format)
    module = None if strict else extension("cfsbuild.erofs._emit")
    if module is None:
        entries = parse_dump(lines, digest_size=algorithm.digest_size, strict=strict, name=name)
        return write_image(entries, format=format, max_format=max_format, algorithm=algorithm)
    return _emit(module, lines, line_parser(digest_size=algorithm.digest_size, name=name), formats, algorithm)


def _formats(smallest: int, largest: int | None) -> tuple[int, int]:
    largest = smallest if largest is None else max(smallest, largest)
    if smallest < 0 or largest > LARGEST_FORMAT:
        raise UsageError(f"composefs image formats are 0 to {LARGEST_FORMAT}, not {smallest} to {largest}")
    return smallest, largest


def _emit(
    module: ModuleType,
    entries: Iterable[DumpEntry | Row] | Iterable[bytes],
    parse: Callable[[bytes, int], DumpEntry] | None,
    formats: tuple[int, int],
    algorithm: Algorithm,
) -> bytes:
    try:
        image: bytes = module.emit(
            entries, parse, *formats, algorithm.digest_size, algorithm.kernel_id, limits.TREE_ENTRIES
        )
    except module.Error as error:
        path, problem = error.args
        raise InputError(f"{paths.show(path)} {problem}", reason="tree") from None
    except OverflowError:
        raise InputError(OUT_OF_RANGE, reason="tree") from None
    return image


def _pure(entries: Iterable[DumpEntry | Row], formats: tuple[int, int], algorithm: Algorithm) -> bytes:
    import struct  # noqa: PLC0415 (with the next: not needed where the native emitter is)

    from cfsbuild.erofs import image  # noqa: PLC0415

    objects = (entry if isinstance(entry, DumpEntry) else DumpEntry(*entry) for entry in entries)
    try:
        return image.build(objects, formats=formats, algorithm=algorithm)
    except struct.error:
        raise InputError(OUT_OF_RANGE, reason="tree") from None
