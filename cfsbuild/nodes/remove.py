"""The kind `remove`: takes paths out of what the node needs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import msgspec

from cfsbuild.errors import BuildError, InputError, Problem
from cfsbuild.nodes.kind import Fingerprint, NodeContext, NodeKind
from cfsbuild.nodes.metadata import problem_at
from cfsbuild.recipe.model import NodeSpec
from cfsbuild.recipe.types import Glob
from cfsbuild.tree import paths
from cfsbuild.tree.globs import compile_globs
from cfsbuild.tree.layer import Layer, Tree, make_layer


class RemoveParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Paths to remove from the tree of everything that the node needs, directories with all they hold."""

    paths: Annotated[
        list[Glob],
        msgspec.Meta(
            description="Globs of what to remove. With a slash in it a glob is anchored at the root.",
            examples=[["/usr/share/doc/**", "*.pyc"]],
            min_length=1,
        ),
    ]
    missing_ok: Annotated[
        bool,
        msgspec.Meta(description="Accept globs that match nothing. Otherwise each must match something."),
    ] = False


def check(spec: NodeSpec) -> Iterator[Problem]:
    """Find bad globs, and a node that needs nothing."""
    params: RemoveParams = spec.params
    for index, pattern in enumerate(params.paths):
        try:
            if compile_globs((pattern,))(paths.ROOT):
                yield Problem(
                    f"{spec.name}: the root cannot be removed",
                    "",
                    'write "/**" for everything in it',
                    spec.origin_of(f"paths.{index}"),
                )
        except InputError as error:
            yield problem_at(spec, f"paths.{index}", error)
    if not spec.needs:
        yield Problem(
            f"{spec.name}: removes something, but needs no node to remove it from",
            "",
            "add needs = [...] with the nodes that provide it",
            spec.origin,
        )


def produce(context: NodeContext, params: RemoveParams, fingerprint: Fingerprint) -> Layer:
    """Return a layer of removals, none of them below another."""
    del fingerprint
    tree = context.input or Tree(entries={})
    names = dict.fromkeys(tree.entries) | dict.fromkeys(tree.links)
    found: set[bytes] = set()
    for index, pattern in enumerate(params.paths):
        matched = compile_globs((pattern,)).select(names)
        if not matched and not params.missing_ok:
            raise BuildError(
                f"{context.spec.name}: nothing to remove matches {pattern!r}",
                details="the node needs " + (", ".join(context.spec.needs) or "no other"),
                resolution="correct the glob, add what provides the path to needs, or set missing_ok = true",
                origin=context.spec.origin_of(f"paths.{index}"),
                reason="nothing-removed",
            )
        found.update(matched)
    removals: list[bytes] = []
    for path in sorted(found, key=paths.depth_first):
        if not (removals and paths.is_below(path, removals[-1])):
            removals.append(path)
    return make_layer({}, removals=tuple(removals))


KIND = NodeKind(
    name="remove",
    version=1,
    summary="Takes paths out of what the node needs.",
    params=RemoveParams,
    produce=produce,
    check=check,
    reads=True,
)
