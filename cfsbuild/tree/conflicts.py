"""Conflicts between nodes: two of them want one path to be different things."""

from __future__ import annotations

import enum
import posixpath
from collections.abc import Sequence

import msgspec

from cfsbuild.errors import CfsError, Origin, Problem
from cfsbuild.tree import paths
from cfsbuild.tree.diff import inode_changes
from cfsbuild.tree.globs import literal_glob
from cfsbuild.tree.inode import Inode

SHOWN_PER_PAIR = 10
"""Conflicts of one pair of nodes that are shown one by one; the others are counted."""


class Party(msgspec.Struct, frozen=True):
    """A node that takes part in a conflict."""

    node: str
    kind: str
    static: bool
    origin: Origin | None

    def __str__(self) -> str:
        """Return the node for people: name, kind, recipe line."""
        place = f", {self.origin}" if self.origin else ""
        return f"{self.node} ({self.kind}{place})"


class ConflictType(enum.Enum):
    """How two nodes disagree."""

    DIFFERENT = "different"
    """Both declare the path, differently."""
    BELOW = "below"
    """One puts something below a path that the other makes a non-directory."""


class Conflict(msgspec.Struct, frozen=True):
    """`later` and `earlier` (in topological order) disagree about `path`.

    For `BELOW`, `path` is the non-directory, `example` something that another node has below it, and
    `earlier` the node whose non-directory it is. `ordered` says whether `later` reaches `earlier` through
    its needs. `before` and `after` are the two inodes; `after` is None for `BELOW`.
    """

    type: ConflictType
    path: bytes
    earlier: Party
    later: Party
    before: Inode
    after: Inode | None
    ordered: bool
    example: bytes = b""

    def problem(self) -> Problem:
        """Return what to tell the user."""
        if self.type is ConflictType.BELOW:
            return self._below_problem()
        shown = paths.show(self.path)
        details = [f"first: {self.earlier}", f"then:  {self.later}"]
        if self.after is not None:
            changes = inode_changes(self.before, self.after)
            details += [f"{name}: {_shown(a)} / {_shown(b)}" for name, a, b in changes]
        needs = "" if self.ordered else f'add "{self.earlier.node}" to its needs and '
        return Problem(
            f"{self.earlier.node} and {self.later.node} both provide {shown}, and differ",
            "\n".join(details),
            f"if {self.later.node} is meant to win, {needs}add {_quoted(shown)} to its replaces;"
            " else leave the path out of one of them",
            self.later.origin,
        )

    def _below_problem(self) -> Problem:
        shown = paths.show(self.path)
        what = "a symlink" if self.before.is_symlink else "not a directory"
        target = f" -> {paths.show(self.before.target)}" if self.before.is_symlink else ""
        if self.earlier.node == self.later.node:
            return Problem(
                f"{self.later.node} provides {paths.show(self.example)}, but makes {shown} {what}",
                f"{shown}{target} in {self.earlier}",
                "a path never goes through a symlink or a file: leave out one of the two",
                self.later.origin,
            )
        hint = "choose another path"
        if self.before.is_symlink:
            hint = f"write {paths.show(self._where_it_leads())}, where the link leads"
        below = paths.show(self.example)
        return Problem(
            f"{self.later.node} provides {below}, but {self.earlier.node} makes {shown} {what}",
            f"{shown}{target} in {self.earlier}\nbelow it: {below} in {self.later}",
            f"a path never goes through a symlink or a file: {hint},"
            f" or remove {shown} with a remove node first",
            self.later.origin,
        )

    def _where_it_leads(self) -> bytes:
        """Return the example's path with the symlink followed, by its text alone."""
        below = self.example[len(self.path) :]
        return posixpath.normpath(posixpath.join(paths.parent(self.path), self.before.target) + below)


class ConflictError(CfsError):
    """Nodes disagree, and at least one of them could only be known by building it."""

    exit_code = 1

    def __init__(self, conflicts: Sequence[Conflict]) -> None:
        self.conflicts = tuple(conflicts)
        self._problems = _summarised(self.conflicts)
        first = self._problems[0]
        super().__init__(
            first.brief,
            details=first.details,
            resolution=first.resolution,
            origin=first.origin,
            reason="conflict",
        )

    def problems(self) -> tuple[Problem, ...]:
        """Return every conflict; of pairs with very many, the first ones and a count."""
        return self._problems


class StaticConflictError(ConflictError):
    """Nodes disagree whose entries follow from the recipe alone: the recipe is wrong."""

    exit_code = 2


def conflict_error(conflicts: Sequence[Conflict]) -> ConflictError:
    """Return the error for `conflicts` (not empty), with the exit code that fits the nodes involved."""
    static = all(conflict.earlier.static and conflict.later.static for conflict in conflicts)
    return StaticConflictError(conflicts) if static else ConflictError(conflicts)


def _summarised(conflicts: Sequence[Conflict]) -> tuple[Problem, ...]:
    problems: list[Problem] = []
    pairs: dict[tuple[str, str], list[Conflict]] = {}
    for conflict in conflicts:
        pairs.setdefault((conflict.earlier.node, conflict.later.node), []).append(conflict)
    for (earlier, later), found in pairs.items():
        problems.extend(conflict.problem() for conflict in found[:SHOWN_PER_PAIR])
        hidden = len(found) - SHOWN_PER_PAIR
        if hidden > 0:
            problems.append(
                Problem(
                    f"{earlier} and {later} disagree about {hidden} more path{'s' if hidden > 1 else ''}",
                    f"the last of them: {paths.show(found[-1].path)}",
                    f'a glob in the replaces of {later}, such as "{_common(found)}/**", covers many at once',
                    found[0].later.origin,
                )
            )
    return tuple(problems)


def _shown(value: object) -> str:
    """Return a value of `inode_changes` for people: small text as text, everything else as it is."""
    if not isinstance(value, str) or not value.startswith("inline:"):
        return str(value)
    try:
        text = bytes.fromhex(value.removeprefix("inline:")).decode()
    except UnicodeDecodeError:
        return value
    return '"' + (text if text.isprintable() else text.encode("unicode_escape").decode()) + '"'


def _quoted(path: str) -> str:
    """Return a glob for just this path, as a TOML string."""
    glob = literal_glob(path)
    return f"'{glob}'" if "\\" in glob else f'"{glob}"'


def _common(conflicts: Sequence[Conflict]) -> str:
    """Return the deepest directory that holds all paths in conflict; empty for the root."""
    chains = [paths.ancestors(conflict.path) for conflict in conflicts]
    common = b""
    for level in zip(*chains, strict=False):
        if len(set(level)) > 1:
            break
        common = level[0]
    return "" if common in {b"", paths.ROOT} else paths.show(common)
