"""From a recipe to a plan. Pure: looks at local sources only as far as each kind's `check` does.

Merge order: topological by `needs`; among nodes that are free at the same time, the order in which the
recipe declares them (included files first). It does not depend on names, so renaming a node moves nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from cfsbuild.build.job import NODE, TARGET, TARGET_PREFIX, TREE, TREE_KIND, Job, Plan
from cfsbuild.errors import Problem, RecipeError
from cfsbuild.nodes.kind import NodeKind, Owners
from cfsbuild.recipe.model import NodeSpec, Recipe
from cfsbuild.targets.kind import TargetKind

if TYPE_CHECKING:
    import networkx as nx

LoadNested = Callable[[NodeSpec, Path], Recipe]
"""Load the recipe that a node nests; raises `RecipeError`."""

IMAGE_KIND = "image"
IMAGE_TARGET = "image"
"""Name and kind of the target that every recipe has."""
ACCOUNTS_KIND = "accounts"


def plan(
    recipe: Recipe,
    node_kinds: Mapping[str, NodeKind],
    target_kinds: Mapping[str, TargetKind],
    *,
    load: LoadNested | None = None,
) -> Plan:
    """Return the plan for `recipe`; raises `RecipeError` with all problems, those of nested recipes too.

    `load` reads nested recipes; without it a recipe that nests another is refused.
    """
    planner = _Planner(node_kinds, load)
    jobs = planner.expand(recipe, "", ())
    layers = tuple(job.name for job in jobs if job.role == NODE and job.recipe == 0)
    jobs += _target_jobs(recipe, target_kinds, layers, _tops(jobs, layers), planner.problems)
    if planner.problems:
        raise RecipeError(tuple(planner.problems))
    return Plan(recipes=tuple(planner.recipes), jobs={job.name: job for job in jobs})


def _target_jobs(
    recipe: Recipe,
    kinds: Mapping[str, TargetKind],
    layers: tuple[str, ...],
    tops: tuple[str, ...],
    problems: list[Problem],
) -> list[Job]:
    """Return the jobs of targets, those that are about the image after it."""
    jobs = []
    for target in recipe.targets.values():
        if target.kind not in kinds:
            problems.append(Problem(f"unknown target kind {target.kind!r}", origin=target.origin))
            continue
        kind = kinds[target.kind]
        problems.extend(kind.check(target))
        job = Job(name=TARGET_PREFIX + target.name, kind=target.kind, role=TARGET, waits=True)
        if not kind.of_image:
            job = msgspec.structs.replace(job, needs=tops, layers=layers)
        elif recipe.targets[IMAGE_TARGET].kind == IMAGE_TARGET:
            image = TARGET_PREFIX + IMAGE_TARGET
            job = msgspec.structs.replace(job, needs=(image,), image=image)
        else:
            problems.append(
                Problem(
                    f"target {target.name!r} is about an image, and `targets.image` is none",
                    resolution="give the other target another name",
                    origin=target.origin,
                )
            )
        jobs.append(job)
    return sorted(jobs, key=lambda job: bool(job.image))


def nested_recipe(spec: NodeSpec) -> Path | None:
    """Return the path of the recipe that an image node nests; None for all other nodes."""
    if spec.kind != IMAGE_KIND:
        return None
    written: str | None = getattr(spec.params, "recipe", None)
    return spec.resolve("recipe", written) if written else None


def _tops(jobs: list[Job], layers: tuple[str, ...]) -> tuple[str, ...]:
    """Return those of `layers` that no other of them needs: a target needs these directly."""
    needed = {need for job in jobs for need in job.needs}
    return tuple(name for name in layers if name not in needed)


class _Planner:
    """Collects jobs, recipes and problems while recipes are expanded."""

    def __init__(self, node_kinds: Mapping[str, NodeKind], load: LoadNested | None) -> None:
        self._node_kinds = node_kinds
        self._load = load
        self._trees: dict[Path, str] = {}
        self.recipes: list[Recipe] = []
        self.problems: list[Problem] = []

    def expand(self, recipe: Recipe, prefix: str, trail: tuple[Path, ...]) -> list[Job]:
        """Return the node jobs of `recipe`, nested ones before the node that needs them."""
        index = len(self.recipes)
        self.recipes.append(recipe)
        trail = (*trail, recipe.path.resolve())
        owners = self._owners(recipe)
        jobs: list[Job] = []
        reached: dict[str, frozenset[str]] = {}
        for name in self._ordered(recipe):
            spec = recipe.nodes[name]
            reached[name] = frozenset(spec.needs).union(
                *(reached[need] for need in spec.needs if need in reached)
            )
            kind = self._node_kinds[spec.kind]
            self.problems.extend(kind.check(spec))
            nested = self._nested(spec, prefix + name, trail, jobs)
            jobs.append(
                Job(
                    name=prefix + name,
                    kind=spec.kind,
                    role=NODE,
                    recipe=index,
                    needs=tuple(prefix + need for need in spec.needs) + ((nested,) if nested else ()),
                    layers=tuple(prefix + other for other in reached if other in reached[name]),
                    waits=kind.reads,
                    nested=nested,
                    owners=self._used_owners(spec, kind, owners),
                )
            )
        return jobs

    def _ordered(self, recipe: Recipe) -> list[str]:
        """Return the names of `recipe`'s nodes in merge order; without those that are part of a cycle."""
        position: dict[str, int] = {}
        for spec in recipe.nodes.values():
            if spec.kind in self._node_kinds:
                position[spec.name] = len(position)
            else:
                self.problems.append(Problem(f"unknown node kind {spec.kind!r}", origin=spec.origin))
        edges = [edge for spec in recipe.nodes.values() for edge in self._edges(spec, recipe, position)]
        if all(position[need] < position[name] for need, name in edges):
            return list(position)
        import networkx as nx  # noqa: PLC0415 (large, and nodes mostly stand after those that they need)

        graph: nx.DiGraph[str] = nx.DiGraph()
        graph.add_nodes_from(position)
        graph.add_edges_from(edges)
        cycles = [group for group in nx.strongly_connected_components(graph) if _is_cycle(graph, group)]
        for group in cycles:
            self._report_cycle(graph.subgraph(group), recipe)
            graph.remove_nodes_from(group)
        return list(nx.lexicographical_topological_sort(graph, key=position.__getitem__))

    def _edges(self, spec: NodeSpec, recipe: Recipe, known: Collection[str]) -> Iterator[tuple[str, str]]:
        """Yield (what is needed, who needs it) for the needs of `spec`."""
        for index, need in enumerate(spec.needs):
            if need not in recipe.nodes:
                self.problems.append(
                    Problem(
                        f"node {spec.name!r} needs {need!r}, which does not exist",
                        resolution=_suggest(need, recipe.nodes),
                        origin=spec.origin_of(f"needs.{index}"),
                    )
                )
            elif spec.name in known and need in known:
                yield need, spec.name

    def _report_cycle(self, graph: nx.DiGraph[str], recipe: Recipe) -> None:
        import networkx as nx  # noqa: PLC0415 (a remembered plan is run without it)

        first = next(name for name in recipe.nodes if name in graph)
        edges = nx.find_cycle(graph.reverse(copy=True), source=first)
        names = [edge[0] for edge in edges]
        self.problems.append(
            Problem(
                "nodes need each other in a circle: " + " → ".join([*names, names[0]]),
                resolution="remove one of these needs",
                origin=recipe.nodes[names[0]].origin_of("needs"),
            )
        )

    def _nested(self, spec: NodeSpec, name: str, trail: tuple[Path, ...], jobs: list[Job]) -> str:
        """Plan the recipe that `spec` nests, once for all that nest it; return its tree job's name, or ""."""
        path = nested_recipe(spec)
        if path is None:
            return ""
        key = path.resolve()
        if key in trail:
            circle = " → ".join(str(step) for step in (*trail[trail.index(key) :], key))
            self.problems.append(
                Problem(f"recipes nest each other in a circle: {circle}", origin=spec.origin_of("recipe"))
            )
            return ""
        if key not in self._trees:
            loaded = self._load_nested(spec, path)
            if loaded is None:
                return ""
            index = len(self.recipes)
            inner = self.expand(loaded, name + "/", trail)
            layers = tuple(job.name for job in inner if job.role == NODE and job.recipe == index)
            tree = Job(
                name=name + "/",
                kind=TREE_KIND,
                role=TREE,
                recipe=index,
                needs=_tops(inner, layers),
                layers=layers,
                waits=True,
            )
            jobs.extend((*inner, tree))
            self._trees[key] = tree.name
        return self._trees[key]

    def _load_nested(self, spec: NodeSpec, path: Path) -> Recipe | None:
        if self._load is None:
            self.problems.append(
                Problem("a recipe that nests another cannot be planned here", origin=spec.origin_of("recipe"))
            )
            return None
        try:
            return self._load(spec, path)
        except RecipeError as error:
            self.problems.extend(error.problems())
            return None

    def _owners(self, recipe: Recipe) -> Owners:
        """Return the names that the recipe's accounts nodes declare, plus root."""
        accounts = [spec for spec in recipe.nodes.values() if spec.kind == ACCOUNTS_KIND]
        if not accounts:
            return Owners()
        from cfsbuild.nodes.accounts import owners_of  # noqa: PLC0415 (few recipes declare accounts)

        return owners_of(accounts)

    def _used_owners(self, spec: NodeSpec, kind: NodeKind, declared: Owners) -> Owners:
        """Return those of `declared` that `spec` names; reports names that nobody declares."""
        uids, gids = dict(Owners().uids), dict(Owners().gids)
        for key, namespace, name in kind.owner_names(spec.params):
            known, used = (declared.uids, uids) if namespace == "user" else (declared.gids, gids)
            if name in known:
                used[name] = known[name]
                continue
            self.problems.append(
                Problem(
                    f"{namespace} {name!r} is not declared",
                    resolution=f"declare it in an accounts node, or give a number; {_suggest(name, known)}",
                    origin=spec.origin_of(key),
                )
            )
        return Owners(uids=uids, gids=gids)


def _is_cycle(graph: nx.DiGraph[str], group: set[str]) -> bool:
    return len(group) > 1 or any(graph.has_edge(name, name) for name in group)


def _suggest(name: str, known: Mapping[str, Any]) -> str:
    import difflib  # noqa: PLC0415 (only for an error's text)

    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    return "known: " + (", ".join(known) or "none")
