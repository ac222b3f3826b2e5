"""Draws a chart as an SVG element with its values in it, for the page's script to show; colours are the page's."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

from wgpu_nn.report.curves import Chart, Line

WIDTH, HEIGHT = 520, 300
LEFT, RIGHT, TOP, BOTTOM = 58, 12, 12, 40
COLOURS = 8  # that the page has


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps [low, high] to [start, stop], by logarithms if asked."""

    low: float
    high: float
    start: float
    stop: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        low, high, at = (self._of(v) for v in (self.low, self.high, value))
        return self.start + (self.stop - self.start) * (at - low) / (high - low)

    def _of(self, value: float) -> float:
        return math.log10(value) if self.logarithmic else value


def draw(chart: Chart) -> str:
    """Return the SVG element of a chart that has a finite value."""
    points = [(x, y) for line in chart.lines for x, y in zip(line.xs, line.ys) if math.isfinite(y)]
    log = chart.logarithmic
    x = Scale(*_roomy([p[0] for p in points], whole=True), LEFT, WIDTH - RIGHT)
    y = Scale(*_roomy([p[1] for p in points], log=log), HEIGHT - BOTTOM, TOP, log)
    parts = [_axes(chart, x, y), *(_curve(chart, line, x, y) for line in chart.lines)]
    label = html.escape(f"{chart.title} over {chart.x}s")
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}" '
        f'data-chart="{html.escape(json.dumps(_values(chart, x, y)))}">{"".join(parts)}</svg>'
    )


def ticks(low: float, high: float, most: int = 8, whole: bool = False) -> list[float]:
    """Return round numbers within [low, high]: 1, 2 or 5 times a power of ten apart, at most ``most`` + 1 of them."""
    step = 10 ** math.floor(math.log10((high - low) / most))
    step *= next(k for k in (1, 2, 5, 10, 20) if (high - low) / (step * k) <= most)
    if whole:
        step = max(step, 1)
    first = math.ceil(low / step - 1e-9)
    count = math.floor(high / step + 1e-9) - first + 1
    return [(first + i) * step for i in range(count)]


def powers(low: float, high: float) -> list[float]:
    """Return powers of ten within [low, high], no more than ten of them."""
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    return [10.0**k for k in range(first, last + 1, 1 + (last - first) // 10)]


def short(value: float) -> str:
    """Return a number as an axis shows it: 0.25, 1,500, 2e-05."""
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        return f"{value:,.10g}" if abs(value) >= 1000 else f"{value:.6g}"
    return f"{value:.3g}"


def _roomy(values: Sequence[float], log: bool = False, whole: bool = False) -> tuple[float, float]:
    """Return a range that holds all values, with some room above and below; a single value gets room as well."""
    low, high = min(values), max(values)
    if log:
        return low / 1.3, high * 1.3
    if whole:
        return (low, high) if high > low else (low - 1, high + 1)
    room = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    # What cannot be negative does not seem to be.
    return (max(low - room, 0.0) if low >= 0 else low - room), high + room


def _axes(chart: Chart, x: Scale, y: Scale) -> str:
    marks = powers(y.low, y.high) if y.logarithmic else ticks(y.low, y.high)
    parts: list[str] = []
    for value in marks:
        at = f"{y(value):.1f}"
        parts.append(f'<path class="grid" d="M{LEFT} {at}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{at}" dy="0.35em" text-anchor="end">{short(value)}</text>')
    for value in ticks(x.low, x.high, whole=chart.x in ("epoch", "step")):
        at, below = f"{x(value):.1f}", HEIGHT - BOTTOM
        parts.append(f'<path class="axis" d="M{at} {below}v4"/>')
        parts.append(f'<text x="{at}" y="{below + 17}" text-anchor="middle">{short(value)}</text>')
    parts.append(f'<path class="axis" d="M{LEFT} {HEIGHT - BOTTOM}H{WIDTH - RIGHT}"/>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle:.0f}" y="{HEIGHT - 5}" text-anchor="middle">{html.escape(chart.x)}</text>')
    return "".join(parts)


def _curve(chart: Chart, line: Line, x: Scale, y: Scale) -> str:
    """Return the pieces of a line between values that are not finite; a lone value is a dot; the best one is marked."""
    style = f"c{line.colour % COLOURS}{' dashed' if line.dashed else ''}"
    pieces: list[list[tuple[float, float]]] = [[]]
    for px, value in zip(map(x, line.xs), line.ys):
        if math.isfinite(value):
            pieces[-1].append((px, y(value)))
        elif pieces[-1]:
            pieces.append([])
    parts: list[str] = []
    for piece in (p for p in pieces if p):
        if len(piece) == 1:
            parts.append(f'<circle class="dot {style}" cx="{piece[0][0]:.1f}" cy="{piece[0][1]:.1f}" r="3"/>')
        else:
            path = "L".join(f"{px:.1f} {py:.1f}" for px, py in piece)
            parts.append(f'<path class="line {style}" d="M{path}"/>')
    if line.best is not None:
        px, py = x(line.xs[line.best]), y(line.ys[line.best])
        said = html.escape(line.said(chart.x))
        parts.append(f'<circle class="best {style}" cx="{px:.1f}" cy="{py:.1f}" r="5"><title>{said}</title></circle>')
    return "".join(parts)


def _values(chart: Chart, x: Scale, y: Scale) -> dict[str, object]:
    """Return what the script shows: of each line the places on the drawing, and the numbers there."""
    lines: list[dict[str, object]] = []
    for line in chart.lines:
        kept = [(a, b) for a, b in zip(line.xs, line.ys) if math.isfinite(b)]
        lines.append(
            {
                "label": line.label,
                "colour": line.colour % COLOURS,
                "x": [round(a, 1) for a, _ in kept],
                "y": [float(f"{b:.6g}") for _, b in kept],
                "px": [round(x(a), 1) for a, _ in kept],
                "py": [round(y(b), 1) for _, b in kept],
            }
        )
    return {"x": chart.x, "top": TOP, "bottom": HEIGHT - BOTTOM, "lines": lines}
