"""Plans as documents: what a build planned is run again without reading the recipe."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from cfsbuild.build.job import Plan
from cfsbuild.errors import Problem, RecipeError
from cfsbuild.nodes.kind import NodeKind
from cfsbuild.recipe.model import NodeSpec, Recipe, TargetSpec
from cfsbuild.targets.kind import TargetKind

Spec = TypeVar("Spec", NodeSpec, TargetSpec)


def encode_plan(plan: Plan) -> bytes:
    """Return `plan` as a document that `decode_plan` reads back."""
    return msgspec.msgpack.encode(plan, enc_hook=_encode)


def decode_plan(
    data: bytes, node_kinds: Mapping[str, NodeKind], target_kinds: Mapping[str, TargetKind]
) -> Plan:
    """Return the plan in `data`; raises `msgspec.ValidationError` if this program has other kinds or types.

    Local sources may have vanished since: raises `RecipeError` with what each kind's `check` finds.
    """
    plan = msgspec.msgpack.decode(data, type=Plan, dec_hook=_decode)
    recipes = tuple(_typed(recipe, node_kinds, target_kinds) for recipe in plan.recipes)
    problems: list[Problem] = []
    for recipe in recipes:
        for spec in recipe.nodes.values():
            problems.extend(node_kinds[spec.kind].check(spec))
    if problems:
        raise RecipeError(tuple(problems))
    return msgspec.structs.replace(plan, recipes=recipes)


def _typed(
    recipe: Recipe, node_kinds: Mapping[str, NodeKind], target_kinds: Mapping[str, TargetKind]
) -> Recipe:
    return msgspec.structs.replace(
        recipe,
        nodes={name: _with_params(spec, node_kinds) for name, spec in recipe.nodes.items()},
        targets={name: _with_params(spec, target_kinds) for name, spec in recipe.targets.items()},
    )


def _with_params(spec: Spec, kinds: Mapping[str, NodeKind] | Mapping[str, TargetKind]) -> Spec:
    if spec.kind not in kinds:
        raise msgspec.ValidationError(f"unknown kind {spec.kind!r}")
    return msgspec.structs.replace(spec, params=msgspec.convert(spec.params, kinds[spec.kind].params))


def _encode(value: Any) -> Any:  # noqa: ANN401 (msgspec's hook)
    if isinstance(value, Path):
        return str(value)
    raise NotImplementedError(f"a plan cannot hold {type(value).__name__}")


def _decode(kind: type, value: Any) -> Any:  # noqa: ANN401 (msgspec's hook)
    if issubclass(kind, Path):
        return Path(value)
    raise NotImplementedError(f"a plan cannot hold {kind.__name__}")
