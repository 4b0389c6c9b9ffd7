"""From the layers of all nodes to one tree (`docs/formats/tree-merge.md`).

The result does not depend on the order of nodes that do not reach each other. To that end removals are
applied first, layer by layer, and then every pair of nodes that give one path is looked at, not only the last
two.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

import msgspec

from cfsbuild import limits
from cfsbuild.errors import InputError, Origin
from cfsbuild.tree import paths
from cfsbuild.tree.conflicts import Conflict, ConflictType, Party, conflict_error
from cfsbuild.tree.cycles import cycle_collector_paused
from cfsbuild.tree.globs import Globs, compile_globs
from cfsbuild.tree.inode import IMPLICIT_DIRECTORY, Inode
from cfsbuild.tree.layer import Layer, Tree, in_order
from cfsbuild.tree.links import LinkGroups
from cfsbuild.tree.provenance import Provenance


class Contribution(msgspec.Struct, frozen=True, kw_only=True):
    """One node's layer and its rights.

    `needs` are the nodes that it reaches, transitively. `replaces` are globs over paths of the tree.
    `reads`: the node was given what it reaches as input, so it may replace any of it without `replaces`.
    """

    node: str
    kind: str
    layer: Layer
    static: bool = True
    needs: frozenset[str] = frozenset()
    replaces: tuple[str, ...] = ()
    origin: Origin | None = None
    reads: bool = False


class Merged(msgspec.Struct, frozen=True):
    """A tree, and which node gave each of its paths."""

    tree: Tree
    provenance: Provenance


def merge(contributions: Sequence[Contribution]) -> Merged:
    """Return the tree of all layers, given in topological order.

    Raises `ConflictError` with every conflict between nodes, and `InputError` for a malformed `replaces`
    glob. Layers must be canonical (`layer.make_layer`).
    """
    with cycle_collector_paused():
        parts = [_Part(index, contribution) for index, contribution in enumerate(contributions)]
        _remove(parts)
        state = _State(parts)
        for part in parts:
            state.add(part)
        missing = state.check_parents()
        if state.conflicts:
            raise conflict_error(state.conflicts)
        return state.finish(missing)


class _Part:
    """A contribution while it is merged: names to inodes (link names too), its parents, its rights."""

    def __init__(self, index: int, contribution: Contribution) -> None:
        self.index = index
        self.contribution = contribution
        layer = contribution.layer
        self.names: dict[bytes, Inode] = layer.entries
        if layer.links:
            self.names = dict(layer.entries)
            self.names.update((link, layer.entries[target]) for link, target in layer.links.items())
        self.party = Party(contribution.node, contribution.kind, contribution.static, contribution.origin)
        self._parents: set[bytes] | None = None
        self._ordered: list[bytes] | None = None
        self._globs: Globs | None = None

    @property
    def parents(self) -> set[bytes]:
        """Return every directory above a name, `b""` standing for the root."""
        if self._parents is None:
            found = {path[: path.rfind(b"/")] for path in self.names}
            todo = list(found)
            while todo:
                path = todo.pop()
                if path:
                    path = path[: path.rfind(b"/")]
                    if path not in found:
                        found.add(path)
                        todo.append(path)
            self._parents = found
        return self._parents

    @property
    def ordered(self) -> list[bytes]:
        """Return the names in depth-first order."""
        if self._ordered is None:
            plain = not self.contribution.layer.links
            self._ordered = list(self.names) if plain else sorted(self.names, key=paths.depth_first)
        return self._ordered

    def reaches(self, other: _Part) -> bool:
        return other.contribution.node in self.contribution.needs

    def may_replace(self, path: bytes) -> bool:
        if self.contribution.reads:
            return True
        if self._globs is None:
            self._globs = compile_globs(self.contribution.replaces)
        return self._globs(path)

    def overrides(self, other: _Part, path: bytes) -> bool:
        return self.reaches(other) and self.may_replace(path)

    def drop(self, gone: set[bytes]) -> None:
        self.names = {path: inode for path, inode in self.names.items() if path not in gone}
        self._parents = self._ordered = None


def _remove(parts: Sequence[_Part]) -> None:
    """Take out of each layer what the layers that reach it remove, or cover with a non-directory."""
    gone: dict[int, set[bytes]] = {}
    for remover in parts:
        layer = remover.contribution.layer
        rights = remover.contribution.reads or remover.contribution.replaces
        if not (layer.removals or layer.opaques or rights):
            continue
        for part in parts[: remover.index]:
            if remover.reaches(part):
                found = _removed_from(part, remover)
                if found:
                    gone.setdefault(part.index, set()).update(found)
    for index, found in gone.items():
        parts[index].drop(found)


def _removed_from(part: _Part, remover: _Part) -> set[bytes]:
    layer = remover.contribution.layer
    removed = {path for path in layer.removals if path in part.names}
    below = [path for path in (*layer.removals, *layer.opaques) if path.rstrip(b"/") in part.parents]
    if remover.contribution.reads or remover.contribution.replaces:
        covered = part.parents & remover.names.keys()
        below += [
            path for path in covered if not remover.names[path].is_directory and remover.may_replace(path)
        ]
    for path in below:
        removed.update(_subtree(part.ordered, path))
    return removed


def _subtree(names: list[bytes], directory: bytes) -> list[bytes]:
    """Return the paths strictly below `directory`, of paths in depth-first order."""
    key = b"" if directory == paths.ROOT else paths.depth_first(directory)
    start = bisect_left(names, key + b"\0", key=paths.depth_first)
    end = bisect_left(names, key + b"\1", key=paths.depth_first)
    return [path for path in names[start:end] if path != paths.ROOT]


class _State:
    """What is merged so far.

    `owners` names the first node of those that hold a path's present value, or its content when `changes` has
    the path: there stand the nodes that changed only attributes since. `givers` lists, for paths that
    several nodes give, all of them in order; `mixed` are those whose values are not all equal, `contested`
    those with a conflict.
    """

    def __init__(self, parts: Sequence[_Part]) -> None:
        self.parts = parts
        self.names: dict[bytes, Inode] = {}
        self.owners: dict[bytes, int] = {}
        self.changes: dict[bytes, tuple[int, ...]] = {}
        self.givers: dict[bytes, list[int]] = {}
        self.mixed: set[bytes] = set()
        self.conflicts: list[Conflict] = []
        self.contested: set[bytes] = set()

    def add(self, part: _Part) -> None:
        names, owners = self.names, self.owners
        overlap = [path for path in part.names if path in names] if names else []
        kept = {}
        for path in overlap:
            kept[path] = owners[path]
            if path in self.givers:
                self.givers[path].append(part.index)
            else:
                self.givers[path] = [owners[path], part.index]
        differing = [path for path in overlap if names[path] != part.names[path]]
        suspects = self.mixed.intersection(overlap).union(differing)
        for path in sorted(suspects, key=paths.depth_first):
            before, after = names[path], part.names[path]
            self._compare(part, path, after)
            if before != after:
                self.mixed.add(path)
                if part.contribution.reads and _same_content(before, after):
                    self.changes[path] = (*self.changes.get(path, ()), part.index)
                elif not _same_directory(before, after):
                    del kept[path]
                    self.changes.pop(path, None)
        names.update(part.names)
        owners.update(dict.fromkeys(part.names, part.index))
        owners.update(kept)

    def _compare(self, part: _Part, path: bytes, after: Inode) -> None:
        """Note a conflict with each earlier giver that `part` may not override."""
        for index in self.givers[path][:-1]:
            other = self.parts[index]
            before = other.names[path]
            if before == after or _same_directory(before, after) or part.overrides(other, path):
                continue
            self.contested.add(path)
            self.conflicts.append(
                Conflict(
                    ConflictType.DIFFERENT,
                    path,
                    other.party,
                    part.party,
                    before,
                    after,
                    ordered=part.reaches(other),
                )
            )

    def check_parents(self) -> list[bytes]:
        """Return the directories that nobody declares; note names that lie below a non-directory."""
        parents: set[bytes] = set()
        for part in self.parts:
            parents |= part.parents
        parents.discard(b"")
        missing = list(parents - self.names.keys())
        if paths.ROOT not in self.names:
            missing.append(paths.ROOT)
        for path in sorted(parents & self.names.keys(), key=paths.depth_first):
            if not self.names[path].is_directory:
                self._note_below(path)
        root = self.names.get(paths.ROOT, IMPLICIT_DIRECTORY)
        if not root.is_directory:
            self._note_below(paths.ROOT)
        return missing

    def _note_below(self, path: bytes) -> None:
        if path in self.contested:
            return
        holder = self.parts[self.owners[path]]
        for part in self.parts:
            if path not in part.parents and path != paths.ROOT:
                continue
            below = _subtree(part.ordered, path)
            if below or part is holder:
                self.conflicts.append(
                    Conflict(
                        ConflictType.BELOW,
                        path,
                        holder.party,
                        part.party,
                        holder.names[path],
                        None,
                        ordered=part.reaches(holder),
                        example=below[0] if below else path,
                    )
                )

    def finish(self, missing: list[bytes]) -> Merged:
        """Settle directory times, link groups and order."""
        for path in self.mixed:
            if self.names[path].is_directory:
                self._settle_mtime(path)
        self.names.update(dict.fromkeys(missing, IMPLICIT_DIRECTORY))
        if len(self.names) > limits.TREE_ENTRIES:
            raise InputError(f"tree has {len(self.names)} names, at most {limits.TREE_ENTRIES} are allowed")
        groups = LinkGroups()
        for part in self.parts:
            for link, target in part.contribution.layer.links.items():
                for name in (link, target):
                    if self._holds(part, name):
                        groups.add(part.index, target, name)
        links = groups.links()
        nodes = tuple(part.contribution.node for part in self.parts)
        entries = in_order(self.names)
        for link in links:
            del entries[link]
        tree = Tree(entries=entries, links=in_order(links))
        return Merged(tree, Provenance(nodes, self.owners, self.changes))

    def _holds(self, part: _Part, path: bytes) -> bool:
        """Say whether the final value of `path` comes from `part`, alone or with others."""
        final = self.names.get(path)
        if path not in part.names or part.names[path] != final:
            return False
        givers = self.givers.get(path)
        if givers is None:
            return True
        for index in reversed(givers):
            if self.parts[index].names[path] != final:
                return False
            if index == part.index:
                return True
        return False

    def _settle_mtime(self, path: bytes) -> None:
        """Give a directory the youngest mtime of those givers that no other giver reaches."""
        final = self.names[path]
        givers = [self.parts[index] for index in self.givers[path]]
        last = [part for part in givers if not any(other.reaches(part) for other in givers)]
        times = [part.names[path].mtime_ns for part in last if _same_directory(part.names[path], final)]
        if times:
            self.names[path] = msgspec.structs.replace(final, mtime_ns=max(times))


def _same_content(a: Inode, b: Inode) -> bool:
    """Say whether both are the same but for attributes."""
    return (
        a.kind == b.kind
        and a.size == b.size
        and a.digest == b.digest
        and a.content == b.content
        and a.target == b.target
        and a.rdev == b.rdev
    )


def _same_directory(a: Inode, b: Inode) -> bool:
    """Say whether both are directories that are equal but for the mtime, which an image never keeps."""
    return a.is_directory and a.mode == b.mode and a.uid == b.uid and a.gid == b.gid and a.xattrs == b.xattrs
