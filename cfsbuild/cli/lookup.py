"""Finding names in an image: symbolic links are followed inside it, and never lead out of it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator

import msgspec

from cfsbuild.errors import InputError, UsageError
from cfsbuild.tree import paths
from cfsbuild.tree.dump import DumpEntry

Entries = dict[bytes, DumpEntry]
"""Every name of an image in depth-first order. What is a hard link repeats its inode's fields."""

SYMLINKS_MAX = 40
"""As many as Linux follows in one look-up."""


def by_path(entries: Iterable[DumpEntry]) -> Entries:
    """Return `entries` by name, depth first, hard links filled in with what their inode says."""
    found: Entries = {}
    for entry in entries:
        if entry.path in found:
            raise InputError(f"{paths.show(entry.path)} appears twice")
        found[entry.path] = entry
    for path, entry in found.items():
        if entry.hardlink is not None:
            found[path] = _filled_in(found, entry)
    return {path: found[path] for path in sorted(found, key=paths.depth_first)}


def _filled_in(found: Entries, link: DumpEntry) -> DumpEntry:
    target, seen = link, {link.path}
    while target.hardlink is not None:
        following = found.get(target.hardlink)
        if following is None or following.path in seen:
            raise InputError(f"hard link {paths.show(link.path)} leads nowhere")
        seen.add(following.path)
        target = following
    return msgspec.structs.replace(target, path=link.path, hardlink=target.path)


def argument_path(text: str) -> bytes:
    """Return the path that a command-line argument means, for `locate`: it may have `..` in it.

    Raises `InputError` for a name that no file can have.
    """
    parts = [part for part in os.fsencode(text).split(b"/") if part not in {b"", b"."}]
    for part in parts:
        if part != b"..":
            paths.check_name(part)
    return paths.ROOT + b"/".join(parts)


def locate(entries: Entries, path: bytes, *, image: str, follow: bool) -> DumpEntry:
    """Return what `path` leads to, with symbolic links in its directories resolved.

    With `follow` a symbolic link at the end is resolved too. Raises `UsageError` if nothing is there.
    """
    parts = [part for part in path.split(b"/") if part][::-1]
    here = paths.ROOT
    budget = SYMLINKS_MAX
    while parts:
        part = parts.pop()
        if part == b"..":
            here = paths.parent(here)
            continue
        step = paths.join(here, part)
        entry = entries.get(step)
        if entry is None:
            raise _missing(path, step, image)
        if not stat.S_ISLNK(entry.mode) or (not parts and not follow):
            here = step
            continue
        budget -= 1
        if budget < 0:
            raise UsageError(
                f"{paths.show(path)}: too many levels of symbolic links in {image}", reason="symlink-loop"
            )
        target = entry.payload or b""
        if target.startswith(b"/"):
            here = paths.ROOT
        parts += [name for name in target.split(b"/") if name not in {b"", b"."}][::-1]
    return entries[here]


def _missing(path: bytes, step: bytes, image: str) -> UsageError:
    details = "" if step == path else f"{paths.show(step)} does not exist"
    return UsageError(f"{paths.show(path)} is not in {image}", details=details, reason="no-such-path")


def children(entries: Entries, directory: bytes) -> list[DumpEntry]:
    """Return what is in `directory`, by unsigned bytes of the names."""
    prefix = directory if directory == paths.ROOT else directory + b"/"
    start = len(prefix)
    found = [
        entry
        for path, entry in entries.items()
        if path.startswith(prefix) and len(path) > start and b"/" not in path[start:]
    ]
    return sorted(found, key=lambda entry: entry.path)


def below(entries: Entries, top: bytes) -> Iterator[DumpEntry]:
    """Yield `top` and everything below it, depth first."""
    return (entry for path, entry in entries.items() if path == top or paths.is_below(path, top))
