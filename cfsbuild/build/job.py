"""What a plan consists of: jobs, as plain data that can be remembered and read back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

import msgspec

from cfsbuild.errors import Problem, RecipeError, UsageError
from cfsbuild.nodes.kind import NodeKind, Owners
from cfsbuild.recipe.model import NodeSpec, Recipe, TargetSpec
from cfsbuild.targets.kind import TargetKind

if TYPE_CHECKING:
    import networkx as nx

Spec = TypeVar("Spec", NodeSpec, TargetSpec)

NODE: Final = "node"
TREE: Final = "tree"
TARGET: Final = "target"
Role = Literal["node", "tree", "target"]

TREE_KIND = "merge"
"""What a job that merges a nested recipe's layers is called where others name their kind."""

TARGET_PREFIX = "targets."


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a build.

    `name` is the node's name, `targets.NAME` for a target, `NODE/` for the tree of the recipe that the
    image node NODE nests and `NODE/NAME` for that recipe's nodes. `recipe` indexes `Plan.recipes`. `needs`
    are the jobs that it directly depends on, `layers` all node jobs whose layers it sees, in merge order;
    `waits` says whether it reads what they produce, so that it can only start when they are done. `nested`
    names the tree job of an image node's recipe; `image` the image target that a target is about.
    """

    name: str
    kind: str
    role: Role
    recipe: int = 0
    needs: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    waits: bool = False
    nested: str = ""
    image: str = ""
    owners: Owners = Owners()

    @property
    def local_name(self) -> str:
        """Return the name that the job's own recipe uses for it."""
        return self.name.rpartition("/")[2].removeprefix(TARGET_PREFIX if self.role == TARGET else "")

    @property
    def inputs(self) -> tuple[str, ...]:
        """Return the jobs that must be done before this one can start."""
        if self.image:
            return (self.image,)
        if self.nested:
            return (*self.layers, self.nested) if self.waits else (self.nested,)
        return self.layers if self.waits else ()


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a build will do, in the order in which layers are merged.

    `recipes` are the recipe itself and, after it, the recipes that its image nodes nest.
    """

    recipes: tuple[Recipe, ...]
    jobs: dict[str, Job]

    @property
    def recipe(self) -> Recipe:
        """Return the recipe of the image that is built."""
        return self.recipes[0]

    def node(self, job: Job) -> NodeSpec:
        """Return the table behind a node job."""
        return self.recipes[job.recipe].nodes[job.local_name]

    def target(self, job: Job) -> TargetSpec:
        """Return the table behind a target job."""
        return self.recipes[job.recipe].targets[job.local_name]

    def job(self, name: str) -> Job:
        """Return the job called `name`; raises `UsageError` with the names that exist."""
        if name in self.jobs:
            return self.jobs[name]
        raise UsageError(
            f"the recipe has no node {name!r}",
            resolution="one of: " + ", ".join(self.jobs),
        )

    def graph(self) -> nx.DiGraph[str]:
        """Return a networkx graph with an edge from each job to those that need it; the job is in `job`."""
        import networkx as nx  # noqa: PLC0415 (a remembered plan is run without it)

        graph: nx.DiGraph[str] = nx.DiGraph()
        for job in self.jobs.values():
            graph.add_node(job.name, job=job)
        for job in self.jobs.values():
            graph.add_edges_from((need, job.name) for need in job.needs)
        return graph


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
        for node in recipe.nodes.values():
            problems.extend(node_kinds[node.kind].check(node))
        for target in recipe.targets.values():
            problems.extend(target_kinds[target.kind].check(target))
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
