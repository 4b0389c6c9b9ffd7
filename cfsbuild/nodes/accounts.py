"""The kind `accounts`: users and groups in the account databases of the image."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator

import msgspec

from cfsbuild.errors import BuildError
from cfsbuild.nodes import metadata
from cfsbuild.nodes.account_files import Database, Databases, sysusers, unknown_group
from cfsbuild.nodes.account_params import AccountsParams, Group, User, check, own_groups, owners_of
from cfsbuild.nodes.kind import Fingerprint, NodeContext, NodeKind
from cfsbuild.recipe.types import parse_mode
from cfsbuild.tree import paths
from cfsbuild.tree.inode import Inode
from cfsbuild.tree.layer import Layer, Tree, make_layer

__all__ = ["KIND", "AccountsParams", "Group", "User", "owners_of"]

_SHADOW_GROUP = "shadow"
_DATABASE_BYTES = 16 * 2**20


def produce(context: NodeContext, params: AccountsParams, fingerprint: Fingerprint) -> Layer:
    """Return a layer with the databases, and with home directories and a sysusers.d file if asked for."""
    del fingerprint
    tree = context.input or Tree(entries={})
    databases = Databases(
        *(
            _read(context, tree, path)
            for path in (b"/etc/passwd", b"/etc/group", b"/etc/shadow", b"/etc/gshadow")
        )
    )
    groups = list(params.groups)
    for index, group in enumerate(params.groups):
        databases.add_group(group, context.spec.origin_of(f"groups.{index}"))
    for index, group in own_groups(params):
        groups.append(group)
        databases.add_group(group, context.spec.origin_of(f"users.{index}"))
    users = [(user, _primary(context, databases, index, user)) for index, user in enumerate(params.users)]
    for index, (user, gid) in enumerate(users):
        databases.add_user(user, gid, context.spec.origin_of(f"users.{index}"))
    _join_groups(context, databases, params)
    databases.lock_others()
    entries = _files(context, tree, databases)
    entries.update(_homes(users))
    if params.sysusers:
        path = b"/usr/lib/sysusers.d/" + metadata.to_bytes(context.spec.name) + b".conf"
        content = sysusers(users, groups)
        entries[paths.normalise(path)] = metadata.regular_file(content, context.sink, mode=0o644)
    return make_layer(entries)


def _join_groups(context: NodeContext, databases: Databases, params: AccountsParams) -> None:
    for index, user in enumerate(params.users):
        for position, group in enumerate(user.groups):
            databases.add_member(group, user.name, context.spec.origin_of(f"users.{index}.groups.{position}"))
    for index, group_declared in enumerate(params.groups):
        for position, member in enumerate(group_declared.members):
            origin = context.spec.origin_of(f"groups.{index}.members.{position}")
            databases.add_member(group_declared.name, member, origin)


def _primary(context: NodeContext, databases: Databases, index: int, user: User) -> int:
    """Return the gid of a user's primary group."""
    if isinstance(user.group, int):
        return user.group
    name = user.group or user.name
    found = databases.group.find(name)
    if found is not None:
        return int(found[1][2])
    raise unknown_group(user.name, name, context.spec.origin_of(f"users.{index}.group"))


def _read(context: NodeContext, tree: Tree, path: bytes) -> bytes | None:
    """Return a database of the input tree; None if it is not there."""
    inode = tree.entries.get(tree.links.get(path, path))
    if inode is None:
        return None
    if not inode.is_regular:
        raise BuildError(
            f"{paths.show(path)} is not a regular file in what {context.spec.name} needs",
            resolution="accounts are merged into regular files only: remove or replace it first",
            origin=context.origin,
            reason="accounts-file",
        )
    return metadata.read_content(context, inode, most=_DATABASE_BYTES)


def _files(context: NodeContext, tree: Tree, databases: Databases) -> dict[bytes, Inode]:
    shadow = databases.group.find(_SHADOW_GROUP)
    hidden = (0o640, int(shadow[1][2])) if shadow is not None else (0o600, 0)
    entries = {}
    for database in databases.all():
        path = metadata.to_bytes(database.path)
        mode, gid = hidden if database in {databases.shadow, databases.gshadow} else (0o644, 0)
        entries[path] = _file(context, tree, database, path, Inode(mode=stat.S_IFREG | mode, gid=gid))
    return entries


def _file(context: NodeContext, tree: Tree, database: Database, path: bytes, new: Inode) -> Inode:
    """Return a database's inode: new content, with owner and mode as they are or, if it is new, `new`'s."""
    before = tree.entries.get(tree.links.get(path, path), new)
    content = metadata.regular_file(database.encode(), context.sink, mode=stat.S_IMODE(before.mode))
    return msgspec.structs.replace(
        content, uid=before.uid, gid=before.gid, mtime_ns=before.mtime_ns, xattrs=before.xattrs
    )


def _homes(users: Iterable[tuple[User, int]]) -> Iterator[tuple[bytes, Inode]]:
    for user, gid in users:
        if user.create_home and user.home is not None:
            inode = Inode(mode=stat.S_IFDIR | parse_mode(user.home_mode), uid=user.uid, gid=gid)
            yield metadata.tree_path(user.home), inode


KIND = NodeKind(
    name="accounts",
    version=1,
    summary="Users and groups, merged into /etc/passwd, group, shadow and gshadow; passwords are locked.",
    params=AccountsParams,
    produce=produce,
    check=check,
    reads=True,
)
