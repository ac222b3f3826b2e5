"""Accuracy and top-k accuracy: the share of items whose class is predicted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from wgpu_nn.errors import ConfigError
from wgpu_nn.metrics.base import Better, Metric, ratio, refuse_strays
from wgpu_nn.metrics.classes import class_scores, is_ignored, score_rows, strayed, tally
from wgpu_nn.tensor import Tensor

WRONG, RIGHT, IGNORED, STRAY = range(4)


@dataclass(frozen=True, slots=True)
class Accuracy(Metric):
    """The share of targets that have the largest score (the first of equal ones).

    outputs [..., classes] Float, targets [...] Int. Targets of ``ignore`` (padding) do not count; ``axis`` is that of the
    classes, 1 for images of [batch, classes, height, width]. NaN over nothing. Targets that are no class raise DataError
    when the value is read: the device counts them, as a captured step cannot stop.
    """

    ignore: int | None = None
    axis: int = -1
    name: str = "accuracy"
    better: ClassVar[Better | None] = "higher"

    def statistics(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
        """[..., classes], [...] Int -> [4] Int: how many are wrong, right, ignored, and out of range."""
        at = class_scores(self.name, outputs, targets, self.axis)
        return (_verdicts(outputs.argmax(at) == targets, targets, outputs.shape[at], self.ignore),)

    def value(self, *totals: np.ndarray) -> float:
        return _share(self.name, totals[0])


@dataclass(frozen=True, slots=True)
class TopKAccuracy(Metric):
    """The share of targets that are among the ``k`` largest scores (the first of equal ones).

    outputs [..., classes] Float, targets [...] Int. ``ignore``, ``axis`` and errors are as those of Accuracy; ShapeError
    for more than there are classes. The name is "top-<k>" unless one is given.
    """

    k: int = 5
    ignore: int | None = None
    axis: int = -1
    name: str = ""
    better: ClassVar[Better | None] = "higher"

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ConfigError(f"TopKAccuracy: expected k of 1 or more, got {self.k}")
        if not self.name:
            object.__setattr__(self, "name", f"top-{self.k}")

    def statistics(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
        """[..., classes], [...] Int -> [4] Int: how many are wrong, right, ignored, and out of range."""
        rows, flat = score_rows(self.name, outputs, targets, self.axis)
        right = (rows.topk(self.k, 1)[1] == flat.unsqueeze(1)).any(1)
        return (_verdicts(right, flat, rows.shape[1], self.ignore),)

    def value(self, *totals: np.ndarray) -> float:
        return _share(self.name, totals[0])


def _verdicts(right: Tensor, targets: Tensor, classes: int, ignore: int | None) -> Tensor:
    """Return [4] Int: how many are WRONG, RIGHT, IGNORED and STRAY."""
    verdict = strayed(targets, classes).where(STRAY, right.where(RIGHT, WRONG))
    ignored = is_ignored(targets, ignore)
    if ignored is not None:
        verdict = ignored.where(IGNORED, verdict)
    return tally(verdict.reshape(verdict.size), 4)


def _share(name: str, counts: np.ndarray) -> float:
    refuse_strays(name, int(counts[STRAY]), "that are classes of the outputs")
    return float(ratio(counts[RIGHT], counts[RIGHT] + counts[WRONG]))
