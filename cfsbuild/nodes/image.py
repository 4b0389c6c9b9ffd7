"""The kind `image`: the tree of another recipe or of a stored image, or a part of it."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from typing import Annotated

import msgspec

from cfsbuild.errors import BuildError, Problem
from cfsbuild.nodes import metadata
from cfsbuild.nodes.kind import Fingerprint, NodeContext, NodeKind
from cfsbuild.recipe.model import NodeSpec
from cfsbuild.recipe.types import Glob, LocalPath, TreePath
from cfsbuild.tree import paths
from cfsbuild.tree.globs import Globs, compile_globs
from cfsbuild.tree.inode import Inode
from cfsbuild.tree.layer import Layer, Tree, make_layer, tree_digest


class ImageParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The tree of another image. Give exactly one of `recipe` and `image`."""

    recipe: Annotated[LocalPath | None, msgspec.Meta(description="A recipe file; it is built first.")] = None
    image: Annotated[
        Annotated[str, msgspec.Meta(min_length=1)] | None,
        msgspec.Meta(
            description="An image in the store: the name of a reference, or a digest in hexadecimal.",
            examples=["base-1.0"],
        ),
    ] = None
    prefix: Annotated[TreePath, msgspec.Meta(description="Where its root goes.")] = "/"
    include: Annotated[
        list[Glob],
        msgspec.Meta(
            description="Take only what matches, with the directories above it. Globs over the paths of the "
            "other image; a directory does not stand for what it holds."
        ),
    ] = []
    exclude: Annotated[
        list[Glob],
        msgspec.Meta(description="Leave out what matches. A directory goes with all that it holds."),
    ] = []


def check(spec: NodeSpec) -> Iterator[Problem]:
    """Find contradictions, a missing recipe and bad globs."""
    params: ImageParams = spec.params
    given = {"recipe": params.recipe is not None, "image": params.image is not None}
    yield from metadata.exactly_one(spec, given.items())
    if params.recipe is not None and not spec.resolve("recipe", params.recipe).is_file():
        yield Problem(
            f"{spec.name}: there is no recipe {spec.resolve('recipe', params.recipe)}",
            origin=spec.origin_of("recipe"),
        )
    for key, patterns in (("include", params.include), ("exclude", params.exclude)):
        numbered = ((f"{key}.{index}", pattern) for index, pattern in enumerate(patterns))
        yield from metadata.glob_problems(spec, numbered)


def gather(context: NodeContext, params: ImageParams) -> Fingerprint:
    """Fingerprint the other image by its tree."""
    tree = _tree(context)
    return Fingerprint(
        digests={"image" if params.recipe is None else "recipe": tree_digest(tree)}, payload=tree
    )


def _tree(context: NodeContext) -> Tree:
    if context.image_tree is None:
        raise BuildError(f"{context.spec.name}: other images cannot be read here", origin=context.origin)
    return context.image_tree(context.spec)


def produce(context: NodeContext, params: ImageParams, fingerprint: Fingerprint) -> Layer:
    """Return the other tree, or the part of it that was asked for, below the prefix."""
    # Whoever runs the nodes may know the tree's digest, and so never have gathered.
    tree: Tree = _tree(context) if fingerprint.payload is None else fingerprint.payload
    names = {path: tree.entries[tree.links.get(path, path)] for path in (*tree.entries, *tree.links)}
    chosen = _chosen(names, compile_globs(params.include), compile_globs(params.exclude))
    if params.include and not chosen:
        raise BuildError(
            f"{context.spec.name}: nothing in the other image matches include",
            origin=context.spec.origin_of("include"),
            reason="nothing-included",
        )
    prefix = metadata.tree_path(params.prefix)
    parents = {paths.parent(path) for path in chosen if path != paths.ROOT}
    entries: dict[bytes, Inode] = {}
    links: dict[bytes, bytes] = {}
    first: dict[bytes, bytes] = {}
    for path in sorted(chosen, key=paths.depth_first):
        inode = names[path]
        moved = prefix if path == paths.ROOT else paths.normalise(prefix + path)
        real = tree.links.get(path, path)
        if real in first:
            links[moved] = first[real]
        elif not _is_implicit(inode, path, parents):
            entries[moved] = inode
            first[real] = moved
    return make_layer(entries, links=links)


def _is_implicit(inode: Inode, path: bytes, parents: set[bytes]) -> bool:
    """Say whether the merge would make this directory anyway: it then must not stand against other nodes'."""
    return (
        inode.mode == stat.S_IFDIR | 0o755
        and not (inode.uid or inode.gid or inode.xattrs)
        and (path in parents or path == paths.ROOT)
    )


def _chosen(names: dict[bytes, Inode], include: Globs, exclude: Globs) -> set[bytes]:
    """Return the paths that are included and not excluded, with the directories above them."""
    left_out = {path for path in names if exclude(path)} if exclude else set()
    kept = [
        path
        for path in names
        if path not in left_out and (not left_out or left_out.isdisjoint(paths.ancestors(path)))
    ]
    if not include:
        return set(kept)
    chosen: set[bytes] = set()
    for path in kept:
        if include(path):
            chosen.add(path)
            chosen.update(paths.ancestors(path))
    return chosen


KIND = NodeKind(
    name="image",
    version=1,
    summary="The tree of another recipe or of a stored image, or a part of it.",
    params=ImageParams,
    produce=produce,
    gather=gather,
    check=check,
    path_keys=("recipe", "image"),
    static=False,
)
