"""Errors of predicted numbers: means of them, and the largest; what compares spreads is in correlation.py."""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from wgpu_nn.dtype import Float, Int
from wgpu_nn.errors import KindError
from wgpu_nn.metrics.base import Better, Joins, Metric, ratio
from wgpu_nn.metrics.classes import paired
from wgpu_nn.tensor import Tensor, full, zeros

# As scikit-learn has it: targets nearer to 0 count as this far from it.
SMALLEST = float(np.finfo(np.float64).eps)


def number_pairs(name: str, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return Float outputs and targets of one shape; ShapeError and KindError where they do not fit."""
    outputs, targets = paired(name, outputs, targets)
    if targets.kind is not Float:
        raise KindError(f"{name}: expected Float targets, got {targets.kind}; convert them with .float()")
    return outputs, targets


@dataclass(frozen=True, slots=True)
class MeanError(Metric):
    """The mean of an error over all elements; outputs and targets [...] Float. NaN over nothing."""

    name: str = ""
    better: ClassVar[Better | None] = "lower"

    @abc.abstractmethod
    def error(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the error of each element."""

    def statistics(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
        """Return the sum of errors [] Float, and of how many [] Int."""
        outputs, targets = number_pairs(self.name, outputs, targets)
        return self.error(outputs, targets).sum(), full((), outputs.size, outputs.device, Int)

    def value(self, *totals: np.ndarray) -> float:
        return float(ratio(totals[0], totals[1]))


@dataclass(frozen=True, slots=True)
class MAE(MeanError):
    """The mean of |output - target|."""

    name: str = "mae"

    def error(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - targets).abs()


@dataclass(frozen=True, slots=True)
class MSE(MeanError):
    """The mean of (output - target)²."""

    name: str = "mse"

    def error(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - targets).square()


@dataclass(frozen=True, slots=True)
class RMSE(MeanError):
    """The root of the mean of (output - target)² over all elements, in the targets' unit."""

    name: str = "rmse"

    def error(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - targets).square()

    def value(self, *totals: np.ndarray) -> float:
        return math.sqrt(float(ratio(totals[0], totals[1])))


@dataclass(frozen=True, slots=True)
class MAPE(MeanError):
    """The mean of |output - target| / max(|target|, 2.2e-16): 0.1 is ten percent; huge where targets are 0."""

    name: str = "mape"

    def error(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - targets).abs() / targets.abs().maximum(SMALLEST)


@dataclass(frozen=True, slots=True)
class MaxError(Metric):
    """The largest |output - target|; NaN over nothing, and where one is NaN."""

    name: str = "max-error"
    better: ClassVar[Better | None] = "lower"
    joins: ClassVar[Joins] = "concat"

    def statistics(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
        """Return the batch's largest error, [1] Float, or [0] of an empty batch."""
        outputs, targets = number_pairs(self.name, outputs, targets)
        if not outputs.size:
            return (zeros((0,), outputs.device),)
        return ((outputs - targets).abs().max().reshape(1),)

    def value(self, *totals: np.ndarray) -> float:
        return float(totals[0].max()) if totals[0].size else math.nan
