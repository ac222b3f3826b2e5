"""What is drawn of runs: a chart for every number, a line for every run and split; draws nothing itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wgpu_nn.report.run import SPLITS, Run, number

POINTS = 400  # of a line at most: more than a page shows apart
WIDE = 1000  # times the least: where values are better drawn by their logarithms
NO_VALUES = ("kind", "epoch", "step")


@dataclass(frozen=True, slots=True)
class Line:
    """Values of one run; ``colour`` counts the colours of the chart, and a best value has its place in the line."""

    label: str
    colour: int
    dashed: bool
    xs: Sequence[float]
    ys: Sequence[float]
    best: int | None = None

    def said(self, x: str) -> str:
        """Return the label with the best value, and at which ``x`` that is."""
        if self.best is None:
            return self.label
        return f"{self.label}, best {self.ys[self.best]:.6g} in {x} {self.xs[self.best]:g}"


@dataclass(frozen=True, slots=True)
class Chart:
    """Lines over one axis, ``x``: "epoch", "step", or the name of a number."""

    title: str
    x: str
    lines: Sequence[Line]
    logarithmic: bool = False


def charts(runs: Sequence[Run]) -> list[Chart]:
    """Return the charts of ``runs``: what was measured by epoch, the loss first, and then by step."""
    found = [_by_epoch(runs, name) for name in metric_names(runs)]
    found += [_by_step(runs, name) for name in step_names(runs)]
    return [chart for chart in found if any(math.isfinite(y) for line in chart.lines for y in line.ys)]


def metric_names(runs: Sequence[Run]) -> list[str]:
    """Return the names of what was measured by epoch, the loss first, then as the runs have them."""
    names = {n: 0 for run in runs for e in run.epochs for split in SPLITS for n in e.get(split, {})}
    return sorted(names, key=lambda name: name != "loss")


def step_names(runs: Sequence[Run]) -> list[str]:
    """Return the names of what was measured by step, the loss first, then as the runs have them."""
    names = {n: 0 for run in runs for line in run.steps for n in line if n not in NO_VALUES}
    return sorted(names, key=lambda name: name != "loss")


def _by_epoch(runs: Sequence[Run], name: str) -> Chart:
    lines: list[Line] = []
    for i, run in enumerate(runs):
        best = run.best(name)
        for split in SPLITS:
            xs, ys = run.series(split, name)
            if not xs:
                continue
            alone = len(runs) == 1
            label = split if alone else f"{run.name}, {split}"
            place = xs.index(best[1]) if best is not None and best[0] == split else None
            xs, ys, place = _thinned(xs, ys, place)
            lines.append(Line(label, (split == "train") if alone else i, split == "train", xs, ys, place))
    return Chart(name, "epoch", lines, _wide(lines))


def _by_step(runs: Sequence[Run], name: str) -> Chart:
    lines: list[Line] = []
    for i, run in enumerate(runs):
        pairs = [(float(s["step"]), number(s.get(name))) for s in run.steps]
        xs, ys = [x for x, y in pairs if y is not None], [y for _, y in pairs if y is not None]
        if xs:
            lines.append(Line("train" if len(runs) == 1 else run.name, i, False, *binned(xs, ys)))
    if name == "lr":  # which may fall to 0, where logarithms show little else
        return Chart("learning rate", "step", lines)
    return Chart(f"{name} by step", "step", lines, _wide(lines))


def _wide(lines: Sequence[Line]) -> bool:
    """Say whether values are so far apart that logarithms show them better."""
    ys = [y for line in lines for y in line.ys if math.isfinite(y)]
    return bool(ys) and min(ys) > 0 and max(ys) > WIDE * min(ys)


def binned(xs: Sequence[float], ys: Sequence[float]) -> tuple[list[float], list[float]]:
    """Return a line of at most POINTS points: means over equally many steps; what is not finite stays so."""
    if len(xs) <= POINTS:
        return list(xs), list(ys)
    cuts = np.linspace(0, len(xs), POINTS + 1).astype(int)[:-1]
    counts = np.diff([*cuts, len(xs)])
    with np.errstate(invalid="ignore"):  # inf - inf
        return (np.add.reduceat(xs, cuts) / counts).tolist(), (np.add.reduceat(ys, cuts) / counts).tolist()


def _thinned(xs: list[float], ys: list[float], best: int | None) -> tuple[list[float], list[float], int | None]:
    """Return every n-th of very many epochs, with the best one and the last."""
    if len(xs) <= POINTS:
        return xs, ys, best
    chosen: set[int] = {len(xs) - 1, *range(0, len(xs), -(-len(xs) // POINTS))} | (set() if best is None else {best})
    kept = sorted(chosen)
    return [xs[i] for i in kept], [ys[i] for i in kept], None if best is None else kept.index(best)
