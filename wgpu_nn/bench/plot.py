"""Draws groups of bars as a PNG: an engine a bar, with a mark where a group's roof is; knows no benchmark."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wgpu_nn.errors import ConfigError, missing_extra

# Ours are the ones that stand out; peers are told apart by lightness, which print and every eye keep.
OURS, PEERS = ("#0b6e4f", "#3f9a76", "#86c5a4", "#c3e3d1"), ("#3d405b", "#6f7594", "#9ca1b8", "#c6c9d8", "#e2b07a")
ROOF = "#b23a48"
BAR = 0.24  # inches
GAP = 0.8  # bars between groups
WIDE = 50  # times the least: where lengths are better drawn by their logarithms


@dataclass(frozen=True, slots=True)
class Bar:
    """``note`` stands behind the number."""

    engine: str
    value: float
    peer: bool
    note: str = ""


@dataclass(frozen=True, slots=True)
class Group:
    """Bars of the same work; no one can be longer than ``roof``, if that is known."""

    title: str
    bars: Sequence[Bar]
    roof: float | None = None


@dataclass(frozen=True, slots=True)
class Chart:
    """``unit`` is that of all values, and says which way is better."""

    title: str
    unit: str
    groups: Sequence[Group]


def check() -> None:
    """Raise if there is nothing to draw with."""
    if importlib.util.find_spec("matplotlib") is None:
        raise missing_extra("bench --plot", "matplotlib", "train")


def draw(chart: Chart, path: Path) -> None:
    """Write a PNG."""
    check()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    bars = [bar for group in chart.groups for bar in group.bars]
    if not bars:
        raise ConfigError("bench --plot: expected something to draw, got no times; see the table for why")
    colours = _colours(bars)
    figure = Figure(figsize=(9, 1.6 + BAR * (len(bars) + GAP * len(chart.groups))), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    at = 0.0
    ticks: list[tuple[float, str]] = []
    for group in chart.groups:
        first = at
        for bar in group.bars:
            axes.barh(at, bar.value, height=0.86, color=colours[bar.engine])
            number = f"{bar.value:,.3g}" if bar.value < 1000 else f"{bar.value:,.0f}"
            # Numbers stand over the marks of roofs.
            white = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
            where: dict[str, Any] = {"textcoords": "offset points", "va": "center", "zorder": 3, "bbox": white}
            axes.annotate(f"{number}   {bar.note}".rstrip(), (bar.value, at), (4, 0), fontsize=8, **where)
            at += 1
        if group.roof is not None:
            axes.plot([group.roof] * 2, [first - 0.6, at - 0.4], color=ROOF, linewidth=2, solid_capstyle="butt")
        ticks.append(((first + at - 1) / 2, group.title.replace(" [", "\n[", 1)))
        at += GAP
    axes.set_yticks([y for y, _ in ticks], [t for _, t in ticks], fontsize=8)
    axes.set_ylim(at - GAP + 0.1, -1.1)
    roofs = [group.roof for group in chart.groups if group.roof is not None]
    most, least = max([*(bar.value for bar in bars), *roofs]), min(bar.value for bar in bars)
    if most > WIDE * least > 0:
        axes.set_xscale("log")
        axes.set_xlim(least / 3, most * 8)
    else:
        axes.set_xlim(0, most * 1.25)
    axes.set_title(chart.title, loc="left", fontsize=11)
    axes.set_xlabel(chart.unit)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    handles: list[Any] = [Patch(color=colour, label=engine) for engine, colour in colours.items()]
    if roofs:
        handles.append(Line2D([], [], color=ROOF, linewidth=2, label="roof, as measured"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=8)
    try:
        figure.savefig(path, format="png")
    except OSError as error:
        raise ConfigError(f"bench: cannot write {path}: {error.strerror}; choose another --plot file") from error


def _colours(bars: Sequence[Bar]) -> dict[str, str]:
    """Return a colour for each engine, in the order in which they come."""
    found: dict[str, str] = {}
    for peer, palette in ((False, OURS), (True, PEERS)):
        engines = dict.fromkeys(bar.engine for bar in bars if bar.peer is peer)
        found |= {engine: palette[n % len(palette)] for n, engine in enumerate(engines)}
    return {bar.engine: found[bar.engine] for bar in bars}
