"""What all kinds do alike: paths, owners, extended attributes, small contents."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Protocol

import msgspec

from cfsbuild import limits
from cfsbuild.errors import BuildError, CfsError, InputError, Problem
from cfsbuild.nodes.kind import NodeContext, ObjectSink, Owners
from cfsbuild.recipe.model import NodeSpec
from cfsbuild.tree import paths
from cfsbuild.tree.globs import compile_globs
from cfsbuild.tree.inode import Inode, Xattrs, sorted_xattrs, xattr_space

XattrTable = Annotated[
    dict[str, str],
    msgspec.Meta(
        description="Extended attributes: full name (`user.comment`) to value. A value is text, or bytes in "
        "hexadecimal after `0x`, or bytes in base64 after `0s`, as getfattr prints them.",
        examples=[{"user.comment": "made by hand", "security.capability": "0x0100000200200000"}],
    ),
]

Seconds = Annotated[
    int,
    msgspec.Meta(
        description="Modification time in seconds since 1970. The image caps it at the recipe's epoch.",
        ge=-(2**33),
        le=2**34,
    ),
]

_NAMESPACES = ("user.", "trusted.", "security.", "system.")
_OVERLAY_NAMES = "trusted.overlay."


def tree_path(text: str) -> bytes:
    """Return the normal form of a path that a recipe gives; raises `InputError`."""
    return paths.normalise(to_bytes(text))


def to_bytes(text: str) -> bytes:
    """Return the bytes that a recipe's text stands for: UTF-8, whatever the locale."""
    return text.encode("utf-8", "surrogateescape")


def user_id(value: str | int, owners: Owners) -> int:
    """Return the uid that `value` names. Raises `BuildError` for a name that nobody declares."""
    return _identity("user", value, owners.uids)


def group_id(value: str | int, owners: Owners) -> int:
    """Return the gid that `value` names. Raises `BuildError` for a name that nobody declares."""
    return _identity("group", value, owners.gids)


def _identity(what: str, value: str | int, known: Mapping[str, int]) -> int:
    if isinstance(value, int):
        return value
    if value not in known:
        raise BuildError(
            f"{what} {value!r} is not declared",
            resolution="declare it in an accounts node, or give a number",
            reason="unknown-owner",
        )
    return known[value]


class Owned(Protocol):
    """Parameters with an owner and a group: names, numbers, or None for no choice."""

    @property
    def owner(self) -> str | int | None:
        """The user."""

    @property
    def group(self) -> str | int | None:
        """The group."""


def owner_names(params: Owned, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield what `NodeKind.owner_names` wants for the `owner` and `group` of `params`."""
    if isinstance(params.owner, str):
        yield prefix + "owner", "user", params.owner
    if isinstance(params.group, str):
        yield prefix + "group", "group", params.group


class Attributed(Protocol):
    """Parameters of a kind that makes inodes of its own."""

    @property
    def owner(self) -> str | int:
        """The user."""

    @property
    def group(self) -> str | int:
        """The group."""

    @property
    def xattrs(self) -> dict[str, str]:
        """A table as in `XattrTable`."""


def attributed(inode: Inode, params: Attributed, owners: Owners) -> Inode:
    """Return `inode` with owner, group and xattrs of `params`.

    Raises `InputError` for xattrs that no inode can have, `BuildError` for names that nobody declares.
    """
    xattrs = parse_xattrs(params.xattrs)
    check_xattr_space(xattrs)
    uid, gid = user_id(params.owner, owners), group_id(params.group, owners)
    return msgspec.structs.replace(inode, uid=uid, gid=gid, xattrs=xattrs)


def parse_xattrs(table: Mapping[str, str]) -> Xattrs:
    """Return canonical xattrs; raises `InputError` for a bad name or value."""
    return sorted_xattrs({xattr_name(name): xattr_value(name, value) for name, value in table.items()})


def xattr_name(name: str) -> bytes:
    """Return the bytes of an xattr's name; raises `InputError` if no file can have it."""
    encoded = to_bytes(name)
    if not name.startswith(_NAMESPACES) or name in _NAMESPACES:
        raise InputError(
            f"extended attribute {name!r} is in no known namespace",
            resolution="names begin with " + ", ".join(_NAMESPACES),
        )
    if "\0" in name or len(encoded) > limits.XATTR_NAME_BYTES:
        raise InputError(
            f"extended attribute name {name!r} has a NUL or is longer than {limits.XATTR_NAME_BYTES} bytes"
        )
    if name.startswith(_OVERLAY_NAMES):
        raise InputError(
            f"extended attribute {name!r} belongs to overlayfs",
            resolution="leave it out: the image's own overlay attributes are made when it is written",
        )
    return encoded


def xattr_value(name: str, text: str) -> bytes:
    """Return the bytes that an xattr's value in a recipe stands for; raises `InputError`."""
    try:
        if text.startswith(("0x", "0X")):
            value = bytes.fromhex(text[2:])
        elif text.startswith(("0s", "0S")):
            import base64  # noqa: PLC0415 (rare)

            value = base64.b64decode(text[2:], validate=True)
        else:
            value = to_bytes(text)
    except ValueError as error:
        raise InputError(
            f"value of extended attribute {name!r} is not what its prefix says", details=str(error)
        ) from error
    if len(value) > limits.XATTR_VALUE_BYTES:
        raise InputError(
            f"value of extended attribute {name!r} is longer than {limits.XATTR_VALUE_BYTES} bytes"
        )
    return value


def check_xattr_space(xattrs: Xattrs) -> None:
    """Raise `InputError` if an inode cannot hold so many bytes of xattrs."""
    space = xattr_space(xattrs)
    if space > limits.XATTR_INODE_BYTES:
        raise InputError(
            f"extended attributes take {space} bytes, at most {limits.XATTR_INODE_BYTES} fit on one file"
        )


def xattr_problems(spec: NodeSpec, table: Mapping[str, str], key: str = "xattrs") -> Iterator[Problem]:
    """Yield what is wrong with a table of xattrs."""
    for name, value in table.items():
        try:
            xattr_value(name, value)
            xattr_name(name)
        except InputError as error:
            yield problem_at(spec, f"{key}.{name}", error)


def problem_at(spec: NodeSpec, key: str, error: CfsError) -> Problem:
    """Return what `error` says as a problem of the parameter `key`."""
    return Problem(f"{spec.name}: {error.brief}", error.details, error.resolution, spec.origin_of(key))


def exactly_one(spec: NodeSpec, given: Iterable[tuple[str, bool]]) -> Iterator[Problem]:
    """Yield a problem unless exactly one of several parameters is given."""
    every = list(given)
    used = [name for name, is_given in every if is_given]
    if len(used) == 1:
        return
    names = ", ".join(name for name, _ in every[:-1]) + " or " + every[-1][0]
    brief = f"{spec.name}: needs one of {names}"
    if used:
        brief += f", but has {' and '.join(used)}"
    yield Problem(brief, "", "keep exactly one of them", spec.origin_of(used[-1] if used else ""))


def glob_problems(spec: NodeSpec, patterns: Iterable[tuple[str, str]]) -> Iterator[Problem]:
    """Yield what is wrong with globs, given as (key of the parameter, pattern)."""
    for key, pattern in patterns:
        try:
            compile_globs((pattern,))
        except InputError as error:
            yield problem_at(spec, key, error)


def root_problems(spec: NodeSpec, target: str, what: str) -> Iterator[Problem]:
    """Yield a problem if `target` is the root, which `what` cannot be."""
    if tree_path(target) == paths.ROOT:
        yield Problem(f"{spec.name}: {what} cannot be the root", "", "", spec.origin_of("target"))


def regular_file(content: bytes, sink: ObjectSink, *, mode: int) -> Inode:
    """Return the inode of a file of root with `content`; contents that are not inline go to `sink`."""
    inline = len(content) <= limits.INLINE_BYTES
    return Inode(
        mode=stat.S_IFREG | mode,
        size=len(content),
        content=content if inline else b"",
        digest=b"" if inline else sink.add_bytes(content),
    )


def read_content(context: NodeContext, inode: Inode, *, most: int) -> bytes:
    """Return the content of a regular file of the input tree. Raises `BuildError` beyond `most` bytes."""
    if inode.size > most:
        raise BuildError(
            f"a file of {inode.size} bytes is larger than the {most} that are read", reason="size"
        )
    if not inode.digest:
        return inode.content
    if context.read_object is None:
        raise BuildError(f"node {context.spec.name!r} cannot read objects here", reason="no-objects")
    return context.read_object(inode.digest)
