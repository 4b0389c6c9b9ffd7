"""The kind `tree`: a local directory with everything below it.

Nothing of a checkout's accidents gets into the image unless asked for: times are the epoch, everything
belongs to root, files are 0644 or 0755 by their owner's executable bit, directories 0755, and there are no
extended attributes. Symbolic links, hard links, fifos and empty directories are kept; sockets are left out
with a note; devices are refused, as building must not depend on the right to make them. A directory that is
not empty and like any other (0755, root) is not declared: nodes that do declare it do not conflict.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Annotated, Literal

import msgspec

from cfsbuild.errors import BuildError, InputError, Problem
from cfsbuild.nodes import metadata
from cfsbuild.nodes.kind import Fingerprint, NodeContext, NodeKind
from cfsbuild.nodes.treefilter import choose, compile_patterns
from cfsbuild.nodes.treelisting import Listing, inodes, make_listing
from cfsbuild.nodes.treepatch import PatchBase, Shaping
from cfsbuild.recipe.model import NodeSpec
from cfsbuild.recipe.types import Glob, LocalPath, Mode, Owner, TreePath, parse_mode
from cfsbuild.tree import paths
from cfsbuild.tree.cycles import cycle_collector_paused
from cfsbuild.tree.globs import compile_globs
from cfsbuild.tree.inode import IMPLICIT_DIRECTORY, Inode
from cfsbuild.tree.layer import Layer, document_digest, encode_layer, make_layer
from cfsbuild.tree.scan import scan

Preserved = Literal["mtime", "mode", "owner", "xattrs", "overlay-xattrs"]


class TreeRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is different for some entries. Later rules win."""

    match: Annotated[Glob, msgspec.Meta(description="Which: a glob over paths relative to the source.")]
    mode: Annotated[Mode | None, msgspec.Meta(description="Permission bits; links have none.")] = None
    owner: Owner | None = None
    group: Owner | None = None


Patterns = Annotated[list[Annotated[str, msgspec.Meta(min_length=1)]], msgspec.Meta()]


class TreeParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A local directory with everything below it."""

    source: LocalPath
    target: Annotated[TreePath, msgspec.Meta(description="Where the directory's contents go.")] = "/"
    owner: Annotated[
        Owner | None, msgspec.Meta(description="Default: root, or the source's with `preserve`.")
    ] = None
    group: Annotated[
        Owner | None, msgspec.Meta(description="Default: root, or the source's with `preserve`.")
    ] = None
    rules: list[TreeRule] = []
    include: Annotated[
        Patterns,
        msgspec.Meta(
            description="Take only what matches: lines as in a .gitignore file, relative to the source.",
            examples=[["*.so", "/bin/"]],
        ),
    ] = []
    exclude: Annotated[
        Patterns,
        msgspec.Meta(
            description="Leave out what matches: lines as in a .gitignore file, relative to the source. "
            "A directory goes with all that it holds.",
            examples=[[".git/", "*.pyc", "!keep.pyc"]],
        ),
    ] = []
    preserve: Annotated[
        list[Preserved],
        msgspec.Meta(
            description="What to keep as it is on this machine. `overlay-xattrs` is `xattrs` with those of "
            "overlayfs (`trusted.overlay.*`), which are refused otherwise."
        ),
    ] = []


def check(spec: NodeSpec) -> Iterator[Problem]:
    """Find a missing source, bad patterns and contradictions."""
    params: TreeParams = spec.params
    source = spec.resolve("source", params.source)
    if not source.is_dir():
        what = "is not a directory" if os.path.lexists(source) else "does not exist"
        yield Problem(
            f"{spec.name}: {source} {what}",
            resolution='use kind = "file" for a single file' if source.exists() else "",
            origin=spec.origin_of("source"),
        )
    for key, lines in (("include", params.include), ("exclude", params.exclude)):
        for index, line in enumerate(lines):
            try:
                compile_patterns((line,))
            except InputError as error:
                yield metadata.problem_at(spec, f"{key}.{index}", error)
    for index, rule in enumerate(params.rules):
        yield from metadata.glob_problems(spec, [(f"rules.{index}.match", rule.match)])
        if rule.mode is None and rule.owner is None and rule.group is None:
            yield Problem(
                f"{spec.name}: a rule changes nothing",
                resolution="give it a mode, an owner or a group",
                origin=spec.origin_of(f"rules.{index}"),
            )
    if "owner" in params.preserve and (params.owner is not None or params.group is not None):
        yield Problem(
            f"{spec.name}: owners are both given and preserved",
            resolution="leave one out; rules can change single owners",
            origin=spec.origin_of("preserve"),
        )


def gather(context: NodeContext, params: TreeParams) -> Fingerprint:
    """List the source, take in what has changed, and make the layer: its name is the fingerprint.

    Where a few files changed since this user's last build, the layer of that build is patched.
    """
    source = context.spec.resolve("source", params.source)
    with cycle_collector_paused():
        found = context.scan(source) if context.scan is not None else scan(source)
        base = PatchBase.of(context, source, canonical=(KIND.version, params))
        patch = None if base is None else base.patch(found, _shaping(params))
        if patch is not None:
            return Fingerprint(digests={"source": patch.name}, patch=patch)
        numbers = choose(found, params.include, params.exclude)
        if params.include and len(numbers) == 1:
            raise BuildError(
                f"{context.spec.name}: nothing in {source} matches include",
                origin=context.spec.origin_of("include"),
                reason="nothing-included",
            )
        cache = None if base is None else base.cache
        listing = make_listing(context, found, numbers, frozenset(params.preserve), cache=cache)
        layer = _layer(context, params, listing)
        name = document_digest(encode_layer(layer))
        if base is not None:
            base.remember(name, layer)
        return Fingerprint(digests={"source": name}, payload=layer)


def _shaping(params: TreeParams) -> Shaping:
    return Shaping(
        preserve=frozenset(params.preserve),
        choose=lambda found: choose(found, params.include, params.exclude),
        entries=lambda context, listing: _entries(context, params, listing),
        chosen_alone=not params.include,
    )


def produce(context: NodeContext, params: TreeParams, fingerprint: Fingerprint) -> Layer:
    """Return the layer, which `gather` has made already."""
    del context, params
    layer: Layer = fingerprint.payload if fingerprint.patch is None else fingerprint.patch.layer
    return layer


def _layer(context: NodeContext, params: TreeParams, listing: Listing) -> Layer:
    """Return the listing below the target, with owners and rules applied."""
    names, found = _entries(context, params, listing)
    _check_links(context, listing, found)
    links = {names[link]: names[first] for link, first in listing.links.items()}
    entries = dict(zip(names, found, strict=True))
    for name in (*links, *_undeclared(names, found)):
        del entries[name]
    return make_layer(entries, links=links)


def _entries(context: NodeContext, params: TreeParams, listing: Listing) -> tuple[list[bytes], list[Inode]]:
    """Return the listing's paths below the target, and the inodes there."""
    owner = (
        metadata.user_id("root" if params.owner is None else params.owner, context.owners),
        metadata.group_id("root" if params.group is None else params.group, context.owners),
    )
    found = inodes(listing, owner)
    for index, rule in enumerate(params.rules):
        _apply(context, f"rules.{index}", rule, listing, found)
    return _targets(listing.paths, metadata.tree_path(params.target)), found


def _undeclared(names: list[bytes], found: list[Inode]) -> Iterator[bytes]:
    """Yield the directories that the merge would make anyway, since they hold something."""
    below = (*names[1:], b"")
    for name, inode, following in zip(names, found, below, strict=True):
        if inode == IMPLICIT_DIRECTORY and (name == paths.ROOT or following.startswith(name + b"/")):
            yield name


def _targets(sources: list[bytes], prefix: bytes) -> list[bytes]:
    """Return where each path goes; raises `InputError` for those that become too long or too deep."""
    if prefix == paths.ROOT:
        return sources
    deepest = max(sources, key=lambda path: path.count(b"/"))
    for path in (deepest, max(sources, key=len)):
        paths.normalise(prefix + path)
    return [prefix, *(prefix + path for path in sources[1:])]


def _apply(context: NodeContext, key: str, rule: TreeRule, listing: Listing, found: list[Inode]) -> None:
    """Change the inodes that a rule matches."""
    matches = compile_globs((rule.match,))
    positions = [position for position, path in enumerate(listing.paths) if matches(path)]
    if not positions:
        context.note(f"rule {rule.match!r} matches nothing", key)
    mode = None if rule.mode is None else parse_mode(rule.mode)
    uid = None if rule.owner is None else metadata.user_id(rule.owner, context.owners)
    gid = None if rule.group is None else metadata.group_id(rule.group, context.owners)
    for position in positions:
        inode = found[position]
        bits = inode.mode
        if mode is not None and not inode.is_symlink:
            bits = inode.kind | mode
        found[position] = msgspec.structs.replace(
            inode,
            mode=bits,
            uid=inode.uid if uid is None else uid,
            gid=inode.gid if gid is None else gid,
        )


def _check_links(context: NodeContext, listing: Listing, found: list[Inode]) -> None:
    """Raise `BuildError` if the rules made the names of one file differ."""
    for link, first in listing.links.items():
        if found[link] != found[first]:
            raise BuildError(
                f"{context.spec.name}: rules treat {paths.show(listing.paths[first])} and "
                f"{paths.show(listing.paths[link])} differently, but they are the same file",
                details="they are hard links: they can only have one mode and one owner",
                resolution="let rules match all names of a file, or none",
                origin=context.spec.origin_of("rules"),
                reason="hard-link-rule",
            )


def owner_names(params: TreeParams) -> Iterable[tuple[str, str, str]]:
    """List the owner names used, in rules too."""
    yield from metadata.owner_names(params)
    for index, rule in enumerate(params.rules):
        yield from metadata.owner_names(rule, f"rules.{index}.")


KIND = NodeKind(
    name="tree",
    version=2,
    summary="A local directory with everything below it.",
    params=TreeParams,
    produce=produce,
    gather=gather,
    check=check,
    owner_names=owner_names,
    path_keys=("source",),
)
