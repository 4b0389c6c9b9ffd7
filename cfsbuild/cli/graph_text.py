"""A plan as a tree of text, and in the DOT language of Graphviz."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from cfsbuild.cli.graph_svg import COLORS, LABELS, Node
from cfsbuild.cli.render import paint

_STYLES = {
    "up-to-date": "green",
    "cached": "green",
    "cut-off": "symlink",
    "run": "yellow",
    "ran": "yellow",
    "pending": "dim",
    "failed": "red",
}


def text_tree(nodes: Sequence[Node], *, color: bool) -> Iterator[str]:
    """Yield lines: what nothing needs at the margin, what it needs below it; nothing is shown twice."""
    by_name = {node.name: node for node in nodes}
    needed = {need for node in nodes for need in node.needs}
    shown: set[str] = set()
    for node in reversed(nodes):
        if node.name not in needed:
            yield from _subtree(node, by_name, shown, "", "", color=color)


def _subtree(  # noqa: PLR0913 (what recursion hands down)
    node: Node, by_name: Mapping[str, Node], shown: set[str], first: str, rest: str, *, color: bool
) -> Iterator[str]:
    label = f"{first}{paint(node.name, 'bold', color=color)} ({node.kind})"
    state = paint(LABELS[node.state], _STYLES.get(node.state, "dim"), color=color)
    if node.name in shown and node.needs:
        yield f"{label} see above"
        return
    shown.add(node.name)
    yield f"{label} {state}" + (f": {node.note}" if node.note else "")
    for index, need in enumerate(node.needs):
        last = index == len(node.needs) - 1
        yield from _subtree(
            by_name[need],
            by_name,
            shown,
            rest + ("└── " if last else "├── "),
            rest + ("    " if last else "│   "),
            color=color,
        )


def dot(title: str, nodes: Sequence[Node]) -> Iterator[str]:
    """Yield the lines of a DOT graph."""
    yield f"digraph {_quote(title)} {{"
    yield "  rankdir=LR;"
    yield '  node [shape=box, style="rounded,filled", fillcolor=white, penwidth=2, fontname="sans-serif"];'
    for node in nodes:
        label = _quote(f"{node.name}\n{node.kind}")
        yield f"  {_quote(node.name)} [label={label}, color={_quote(COLORS[node.state])}];"
    for node in nodes:
        style = "" if node.waits else " [style=dotted]"
        yield from (f"  {_quote(need)} -> {_quote(node.name)}{style};" for need in node.needs)
    yield "}"


def _quote(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
