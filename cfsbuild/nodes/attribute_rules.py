"""What one rule of an `attributes` node does to an inode."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from functools import partial
from typing import Annotated, Literal

import msgspec

from cfsbuild.errors import CfsError, InputError
from cfsbuild.nodes import metadata
from cfsbuild.nodes.kind import Owners
from cfsbuild.nodes.metadata import Seconds, XattrTable
from cfsbuild.nodes.symbolic_mode import apply_mode
from cfsbuild.recipe.types import Glob, Owner
from cfsbuild.tree import acl, capabilities
from cfsbuild.tree.inode import Inode, Xattrs

FileType = Literal["file", "dir", "symlink", "char", "block", "fifo", "socket"]

_FORMATS: dict[str, int] = {
    "file": stat.S_IFREG,
    "dir": stat.S_IFDIR,
    "symlink": stat.S_IFLNK,
    "char": stat.S_IFCHR,
    "block": stat.S_IFBLK,
    "fifo": stat.S_IFIFO,
    "socket": stat.S_IFSOCK,
}


class Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Changes to everything that `match` selects. What is not given stays as it is."""

    match: Annotated[
        Glob | list[Glob],
        msgspec.Meta(
            description="Globs of paths. With a slash in it a glob is anchored at the root; a directory does "
            "not stand for what it holds (`/opt/**` does).",
            examples=["/usr/bin/ping", ["/srv/**", "/srv"]],
        ),
    ]
    types: Annotated[
        list[FileType], msgspec.Meta(description="Only what is of one of these types. Default: all.")
    ] = []
    owner: Owner | None = None
    group: Owner | None = None
    mode: Annotated[
        str | None,
        msgspec.Meta(
            description="Octal, or symbolic as for chmod(1). Symlinks keep theirs.",
            examples=["0755", "u=rwX,go=rX", "u+s"],
        ),
    ] = None
    mtime: Seconds | None = None
    xattrs: Annotated[XattrTable, msgspec.Meta(description="Extended attributes to set.")] = {}
    remove_xattrs: Annotated[
        list[str],
        msgspec.Meta(
            description="Names of extended attributes to remove, where they are. A final `*` stands for any "
            "ending.",
            examples=[["security.selinux", "user.*"]],
        ),
    ] = []
    capabilities: Annotated[
        str | None,
        msgspec.Meta(
            description="File capabilities, in the notation of setcap(8). For regular files only.",
            examples=["cap_net_raw,cap_net_admin+ep"],
        ),
    ] = None
    capabilities_rootid: Annotated[
        Annotated[int, msgspec.Meta(ge=0, le=2**32 - 2)] | None,
        msgspec.Meta(description="Let them count only in user namespaces whose root is this uid."),
    ] = None
    acl: Annotated[
        str | None,
        msgspec.Meta(
            description="Access ACL, replacing what is there. Entries for owner, group and others that are "
            "not given come from the mode.",
            examples=["user:app:rwx,group:adm:r-x"],
        ),
    ] = None
    default_acl: Annotated[
        str | None,
        msgspec.Meta(description="Default ACL, for new files in a directory. For directories only."),
    ] = None
    missing_ok: Annotated[bool, msgspec.Meta(description="Accept that nothing matches.")] = False

    @property
    def globs(self) -> list[str]:
        """Return the patterns."""
        return [self.match] if isinstance(self.match, str) else self.match


def selects(rule: Rule, inode: Inode) -> bool:
    """Say whether `rule` is about files of this type."""
    return not rule.types or inode.kind in {_FORMATS[name] for name in rule.types}


class Change:
    """A rule with everything resolved that does not depend on the inode."""

    def __init__(self, rule: Rule, owners: Owners) -> None:
        self._rule = rule
        self._uid = None if rule.owner is None else metadata.user_id(rule.owner, owners)
        self._gid = None if rule.group is None else metadata.group_id(rule.group, owners)
        self._set = dict(metadata.parse_xattrs(rule.xattrs))
        self._unset = _matcher(rule.remove_xattrs)
        self._resolve = _resolver(owners)
        if rule.capabilities is not None:
            self._set[capabilities.XATTR] = capabilities.encode_capabilities(
                rule.capabilities, rootid=rule.capabilities_rootid
            )

    def apply(self, inode: Inode) -> Inode:
        """Return the changed inode; raises `InputError` for what its type cannot have."""
        rule = self._rule
        if rule.capabilities is not None and not inode.is_regular:
            raise InputError("only regular files have capabilities", resolution='add types = ["file"]')
        mode = inode.mode
        if rule.mode is not None and not inode.is_symlink:
            mode = apply_mode(rule.mode, mode)
        xattrs = dict(inode.xattrs)
        for name in [name for name in xattrs if self._unset(name)]:
            del xattrs[name]
        xattrs.update(self._set)
        mode = self._apply_acls(inode, mode, xattrs)
        changed: Xattrs = tuple(sorted(xattrs.items()))
        metadata.check_xattr_space(changed)
        return msgspec.structs.replace(
            inode,
            mode=mode,
            uid=inode.uid if self._uid is None else self._uid,
            gid=inode.gid if self._gid is None else self._gid,
            mtime_ns=inode.mtime_ns if rule.mtime is None else rule.mtime * 10**9,
            xattrs=changed,
        )

    def _apply_acls(self, inode: Inode, mode: int, xattrs: dict[bytes, bytes]) -> int:
        """Set the ACLs in `xattrs`; return the mode that goes with them."""
        rule = self._rule
        if rule.acl is not None:
            if inode.is_symlink:
                raise InputError("a symlink has no ACL", resolution='add types = ["file", "dir"]')
            entries, mode = acl.complete_acl(acl.parse_acl(rule.acl, self._resolve), mode)
            xattrs.pop(acl.ACCESS_XATTR, None)
            if not acl.is_minimal(entries):
                xattrs[acl.ACCESS_XATTR] = acl.encode_acl(entries)
        elif rule.mode is not None and acl.ACCESS_XATTR in xattrs:
            xattrs[acl.ACCESS_XATTR] = acl.with_mode(xattrs[acl.ACCESS_XATTR], mode)
        if rule.default_acl is not None:
            if not inode.is_directory:
                raise InputError("only directories have a default ACL", resolution='add types = ["dir"]')
            entries, _ = acl.complete_acl(acl.parse_acl(rule.default_acl, self._resolve), mode)
            xattrs[acl.DEFAULT_XATTR] = acl.encode_acl(entries)
        return mode


def _resolver(owners: Owners) -> Callable[[str, str], int]:
    def resolve(what: str, name: str) -> int:
        value = int(name) if name.isdecimal() and name.isascii() else name
        return (metadata.user_id if what == "user" else metadata.group_id)(value, owners)

    return resolve


def _matcher(names: list[str]) -> Callable[[bytes], bool]:
    """Return whether an xattr's name is one of `names`; a `*` at the end of one stands for anything."""
    exact = {name.encode("utf-8", "surrogateescape") for name in names if not name.endswith("*")}
    prefixes = tuple(name[:-1].encode("utf-8", "surrogateescape") for name in names if name.endswith("*"))
    return lambda name: name in exact or name.startswith(prefixes)


def rule_errors(rule: Rule) -> list[tuple[str, CfsError]]:
    """Return (parameter, error) for everything that is wrong with a rule whatever it matches."""
    found: list[tuple[str, CfsError]] = []
    for key, action in _attempts(rule):
        try:
            action()
        except InputError as error:
            found.append((key, error))
    return found


def _attempts(rule: Rule) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield (parameter, what fails if it is wrong)."""
    if msgspec.structs.replace(rule, missing_ok=False, types=[]) == Rule(match=rule.match):
        yield "", partial(_refuse, "rule changes nothing", "give it an owner, a mode …")
    if rule.mode is not None:
        yield "mode", partial(apply_mode, rule.mode, stat.S_IFREG)
    if rule.capabilities is not None:
        yield "capabilities", partial(capabilities.encode_capabilities, rule.capabilities)
    elif rule.capabilities_rootid is not None:
        yield "capabilities_rootid", partial(_refuse, "capabilities_rootid without capabilities", "")
    for key, text in (("acl", rule.acl), ("default_acl", rule.default_acl)):
        if text is not None:
            yield key, partial(acl.names_in, text)
    for name in rule.remove_xattrs:
        if name != "*":
            # A beginning that ends in a star may be as short as its namespace.
            yield (
                "remove_xattrs",
                partial(metadata.xattr_name, name[:-1] + "x" if name.endswith("*") else name),
            )


def _refuse(brief: str, resolution: str) -> None:
    raise InputError(brief, resolution=resolution)
