"""What an `accounts` node declares, and what can be wrong with it before anything is read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated

import msgspec

from cfsbuild.errors import Origin, Problem, RecipeError
from cfsbuild.nodes.kind import Owners
from cfsbuild.recipe.model import NodeSpec
from cfsbuild.recipe.types import Mode, Owner, TreePath

Name = Annotated[
    str,
    msgspec.Meta(
        description="Letters, digits, `_`, `-` and `.`; not all digits, no `-` first; at most 31 characters.",
        min_length=1,
        max_length=31,
        pattern=r"^(?![0-9]+$)[A-Za-z0-9_.][A-Za-z0-9_.-]*$(?!\n)",
    ),
]
Field = Annotated[str, msgspec.Meta(pattern=r"^[^:\r\n\x00]*$(?!\n)")]
Id = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 2)]
_NEVER_AN_ID = 65535
"""(uid_t) -1 of 16-bit programs; nothing may have it."""


class User(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One user. Its password is locked."""

    name: Annotated[Name, msgspec.Meta(description="The login name.")]
    uid: Annotated[Id, msgspec.Meta(description="The user's number.")]
    group: Annotated[
        Owner | None,
        msgspec.Meta(
            description="The primary group, by name or number. Default: the group with the user's name, "
            "which is created with the user's number as gid if nobody declares it."
        ),
    ] = None
    gecos: Annotated[Field | None, msgspec.Meta(description="The full name or a comment; no colon.")] = None
    home: Annotated[TreePath | None, msgspec.Meta(description="Home directory. Default: `/`.")] = None
    shell: Annotated[
        TreePath | None, msgspec.Meta(description="Login shell. Default: `/usr/sbin/nologin`.")
    ] = None
    groups: Annotated[list[Name], msgspec.Meta(description="Further groups that the user is in.")] = []
    create_home: Annotated[bool, msgspec.Meta(description="Make the home directory, owned by the user.")] = (
        False
    )
    home_mode: Annotated[Mode, msgspec.Meta(description="Permission bits of the home directory.")] = "0700"


class Group(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One group. Its password is locked."""

    name: Annotated[Name, msgspec.Meta(description="The group's name.")]
    gid: Annotated[Id, msgspec.Meta(description="The group's number.")]
    members: Annotated[list[Name], msgspec.Meta(description="Names of users that are in it.")] = []


class AccountsParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Users and groups, merged into /etc/passwd, group, shadow and gshadow of what the node needs."""

    users: Annotated[list[User], msgspec.Meta(description="Users to add.")] = []
    groups: Annotated[list[Group], msgspec.Meta(description="Groups to add.")] = []
    sysusers: Annotated[
        bool,
        msgspec.Meta(
            description="Also write /usr/lib/sysusers.d/NODE.conf, so that systemd-sysusers makes the same "
            "accounts where /etc starts empty."
        ),
    ] = False


class Declared(msgspec.Struct, frozen=True):
    """One user or group with the place where it is written. `what` is "user" or "group"."""

    what: str
    name: str
    number: int
    node: str
    origin: Origin | None


def own_groups(params: AccountsParams) -> Iterator[tuple[int, Group]]:
    """Yield (index of the user, group) for each group that exists because a user names none."""
    declared = {group.name for group in params.groups}
    for index, user in enumerate(params.users):
        if user.group is None and user.name not in declared:
            yield index, Group(name=user.name, gid=user.uid)


def declared(spec: NodeSpec) -> Iterator[Declared]:
    """Yield every user and group of an accounts node."""
    params: AccountsParams = spec.params
    for index, user in enumerate(params.users):
        yield Declared("user", user.name, user.uid, spec.name, spec.origin_of(f"users.{index}"))
    for index, group in enumerate(params.groups):
        yield Declared("group", group.name, group.gid, spec.name, spec.origin_of(f"groups.{index}"))
    for index, group in own_groups(params):
        yield Declared("group", group.name, group.gid, spec.name, spec.origin_of(f"users.{index}"))


def owners_of(specs: Iterable[NodeSpec]) -> Owners:
    """Return the names that the accounts nodes of a recipe declare, plus root.

    Raises `RecipeError` when two of them give one name two numbers, or one number two names.
    """
    every = [item for spec in specs for item in declared(spec)]
    problems = tuple(collisions(every))
    if problems:
        raise RecipeError(problems)
    uids, gids = dict(Owners().uids), dict(Owners().gids)
    for item in every:
        (uids if item.what == "user" else gids)[item.name] = item.number
    return Owners(uids=uids, gids=gids)


def collisions(every: Iterable[Declared]) -> Iterator[Problem]:
    """Yield a problem for each pair of declarations that contradict each other."""
    root = [Declared(what, "root", 0, "", None) for what in ("user", "group")]
    by_name = {(item.what, item.name): item for item in root}
    by_number = {(item.what, item.number): item for item in root}
    for item in every:
        other = by_name.setdefault((item.what, item.name), item)
        if other.number != item.number:
            yield _collision(f"{item.what} {item.name} is {other.number} and {item.number}", other, item)
            continue
        other = by_number.setdefault((item.what, item.number), item)
        if other.name != item.name:
            number = "uid" if item.what == "user" else "gid"
            yield _collision(f"{number} {item.number} is both {other.name} and {item.name}", other, item)


def _collision(brief: str, first: Declared, second: Declared) -> Problem:
    lines = [
        f"{item.node}, {item.origin}" if item.node else "every system has it" for item in (first, second)
    ]
    return Problem(
        brief, f"first: {lines[0]}\nthen:  {lines[1]}", "give each a number of its own", second.origin
    )


def check(spec: NodeSpec) -> Iterator[Problem]:
    """Find what is wrong within one node; contradictions between numbers are `owners_of`'s."""
    params: AccountsParams = spec.params
    if not params.users and not params.groups:
        yield Problem(f"{spec.name}: declares no user and no group", "", "add users or groups", spec.origin)
    seen: set[tuple[str, str]] = set()
    for item in declared(spec):
        if (item.what, item.name) in seen:
            yield Problem(f"{spec.name}: {item.what} {item.name} is declared twice", origin=item.origin)
        seen.add((item.what, item.name))
        if item.number == _NEVER_AN_ID:
            yield Problem(
                f"{spec.name}: {item.what} {item.name} cannot be number {_NEVER_AN_ID}",
                "it means 'no such id' to old system calls",
                "choose another",
                item.origin,
            )
    for index, user in enumerate(params.users):
        for key, path in (("home", user.home), ("shell", user.shell)):
            if path is not None and ":" in path:
                yield Problem(
                    f"{spec.name}: {key} of {user.name} contains a colon, which ends a field of /etc/passwd",
                    origin=spec.origin_of(f"users.{index}.{key}"),
                )
        if user.create_home and (user.home is None or not user.home.strip("/")):
            yield Problem(
                f"{spec.name}: {user.name} has no home directory of its own to create",
                "",
                "add home = …",
                spec.origin_of(f"users.{index}.create_home"),
            )
