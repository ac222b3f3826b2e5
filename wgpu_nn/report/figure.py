"""Draws the charts of runs as one PNG, through matplotlib; what is drawn, curves.py knows."""

from __future__ import annotations

import importlib.util
import io
import math
from collections.abc import Sequence

from wgpu_nn.errors import DataError, missing_extra
from wgpu_nn.report.curves import Chart

# The page's colours in light.
COLOURS = ("#0b6e4f", "#cf5c36", "#3d5a99", "#b58900", "#7b4ea3", "#12939a", "#8d6a4a", "#5c677d")
SOFT, RULE = "#5d6863", "#d9dedb"
WIDTH, HEIGHT = 5.2, 3.1  # inches of one chart


def check() -> None:
    """Raise if there is nothing to draw with."""
    if importlib.util.find_spec("matplotlib") is None:
        raise missing_extra("report --png", "matplotlib", "train")


def draw(title: str, found: Sequence[Chart]) -> bytes:
    """Return a PNG file of all charts, two in a row; raises DataError for none, and MissingExtraError."""
    check()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not found:
        raise DataError("report --png: expected something to draw, got no values yet; wait for the first steps")
    columns = min(2, len(found))
    rows = -(-len(found) // columns)
    figure = Figure(figsize=(WIDTH * columns, HEIGHT * rows + 0.4), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[len(found) :]:
        axes.set_visible(False)
    for axes, chart in zip(grid, found):
        for line in chart.lines:
            colour, style = COLOURS[line.colour % len(COLOURS)], "--" if line.dashed else "-"
            alone = sum(map(math.isfinite, line.ys)) == 1
            width = 1.2 if line.dashed else 1.8
            marker = "o" if alone else None
            axes.plot(line.xs, line.ys, style, color=colour, linewidth=width, marker=marker, label=line.said(chart.x))
            if line.best is not None:
                at = ([line.xs[line.best]], [line.ys[line.best]])
                ring = {"markersize": 7, "markerfacecolor": "white", "markeredgewidth": 1.8}
                axes.plot(*at, "o", color=colour, **ring)
        if chart.logarithmic:
            axes.set_yscale("log")
        axes.set_title(chart.title, loc="left", fontsize=10)
        axes.set_xlabel(chart.x, fontsize=8, color=SOFT)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(axis="y", color=RULE, linewidth=0.8)
        axes.tick_params(labelsize=8, colors=SOFT)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.legend(fontsize=7, framealpha=0.8, edgecolor="none", labelcolor=SOFT)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()
