"""Layered layout of a directed acyclic graph, left to right: what a node needs stands to its left.

The usual four steps (Sugiyama, Tagawa, Toda 1981) in their simplest form: longest-path layers, bends where
an edge passes a layer, median sweeps against crossings, and positions by averaging neighbours.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

SWEEPS = 12
"""Rounds of crossing reduction and of straightening; more changes nothing that one would see."""


class Box(msgspec.Struct, frozen=True):
    """Where a node stands: its top left corner and size, in pixels."""

    x: float
    y: float
    width: float
    height: float


class Layout(msgspec.Struct, frozen=True):
    """A drawing: boxes by node, and for each edge the points that it passes, from need to node."""

    width: float
    height: float
    boxes: dict[str, Box]
    edges: dict[tuple[str, str], tuple[tuple[float, float], ...]]


class Spacing(msgspec.Struct, frozen=True, kw_only=True):
    """Distances in pixels."""

    layer: float = 64
    node: float = 18
    bend: float = 12
    margin: float = 24


def lay_out(
    needs: Mapping[str, Sequence[str]], sizes: Mapping[str, tuple[float, float]], spacing: Spacing
) -> Layout:
    """Return a drawing of the nodes of `needs`, which lists what each needs, in topological order."""
    layer_of = _layers(needs)
    layers, links = _with_bends(needs, layer_of)
    _reduce_crossings(layers, links)
    heights = {name: sizes[name][1] if name in sizes else 0.0 for layer in layers for name in layer}
    centre = _positions(layers, links, heights, spacing)
    return _draw(layers, centre, needs, sizes, spacing)


def _layers(needs: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Return each node's layer: right of all that it needs, and as close to its users as can be."""
    layer_of: dict[str, int] = {}
    for name, others in needs.items():
        layer_of[name] = 1 + max((layer_of[other] for other in others), default=-1)
    users = _reverse(needs)
    for name in reversed(list(needs)):
        if users[name]:
            layer_of[name] = min(layer_of[user] for user in users[name]) - 1
    return layer_of


def _reverse(needs: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    users: dict[str, list[str]] = {name: [] for name in needs}
    for name, others in needs.items():
        for other in others:
            users[other].append(name)
    return users


def bend(need: str, name: str, layer: int) -> str:
    """Return the name of the point where the edge from `need` to `name` passes a layer."""
    return f"{need}\0{name}\0{layer}"


def _with_bends(
    needs: Mapping[str, Sequence[str]], layer_of: Mapping[str, int]
) -> tuple[list[list[str]], list[tuple[str, str]]]:
    """Return the layers' members, bends included, and the links between neighbouring layers."""
    layers: list[list[str]] = [[] for _ in range(1 + max(layer_of.values(), default=-1))]
    for name in needs:
        layers[layer_of[name]].append(name)
    links = []
    for name, others in needs.items():
        for other in others:
            last = other
            for layer in range(layer_of[other] + 1, layer_of[name]):
                point = bend(other, name, layer)
                layers[layer].append(point)
                links.append((last, point))
                last = point
            links.append((last, name))
    return layers, links


def _neighbours(links: Iterable[tuple[str, str]]) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    left: dict[str, list[str]] = {}
    right: dict[str, list[str]] = {}
    for one, two in links:
        right.setdefault(one, []).append(two)
        left.setdefault(two, []).append(one)
    return left, right


def _reduce_crossings(layers: list[list[str]], links: list[tuple[str, str]]) -> None:
    """Order each layer by the mean place of its neighbours, to and fro, and keep the best order seen."""
    left, right = _neighbours(links)
    best = [list(layer) for layer in layers]
    fewest = _crossings(layers, right)
    for sweep in range(SWEEPS):
        forward = sweep % 2 == 0
        side = left if forward else right
        order = range(1, len(layers)) if forward else range(len(layers) - 2, -1, -1)
        for index in order:
            fixed = layers[index - 1 if forward else index + 1]
            place = {name: float(number) for number, name in enumerate(fixed)}
            _sort_by_neighbours(layers[index], side, place)
        crossings = _crossings(layers, right)
        if crossings < fewest:
            fewest, best = crossings, [list(layer) for layer in layers]
    for layer, order_seen in zip(layers, best, strict=True):
        layer[:] = order_seen


def _sort_by_neighbours(layer: list[str], side: Mapping[str, list[str]], place: Mapping[str, float]) -> None:
    means = {}
    for number, name in enumerate(layer):
        near = [place[other] for other in side.get(name, ())]
        means[name] = sum(near) / len(near) if near else float(number)
    layer.sort(key=means.__getitem__)


def _crossings(layers: Sequence[Sequence[str]], right: Mapping[str, list[str]]) -> int:
    """Return how many pairs of links cross."""
    total = 0
    for index, layer in enumerate(layers[:-1]):
        place = {name: number for number, name in enumerate(layers[index + 1])}
        ends = [
            place[other] for name in layer for other in sorted(right.get(name, ()), key=place.__getitem__)
        ]
        total += sum(earlier > later for at, later in enumerate(ends) for earlier in ends[:at])
    return total


def _positions(
    layers: Sequence[Sequence[str]],
    links: Iterable[tuple[str, str]],
    heights: Mapping[str, float],
    spacing: Spacing,
) -> dict[str, float]:
    """Return each member's vertical centre: near the mean of its neighbours', never closer than allowed."""
    left, right = _neighbours(links)
    centre: dict[str, float] = {}
    for layer in layers:
        _pack(layer, dict.fromkeys(layer, 0.0), heights, spacing, centre)
    for sweep in range(SWEEPS):
        forward = sweep % 2 == 0
        for layer in layers if forward else reversed(layers):
            wanted = {}
            for name in layer:
                near = (left if forward else right).get(name, [])
                wanted[name] = sum(centre[other] for other in near) / len(near) if near else centre[name]
            _pack(layer, wanted, heights, spacing, centre)
    return centre


def _pack(
    layer: Sequence[str],
    wanted: Mapping[str, float],
    heights: Mapping[str, float],
    spacing: Spacing,
    centre: dict[str, float],
) -> None:
    """Set centres close to `wanted` in the given order: blocks that would overlap share their mean shift.

    This is isotonic regression by pooling neighbours, on centres less the least distances above them.
    """
    offset = 0.0
    offsets = []
    for index, name in enumerate(layer):
        if index:
            above = layer[index - 1]
            gap = spacing.node if heights[name] and heights[above] else spacing.bend
            offset += (heights[above] + heights[name]) / 2 + gap
        offsets.append(offset)
    blocks: list[tuple[float, int]] = []
    for index, name in enumerate(layer):
        mean, count = wanted[name] - offsets[index], 1
        while blocks and blocks[-1][0] > mean:
            other, size = blocks.pop()
            mean, count = (other * size + mean * count) / (size + count), size + count
        blocks.append((mean, count))
    shifts = [mean for mean, count in blocks for _ in range(count)]
    for name, shift, distance in zip(layer, shifts, offsets, strict=True):
        centre[name] = shift + distance


def _draw(
    layers: Sequence[Sequence[str]],
    centre: Mapping[str, float],
    needs: Mapping[str, Sequence[str]],
    sizes: Mapping[str, tuple[float, float]],
    spacing: Spacing,
) -> Layout:
    """Give everything its place, with the top left corner of the drawing at (0, 0)."""
    tops = [centre[name] - sizes[name][1] / 2 for layer in layers for name in layer if name in sizes]
    bends = [centre[name] for layer in layers for name in layer if name not in sizes]
    shift = spacing.margin - min([*tops, *bends], default=0.0)
    boxes: dict[str, Box] = {}
    points: dict[str, tuple[tuple[float, float], tuple[float, float]]] = {}
    x = spacing.margin
    for layer in layers:
        width = max((sizes[name][0] for name in layer if name in sizes), default=0.0)
        for name in layer:
            y = centre[name] + shift
            points[name] = ((x, y), (x + width, y))
            if name in sizes:
                boxes[name] = Box(x, y - sizes[name][1] / 2, width, sizes[name][1])
        x += width + spacing.layer
    bottom = max(
        [box.y + box.height for box in boxes.values()] + [p[0][1] for p in points.values()], default=0.0
    )
    edges = {(need, name): _route(need, name, points, len(layers)) for name in needs for need in needs[name]}
    return Layout(x - spacing.layer + spacing.margin, bottom + spacing.margin, boxes, edges)


def _route(
    need: str,
    name: str,
    points: Mapping[str, tuple[tuple[float, float], tuple[float, float]]],
    layers: int,
) -> tuple[tuple[float, float], ...]:
    passed = [points[need][1]]
    for layer in range(layers):
        point = points.get(bend(need, name, layer))
        if point is not None:
            passed.extend(point)
    passed.append(points[name][0])
    return tuple(passed)
