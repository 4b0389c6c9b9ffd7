"""How cost grows from a thousand to a million entries: dump file to image, ours and mkcomposefs.

    grow.py [--largest N] [--rounds N] [--svg FILE]

Prints processor seconds, microseconds and peak bytes an entry, and draws them, both axes logarithmic.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from pathlib import Path
from typing import NamedTuple

import corpus
from measure import Sample, cfsbuild, mkcomposefs, run

WIDTH, HEIGHT, MARGIN = 640, 400, 60
COLOURS = {"cfsbuild": "#0b7285", "mkcomposefs": "#c92a2a"}


class Point(NamedTuple):
    """The least processor time and the largest peak of some runs."""

    entries: int
    cpu: float
    peak: int


def measured(largest: int, rounds: int) -> dict[str, list[Point]]:
    """Return the points of both programs."""
    result: dict[str, list[Point]] = {name: [] for name in COLOURS}
    with tempfile.TemporaryDirectory(prefix="grow-") as directory:
        here = Path(directory)
        entries = 1000
        while entries <= largest:
            dump = here / "dump"
            corpus.make_dump(dump, entries)
            options = ["--from-file", str(dump), str(here / "image")]
            commands = {
                "cfsbuild": [cfsbuild(), "mkcomposefs", *options],
                "mkcomposefs": [*mkcomposefs(), *options],
            }
            samples: dict[str, list[Sample]] = {name: [] for name in commands}
            for _ in range(rounds):
                for name, command in commands.items():
                    samples[name].append(run(command)[0])
            for name, found in samples.items():
                cpu, peak = min(sample.cpu for sample in found), max(sample.peak for sample in found)
                result[name].append(Point(entries, cpu, peak))
                each = f"{cpu / entries * 1e6:8.1f} us  {peak / entries:9.0f} B"
                print(f"{entries:>9,} entries  {name:<12} {cpu:8.3f} s CPU  {each} an entry", flush=True)
            entries *= 10
    return result


def svg(points: dict[str, list[Point]]) -> str:
    """Return a picture: entries to the right, processor seconds upwards."""
    xs = [math.log10(point.entries) for line in points.values() for point in line]
    ys = [math.log10(point.cpu) for line in points.values() for point in line]
    left, right = min(xs), max(xs)
    bottom, top = math.floor(min(ys)), math.ceil(max(ys))

    def place(x: float, y: float) -> tuple[float, float]:
        across = MARGIN + (x - left) / (right - left) * (WIDTH - 2 * MARGIN)
        up = HEIGHT - MARGIN - (y - bottom) / (top - bottom) * (HEIGHT - 2 * MARGIN)
        return round(across, 1), round(up, 1)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}">',
        "<style>text { font: 12px sans-serif }</style>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
    ]
    for power in range(bottom, top + 1):
        x, y = place(left, power)
        parts.append(f'<path d="M{x} {y}H{WIDTH - MARGIN}" stroke="#ddd"/>')
        parts.append(f'<text x="{x - 8}" y="{y + 4}" text-anchor="end">{10.0**power:g} s</text>')
    for x_power in range(round(left), round(right) + 1):
        x, y = place(x_power, bottom)
        parts.append(f'<path d="M{x} {y}V{MARGIN}" stroke="#ddd"/>')
        parts.append(f'<text x="{x}" y="{y + 18}" text-anchor="middle">{10**x_power:,}</text>')
    for number, (name, line) in enumerate(points.items()):
        at = [place(math.log10(point.entries), math.log10(point.cpu)) for point in line]
        path = "L".join(f"{x} {y}" for x, y in at)
        parts.append(f'<path d="M{path}" fill="none" stroke="{COLOURS[name]}" stroke-width="2"/>')
        parts.extend(f'<circle cx="{x}" cy="{y}" r="3" fill="{COLOURS[name]}"/>' for x, y in at)
        y = MARGIN + 16 * number + 4
        parts.append(f'<text x="{MARGIN + 12}" y="{y}" fill="{COLOURS[name]}">{name}</text>')
    parts.append(
        f'<text x="{WIDTH / 2}" y="{HEIGHT - 14}" text-anchor="middle">entries of the dump file</text>'
        f'<text x="{WIDTH / 2}" y="28" text-anchor="middle">dump to image: processor seconds</text></svg>\n'
    )
    return "\n".join(parts)


def main() -> None:
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--largest", type=int, default=10**6)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--svg", type=Path)
    options = parser.parse_args()
    points = measured(options.largest, options.rounds)
    if options.svg:
        options.svg.write_text(svg(points))


if __name__ == "__main__":
    main()
