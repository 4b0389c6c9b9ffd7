"""A plan as an SVG drawing, without any other program."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape, quoteattr

import msgspec

from cfsbuild.cli.graph_layout import Box, Spacing, lay_out

HEIGHT = 44.0
PADDING = 14.0
STRIPE = 5.0
NAME_PX = 8.4
"""Width of a character of a name at 13 px, generous, since fonts differ."""

KIND_PX = 6.2

_STYLE = """
  svg { font-family: system-ui, "Segoe UI", "DejaVu Sans", sans-serif; background: #ffffff }
  .title { font-size: 15px; font-weight: 600; fill: #1f2933 }
  .box { fill: #ffffff; stroke: #cbd2d9; stroke-width: 1 }
  .tree .box, .target .box { fill: #f5f7fa }
  .target .box { stroke: #7b8794 }
  .name { font-size: 13px; font-weight: 600; fill: #1f2933 }
  .kind { font-size: 11px; fill: #616e7c }
  .edge { fill: none; stroke: #9aa5b1; stroke-width: 1.3 }
  .order { stroke-dasharray: 2 4 }
  .tip { fill: #9aa5b1 }
  .legend { font-size: 11px; fill: #616e7c }
"""

COLORS = {
    "up-to-date": "#3f9142",
    "cached": "#3f9142",
    "cut-off": "#2680c2",
    "run": "#e8830c",
    "ran": "#e8830c",
    "pending": "#b8b2a7",
    "failed": "#cf1124",
    "": "#cbd2d9",
}
LABELS = {
    "up-to-date": "up to date",
    "cached": "cached",
    "cut-off": "cut off",
    "run": "would run",
    "ran": "ran",
    "pending": "may run",
    "failed": "fails",
    "": "never built",
}


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """A job to draw. `role` is node, tree or target; `state` a key of `COLORS`; `note` shows on hovering."""

    name: str
    kind: str
    role: str
    state: str
    needs: tuple[str, ...]
    waits: bool = True
    note: str = ""


def draw(title: str, nodes: Sequence[Node]) -> str:
    """Return an SVG document that shows `nodes`, given in topological order."""
    sizes = {node.name: (_width(node), HEIGHT) for node in nodes}
    layout = lay_out({node.name: node.needs for node in nodes}, sizes, Spacing())
    states = [state for state in COLORS if any(node.state == state for node in nodes)]
    states = [
        state for index, state in enumerate(states) if LABELS[state] not in map(LABELS.get, states[:index])
    ]
    head = 34.0
    width = max(layout.width, 48 + 9.0 * len(title), 40 + sum(_legend_width(state) for state in states))
    height = layout.height + head + 26
    ordering = {node.name for node in nodes if not node.waits}
    body = [
        f'<text class="title" x="24" y="32">{escape(title)}</text>',
        f'<g transform="translate(0 {head:g})">',
        *(_edge(points, dotted=name in ordering) for (_, name), points in layout.edges.items()),
        *(_node(node, layout.boxes[node.name]) for node in nodes),
        "</g>",
        *_legend(states, height - 16),
    ]
    return "\n".join((_open(width, height, title), f"<style>{_STYLE}</style>", *body, "</svg>")) + "\n"


def _open(width: float, height: float, title: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label={quoteattr("plan of " + title)}>\n'
        f'<rect width="100%" height="100%" fill="#ffffff"/>'
    )


def _width(node: Node) -> float:
    return max(72.0, 2 * PADDING + STRIPE + max(len(node.name) * NAME_PX, len(node.kind) * KIND_PX))


def _node(node: Node, box: Box) -> str:
    left = box.x + STRIPE + PADDING
    note = f"<title>{escape(node.note)}</title>" if node.note else ""
    radius = 6
    stripe = (
        f"M{box.x + radius:.1f} {box.y:.1f}h{STRIPE}v{box.height:.1f}h-{STRIPE}"
        f"a{radius} {radius} 0 0 1 -{radius} -{radius}v{-(box.height - 2 * radius):.1f}"
        f"a{radius} {radius} 0 0 1 {radius} -{radius}z"
    )
    return (
        f'<g class="{node.role}">{note}'
        f'<rect class="box" x="{box.x:.1f}" y="{box.y:.1f}" width="{box.width:.1f}" '
        f'height="{box.height:.1f}" rx="{radius}"/>'
        f'<path d="{stripe}" fill="{COLORS[node.state]}"/>'
        f'<text class="name" x="{left:.1f}" y="{box.y + 19:.1f}">{escape(node.name)}</text>'
        f'<text class="kind" x="{left:.1f}" y="{box.y + 34:.1f}">{escape(node.kind)}</text></g>'
    )


def _edge(points: Sequence[tuple[float, float]], *, dotted: bool) -> str:
    """Return a smooth line through `points` with a tip at its end."""
    (x, y), *rest = points
    tip_x, tip_y = rest[-1]
    rest[-1] = (tip_x - 6, tip_y)
    path = [f"M{x:.1f} {y:.1f}"]
    for next_x, next_y in rest:
        middle = (x + next_x) / 2
        path.append(f"C{middle:.1f} {y:.1f} {middle:.1f} {next_y:.1f} {next_x:.1f} {next_y:.1f}")
        x, y = next_x, next_y
    style = "edge order" if dotted else "edge"
    tip = f"M{tip_x:.1f} {tip_y:.1f}l-7 -3.5v7z"
    return f'<path class="{style}" d="{"".join(path)}"/><path class="tip" d="{tip}"/>'


def _legend_width(state: str) -> float:
    return 36 + KIND_PX * len(LABELS[state])


def _legend(states: Sequence[str], y: float) -> list[str]:
    parts = []
    x = 24.0
    for state in states:
        parts.append(
            f'<rect x="{x:.1f}" y="{y - 9:.1f}" width="10" height="10" rx="2" fill="{COLORS[state]}"/>'
        )
        parts.append(f'<text class="legend" x="{x + 16:.1f}" y="{y:.1f}">{LABELS[state]}</text>')
        x += _legend_width(state)
    return parts
