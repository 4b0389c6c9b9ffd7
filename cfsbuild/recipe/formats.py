"""What the string formats of `cfsbuild.recipe.types` demand."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from cfsbuild import limits
from cfsbuild.errors import InputError
from cfsbuild.recipe import types
from cfsbuild.tree.globs import compile_globs

_ID_MAX = 2**32 - 2
_ID_DIGITS = frozenset("0123456789")


def check(name: str, value: str | int) -> str:
    """Return what is wrong with a value of the format `name`, as a half sentence; empty if nothing is."""
    checker = _CHECKS.get(name)
    return checker(value) if checker else ""


def remedy(name: str, value: str | int) -> str:
    """Return what to write instead of a value that `check` refuses; empty if that is not plain to see."""
    parts = [part for part in str(value).split("/") if part not in {"", "."}]
    path = "/" + "/".join(parts)
    if name != types.FORMAT_TREE_PATH or not parts or _tree_path(path):
        return ""
    return f"write {msgspec.json.encode(path).decode()}"


def _tree_path(value: str | int) -> str:
    path = str(value)
    if not path.startswith("/"):
        return "must be an absolute path inside the image, with a leading slash"
    parts = [part for part in path.split("/") if part]
    if ".." in parts or "." in parts:
        return "must not contain `.` or `..` as a component"
    encoded = [len(part.encode("utf-8", "surrogatepass")) for part in parts]
    if any(size > limits.NAME_BYTES for size in encoded):
        return f"has a file name of more than {limits.NAME_BYTES} bytes"
    if sum(encoded) + len(encoded) > limits.PATH_BYTES:
        return f"is longer than {limits.PATH_BYTES} bytes"
    if len(parts) > limits.PATH_DEPTH:
        return f"is more than {limits.PATH_DEPTH} levels deep"
    return _one_line(path)


def _local_path(value: str | int) -> str:
    path = str(value)
    if not path:
        return "must not be empty"
    if len(path.encode("utf-8", "surrogatepass")) > limits.PATH_BYTES:
        return f"is longer than {limits.PATH_BYTES} bytes"
    return _one_line(path)


def _mode(value: str | int) -> str:
    try:
        types.parse_mode(str(value))
    except ValueError:
        return 'must be permission bits in octal, such as "0755"'
    return ""


def _owner(value: str | int) -> str:
    if isinstance(value, int):
        return "" if 0 <= value <= _ID_MAX else f"must be a number from 0 to {_ID_MAX}"
    if not value:
        return "must not be empty"
    if _ID_DIGITS.issuperset(value):
        return f"is a name made of digits; write the number {value} without quotes"
    if any(char in value for char in ":/,") or not value.isprintable() or value[0] in "-+" or " " in value:
        return "is not a name that a user or group can have"
    return ""


def _glob(value: str | int) -> str:
    try:
        compile_globs((str(value),))
    except InputError as error:
        return f"is not a pattern: {error.brief}"
    return _one_line(str(value))


def _one_line(text: str) -> str:
    return "must not contain NUL or newline characters" if "\0" in text or "\n" in text else ""


_CHECKS: dict[str, Callable[[str | int], str]] = {
    types.FORMAT_TREE_PATH: _tree_path,
    types.FORMAT_LOCAL_PATH: _local_path,
    types.FORMAT_MODE: _mode,
    types.FORMAT_OWNER: _owner,
    types.FORMAT_GLOB: _glob,
}
