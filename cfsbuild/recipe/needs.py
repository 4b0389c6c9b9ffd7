"""`needs` between nodes: unknown names and circles."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from cfsbuild.errors import Origin, Problem
from cfsbuild.recipe.marked import Marked
from cfsbuild.recipe.problems import MOST_PROBLEMS, suggestion

Needs = Mapping[str, Sequence[tuple[str, Origin]]]
"""For each node, what it needs and where that is written."""


def needs_of(node: Marked) -> list[tuple[str, Origin]]:
    """Return the needs of one node's table, as far as they are strings."""
    value = node.get("needs")
    if value is None or not isinstance(value.data, list):
        return []
    return [(item.data, item.origin) for item in value.data if isinstance(item.data, str)]


def check(needs: Needs, *, known: Collection[str]) -> list[Problem]:
    """Find needs that name no node, and circles; each circle once."""
    problems = []
    for node, wanted in needs.items():
        for name, origin in wanted:
            if name == node:
                problems.append(Problem(f"node `{node}` needs itself", "", "remove it from `needs`", origin))
            elif name not in known and len(problems) < MOST_PROBLEMS:
                brief = f"node `{node}` needs `{name}`, which does not exist"
                problems.append(Problem(brief, "", suggestion(name, known, what="nodes"), origin))
    problems.extend(_circle(circle) for circle in _circles(needs))
    return problems


def _circle(circle: list[tuple[str, str, Origin]]) -> Problem:
    names = [start for start, _, _ in circle] + [circle[0][0]]
    steps = "\n".join(f"{origin}: `{start}` needs `{end}`" for start, end, origin in circle)
    brief = f"nodes need each other in a circle: {' → '.join(names)}"
    return Problem(brief, steps, "remove one of these needs", circle[0][2])


def _circles(needs: Needs) -> list[list[tuple[str, str, Origin]]]:
    """Return circles such that every circle shares a step with a returned one (depth-first, back edges)."""
    done: set[str] = set()
    circles = []
    for root in needs:
        if root in done:
            continue
        path: list[tuple[str, str, Origin]] = []
        depth = {root: 0}
        stack = [(root, iter(needs[root]))]
        while stack:
            node, rest = stack[-1]
            step = next(rest, None)
            if step is None:
                stack.pop()
                done.add(node)
                del depth[node]
                if path:
                    path.pop()
                continue
            name, origin = step
            if name in depth:
                if name != node:
                    circles.append([*path[depth[name] :], (node, name, origin)])
            elif name in needs and name not in done:
                depth[name] = len(stack)
                path.append((node, name, origin))
                stack.append((name, iter(needs[name])))
    return circles
