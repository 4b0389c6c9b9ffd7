"""Account databases as text: passwd(5), group(5), shadow(5), gshadow(5).

Lines that are there keep their order and, unless something about them is declared, every byte. New lines go
to the end, but before a `+` or `-` line of the NIS compatibility mode, which would shadow them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cfsbuild.errors import BuildError, Origin
from cfsbuild.nodes.account_params import Group, User

NOLOGIN = "/usr/sbin/nologin"
ROOT_USER = "root:x:0:0:root:/root:/bin/sh"
ROOT_GROUP = "root:x:0:"
LOCKED = "!*"
"""No password matches it, and `passwd -u` refuses to unlock it: as systemd-sysusers writes it."""


class Database:
    """The lines of one file. `number` is the column of the id, `width` how many columns a line has."""

    def __init__(self, path: str, content: bytes | None, *, width: int, number: int | None = None) -> None:
        self.path = path
        self.existed = content is not None
        self.width = width
        self._number = number
        text = (content or b"").decode("utf-8", "surrogateescape")
        self.lines = text.split("\n")
        if self.lines[-1] == "":
            self.lines.pop()

    def encode(self) -> bytes:
        """Return the file's bytes."""
        return "".join(line + "\n" for line in self.lines).encode("utf-8", "surrogateescape")

    def rows(self) -> list[tuple[int, list[str]]]:
        """Return (line index, fields) of each line that is an entry."""
        parsed = ((index, self._fields(line)) for index, line in enumerate(self.lines))
        return [(index, fields) for index, fields in parsed if fields is not None]

    def _fields(self, line: str) -> list[str] | None:
        """Return the fields of a line, None if it is no entry."""
        fields = line.split(":")
        if not fields[0] or line[0] in "+-#" or len(fields) < 3:
            return None
        if self._number is not None:
            number = fields[self._number]
            if not (number.isascii() and number.isdecimal()):
                return None
        return fields + [""] * (self.width - len(fields))

    def _first(self, part: str, matches: Callable[[list[str]], bool]) -> tuple[int, list[str]] | None:
        """Return the first entry that matches; only lines that contain `part` are looked at."""
        for index, line in enumerate(self.lines):
            if part in line:
                fields = self._fields(line)
                if fields is not None and matches(fields):
                    return index, fields
        return None

    def find(self, name: str) -> tuple[int, list[str]] | None:
        """Return the first entry called `name`, as a lookup would."""
        return self._first(name + ":", lambda fields: fields[0] == name)

    def find_number(self, number: int) -> tuple[int, list[str]] | None:
        """Return the first entry whose id is `number`."""
        if self._number is None:
            return None
        column, wanted = self._number, str(number)
        return self._first(f":{number}:", lambda fields: fields[column] == wanted)

    def add(self, fields: Sequence[str]) -> None:
        """Append an entry."""
        at = len(self.lines)
        while at and self.lines[at - 1][:1] in {"+", "-"}:
            at -= 1
        self.lines.insert(at, ":".join(fields))

    def change(self, index: int, fields: Sequence[str]) -> None:
        """Write an entry anew."""
        self.lines[index] = ":".join(fields)


class Databases:
    """The four files together."""

    def __init__(
        self, passwd: bytes | None, group: bytes | None, shadow: bytes | None, gshadow: bytes | None
    ) -> None:
        self.passwd = Database("/etc/passwd", passwd, width=7, number=2)
        self.group = Database("/etc/group", group, width=4, number=2)
        self.shadow = Database("/etc/shadow", shadow, width=9)
        self.gshadow = Database("/etc/gshadow", gshadow, width=4)
        if not self.passwd.existed:
            self.passwd.lines.append(ROOT_USER)
        if not self.group.existed:
            self.group.lines.append(ROOT_GROUP)

    def all(self) -> tuple[Database, Database, Database, Database]:
        """Return the databases: passwd, group, shadow, gshadow."""
        return self.passwd, self.group, self.shadow, self.gshadow

    def add_group(self, group: Group, origin: Origin | None) -> None:
        """Add a group, or accept that it is there with the same gid."""
        wanted = [group.name, "x", str(group.gid), ""]
        self._check_free(self.group, "group", wanted, origin)
        if self.group.find(group.name) is None:
            self.group.add(wanted)
        self._add_locked(self.gshadow, [group.name, LOCKED, "", ""])

    def add_user(self, user: User, gid: int, origin: Origin | None) -> None:
        """Add a user, or bring the one that is there in line with what is declared."""
        wanted = [
            user.name,
            "x",
            str(user.uid),
            str(gid),
            user.gecos or "",
            user.home or "/",
            user.shell or NOLOGIN,
        ]
        self._check_free(self.passwd, "user", wanted, origin)
        found = self.passwd.find(user.name)
        if found is None:
            self.passwd.add(wanted)
        else:
            index, fields = found
            if fields[3] != wanted[3]:
                raise _collision(
                    f"user {user.name} has primary group {fields[3]} already",
                    self.passwd.path,
                    ":".join(fields),
                    ":".join(wanted),
                    origin,
                )
            fields = list(fields)
            for column, value in ((4, user.gecos), (5, user.home), (6, user.shell)):
                if value is not None:
                    fields[column] = value
            self.passwd.change(index, fields)
        self._add_locked(self.shadow, [user.name, LOCKED, *[""] * 7])

    def add_member(self, group: str, user: str, origin: Origin | None) -> None:
        """Put a user into a group; both must be there."""
        if self.passwd.find(user) is None:
            raise BuildError(
                f"group {group} is to have the member {user}, but there is no such user",
                resolution="declare the user, or add what provides it to needs",
                origin=origin,
                reason="unknown-user",
            )
        found = self.group.find(group)
        if found is None:
            raise unknown_group(user, group, origin)
        self._join(self.group, found, user)
        hidden = self.gshadow.find(group)
        if hidden is not None:
            self._join(self.gshadow, hidden, user)

    def lock_others(self) -> None:
        """In shadow files that were not there, give every entry that refers to them a locked password."""
        for public, hidden in ((self.passwd, self.shadow), (self.group, self.gshadow)):
            if hidden.existed:
                continue
            present = {fields[0]: line for line, (_, fields) in zip(hidden.lines, hidden.rows(), strict=True)}
            empty = [""] * (hidden.width - 2)
            hidden.lines = []
            for _, fields in public.rows():
                if fields[1] == "x":
                    members = ["", fields[3]] if public is self.group else empty
                    hidden.lines.append(present.get(fields[0]) or ":".join([fields[0], LOCKED, *members]))

    @staticmethod
    def _join(database: Database, row: tuple[int, list[str]], user: str) -> None:
        index, fields = row
        members = [member for member in fields[3].split(",") if member]
        if user not in members:
            database.change(index, [*fields[:3], ",".join([*members, user])])

    @staticmethod
    def _add_locked(database: Database, fields: list[str]) -> None:
        if database.find(fields[0]) is None:
            database.add(fields)

    @staticmethod
    def _check_free(database: Database, what: str, wanted: list[str], origin: Origin | None) -> None:
        """Raise `BuildError` if name or number are there and mean something else."""
        found = database.find(wanted[0])
        if found is not None:
            if found[1][2] != wanted[2]:
                brief = f"{what} {wanted[0]} exists already as number {found[1][2]}"
                raise _collision(brief, database.path, ":".join(found[1]), ":".join(wanted), origin)
            return
        found = database.find_number(int(wanted[2]))
        if found is not None:
            brief = f"number {wanted[2]} belongs to the {what} {found[1][0]} already"
            raise _collision(brief, database.path, ":".join(found[1]), ":".join(wanted), origin)


def unknown_group(user: str, group: str, origin: Origin | None) -> BuildError:
    """Return the error for a group that a user is to be in and that is nowhere."""
    return BuildError(
        f"user {user} is to be in the group {group}, but there is no such group",
        resolution="declare the group, or add what provides it to needs",
        origin=origin,
        reason="unknown-group",
    )


def _collision(brief: str, path: str, there: str, wanted: str, origin: Origin | None) -> BuildError:
    return BuildError(
        brief,
        details=f"in {path}: {there}\ndeclared: {wanted}",
        resolution="declare what is there, or choose another name or number",
        origin=origin,
        reason="account-collision",
    )


def sysusers(users: Sequence[tuple[User, int]], groups: Sequence[Group]) -> bytes:
    """Return a sysusers.d(5) file for users with their gids, and groups."""
    lines = [f"g {group.name} {group.gid}" for group in groups]
    for user, gid in users:
        gecos = _quoted(user.gecos) if user.gecos else "-"
        fields = (f"u {user.name} {user.uid}:{gid}", gecos, _quoted(user.home or "/"))
        lines.append(" ".join((*fields, _quoted(user.shell or NOLOGIN))))
    for user, _ in users:
        lines += [f"m {user.name} {group}" for group in user.groups]
    lines += [f"m {member} {group.name}" for group in groups for member in group.members]
    return "".join(line + "\n" for line in dict.fromkeys(lines)).encode("utf-8", "surrogateescape")


def _quoted(text: str) -> str:
    """Return a word of sysusers.d: quoted where needed, specifiers taken literally."""
    text = text.replace("%", "%%")
    if not any(char in text for char in " \t\"'\\"):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
