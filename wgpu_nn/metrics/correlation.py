"""How much of the targets' spread outputs have: R², explained variance, and the correlations of Pearson and Spearman."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from wgpu_nn.metrics.base import Better, Details, Joins, Metric, ratio
from wgpu_nn.metrics.regression import number_pairs
from wgpu_nn.shape import size
from wgpu_nn.tensor import Tensor, cat, full, stack


@dataclass(frozen=True, slots=True)
class Spread:
    """Of n pairs (x, y) each: means, and sums of squared deviations and of products of deviations; [columns] all."""

    n: np.ndarray
    x: np.ndarray
    y: np.ndarray
    xx: np.ndarray
    yy: np.ndarray
    xy: np.ndarray

    @classmethod
    def of(cls, rows: np.ndarray) -> Spread:
        """Return those of all batches from [batches, columns, 8] of each (Chan, Golub and LeVeque 1979)."""
        rows = rows[rows[:, 0, 0] > 0].astype(np.float64) if rows.shape[1] else rows
        n, x, y, rx, ry, xx, yy, xy = np.moveaxis(rows, -1, 0)
        items, x, y = n.sum(0), x + rx, y + ry
        mx, my = ratio((n * x).sum(0), items), ratio((n * y).sum(0), items)
        # Deviations were from rounded means, r off the true ones.
        within = (xx - n * rx * rx, yy - n * ry * ry, xy - n * rx * ry)
        between = (n * (x - mx) ** 2, n * (y - my) ** 2, n * (x - mx) * (y - my))
        squares = [(a + b).sum(0) for a, b in zip(within, between)]
        return cls(items, mx, my, *squares)


def spread_of(x: Tensor, y: Tensor) -> Tensor:
    """[n, ...], [n, ...] -> [1, columns, 8] Float: of one batch n, and of x, y: means, what these were rounded by, squared
    deviations, and their products. Two walks keep the digits of numbers far from 0."""
    items = x.shape[0] if x.rank else 1
    if not items:
        return full((1, size(x.shape[1:]), 8), 0.0, x.device)
    x, y = x.reshape(items, x.size // items), y.reshape(items, x.size // items)
    mx, my = x.mean(0), y.mean(0)
    dx, dy = x - mx, y - my
    n = full(mx.shape, float(items), x.device)
    sums = [dx.square().sum(0), dy.square().sum(0), (dx * dy).sum(0)]
    return stack([n, mx, my, dx.mean(0), dy.mean(0), *sums], 1).unsqueeze(0)


@dataclass(frozen=True, slots=True)
class R2(Metric):
    """1 - Σ (target - output)² / Σ (target - mean target)²; 1 is perfect, 0 is what the mean would do.

    outputs and targets [n] or [n, columns] Float; the mean over columns, which are in the details as ``per_column``. NaN
    where targets do not vary (scikit-learn says 0 or 1), and over nothing.
    """

    name: str = "r2"
    better: ClassVar[Better | None] = "higher"
    joins: ClassVar[Joins] = "concat"

    def statistics(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
        """Return [1, columns, 8] Float: what ``spread_of`` gives of targets and errors."""
        outputs, targets = number_pairs(self.name, outputs, targets)
        return (spread_of(targets, targets - outputs),)

    def value(self, *totals: np.ndarray) -> float:
        return _mean(self._columns(totals[0]))

    def details(self, *totals: np.ndarray) -> Details:
        return {"per_column": self._columns(totals[0])}

    def _columns(self, rows: np.ndarray) -> np.ndarray:
        s = Spread.of(rows)
        return 1 - ratio(s.yy + s.n * s.y**2, s.xx)


@dataclass(frozen=True, slots=True)
class ExplainedVariance(Metric):
    """1 - var(target - output) / var(target): R² but for a constant that all outputs are off.

    Shapes, details and NaN are as those of R2.
    """

    name: str = "explained-variance"
    better: ClassVar[Better | None] = "higher"
    joins: ClassVar[Joins] = "concat"

    def statistics(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
        """Return [1, columns, 8] Float: what ``spread_of`` gives of targets and errors."""
        outputs, targets = number_pairs(self.name, outputs, targets)
        return (spread_of(targets, targets - outputs),)

    def value(self, *totals: np.ndarray) -> float:
        return _mean(self._columns(totals[0]))

    def details(self, *totals: np.ndarray) -> Details:
        return {"per_column": self._columns(totals[0])}

    def _columns(self, rows: np.ndarray) -> np.ndarray:
        s = Spread.of(rows)
        return 1 - ratio(s.yy, s.xx)


@dataclass(frozen=True, slots=True)
class Pearson(Metric):
    """Pearson's correlation of outputs and targets, -1 to 1; shapes, details and NaN are as those of R2.

    NaN also where outputs do not vary.
    """

    name: str = "pearson"
    better: ClassVar[Better | None] = "higher"
    joins: ClassVar[Joins] = "concat"

    def statistics(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
        """Return [1, columns, 8] Float: what ``spread_of`` gives of targets and outputs."""
        outputs, targets = number_pairs(self.name, outputs, targets)
        return (spread_of(targets, outputs),)

    def value(self, *totals: np.ndarray) -> float:
        return _mean(self._columns(totals[0]))

    def details(self, *totals: np.ndarray) -> Details:
        return {"per_column": self._columns(totals[0])}

    def _columns(self, rows: np.ndarray) -> np.ndarray:
        s = Spread.of(rows)
        return np.clip(ratio(s.xy, np.sqrt(s.xx) * np.sqrt(s.yy)), -1, 1)


@dataclass(frozen=True, slots=True)
class Spearman(Metric):
    """Spearman's correlation: Pearson's of the ranks; equal numbers have the mean of their ranks.

    outputs and targets [...] Float, flattened. NaN where either does not vary, where a number is NaN, and over nothing. All
    numbers stay on the device until the value is read; it sorts them.
    """

    name: str = "spearman"
    better: ClassVar[Better | None] = "higher"
    joins: ClassVar[Joins] = "concat"

    def statistics(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
        """Return outputs and targets, [n] Float each."""
        outputs, targets = number_pairs(self.name, outputs, targets)
        return outputs.reshape(outputs.size), targets.reshape(targets.size)

    def condense(self, *joined: Tensor) -> tuple[Tensor, ...]:
        """Return, of outputs and of targets: [n] Int, the order, and [n] Int, where equal numbers end; 2 marks a NaN."""
        found: list[Tensor] = []
        for x in joined:
            if not x.size:
                return ()
            values, order = x.sort()
            ends = (values.narrow(0, 0, x.size - 1) != values.narrow(0, 1, x.size - 1)).where(1, 0)
            found += [order, values.is_nan().where(2, cat([ends, full((1,), 1, x.device)]))]
        return tuple(found)

    def value(self, *totals: np.ndarray) -> float:
        if not totals or any((ends == 2).any() for ends in totals[1::2]):
            return math.nan
        x, y = (_ranks(order, ends) for order, ends in zip(totals[::2], totals[1::2]))
        x, y = x - x.mean(), y - y.mean()
        return float(np.clip(ratio((x * y).sum(), math.sqrt((x * x).sum()) * math.sqrt((y * y).sum())), -1, 1))


def _ranks(order: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Return the rank of each element, equals sharing theirs, from what sorts them and where equals end."""
    last = np.flatnonzero(ends)
    first = np.concatenate([[0], last[:-1] + 1])
    ranks = np.empty(len(order))
    ranks[order] = np.repeat((first + last) / 2, last - first + 1)
    return ranks


def _mean(columns: np.ndarray) -> float:
    return float(columns.mean()) if columns.size else math.nan
