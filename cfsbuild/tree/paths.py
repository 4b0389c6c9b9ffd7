"""Paths inside a tree: bytes, absolute, `/`-separated, normal.

A path never becomes a path of the host; it names an entry of a tree and nothing else.
"""

from __future__ import annotations

from cfsbuild import limits
from cfsbuild.errors import InputError

ROOT = b"/"


def normalise(path: bytes) -> bytes:
    """Return `path` as an absolute tree path: leading slash added, repeated and trailing slashes dropped.

    Raises `InputError` for `.`, `..`, NUL, and names or paths over the limits.
    """
    parts = [part for part in path.split(b"/") if part]
    for part in parts:
        check_name(part)
    result = b"/" + b"/".join(parts)
    if len(result) > limits.PATH_BYTES:
        raise InputError(f"path is {len(result)} bytes long, at most {limits.PATH_BYTES} are allowed")
    if len(parts) > limits.PATH_DEPTH:
        raise InputError(f"path is {len(parts)} levels deep, at most {limits.PATH_DEPTH} are allowed")
    return result


def check_name(name: bytes) -> None:
    """Raise `InputError` unless `name` can be a directory entry."""
    if not name or name in {b".", b".."}:
        raise InputError(f"{show(name)!r} cannot be a file name in a tree")
    if b"\0" in name or b"/" in name:
        raise InputError(f"file name {show(name)!r} contains a NUL byte or a slash")
    if len(name) > limits.NAME_BYTES:
        raise InputError(f"file name is {len(name)} bytes long, at most {limits.NAME_BYTES} are allowed")


def parent(path: bytes) -> bytes:
    """Return the directory that holds `path`; the root is its own parent."""
    return path[: path.rfind(b"/")] or ROOT


def name(path: bytes) -> bytes:
    """Return the last component of `path`; empty for the root."""
    return path[path.rfind(b"/") + 1 :]


def join(directory: bytes, child: bytes) -> bytes:
    """Return the path of `child` (one or more components, no leading slash) below `directory`."""
    return directory + child if directory == ROOT else directory + b"/" + child


def ancestors(path: bytes) -> list[bytes]:
    """Return every directory above `path`, the root first; empty for the root itself."""
    result = []
    while path != ROOT:
        path = parent(path)
        result.append(path)
    result.reverse()
    return result


def is_below(path: bytes, directory: bytes) -> bool:
    """Say whether `path` lies strictly below `directory`."""
    return path != directory and (directory == ROOT or path.startswith(directory + b"/"))


def depth_first(path: bytes) -> bytes:
    """Return the sort key of the canonical order: depth first, children by unsigned bytes of their names."""
    return path.replace(b"/", b"\0")


def show(path: bytes) -> str:
    r"""Return `path` for people: UTF-8 where it is, everything unprintable as `\xHH`."""
    # Not os.fsdecode, which follows the locale.
    text = path.decode("utf-8", "surrogateescape")
    return "".join(
        char
        if char.isprintable()
        else "".join(f"\\x{byte:02x}" for byte in char.encode("utf-8", "surrogateescape"))
        for char in text
    )
