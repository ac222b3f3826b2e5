"""The confusion matrix, and Cohen's kappa, which needs all of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from wgpu_nn.metrics.base import Better, Details, Metric, ratio, refuse_strays
from wgpu_nn.metrics.classes import check_field, class_scores, is_ignored, not_binary, paired, strayed
from wgpu_nn.tensor import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Confused(Metric):
    """A metric of the confusion matrix.

    "multiclass": outputs [..., classes] with the classes on ``axis``, targets [...] Int. "binary": outputs [...], positive
    from ``threshold`` on, targets [...] of 0 and 1. Targets of ``ignore`` do not count; others that are no class raise
    DataError when the value is read.
    """

    task: Literal["binary", "multiclass"] = "multiclass"
    threshold: float = 0.5
    ignore: int | None = None
    axis: int = -1
    name: str = ""

    def __post_init__(self) -> None:
        check_field(self.name, "task", self.task, "binary", "multiclass")

    def statistics(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
        """Return [classes² + 2] Int: the matrix row by row, a row for each target; ignored; stray."""
        if self.task == "multiclass":
            classes = outputs.shape[class_scores(self.name, outputs, targets, self.axis)]
            decided, stray = outputs.argmax(self.axis), strayed(targets, classes)
        else:
            outputs, targets = paired(self.name, outputs, targets)
            decided, stray = (outputs >= self.threshold).where(1, 0), not_binary(targets)
            classes = 2
        place = stray.where(classes * classes + 1, targets.int() * classes + decided)
        ignored = is_ignored(targets, self.ignore)
        if ignored is not None:
            place = ignored.where(classes * classes, place)
        return (place.bincount(length=classes * classes + 2),)

    def matrix(self, total: np.ndarray) -> np.ndarray:
        """Return [classes, classes]: how many items of each target, a row, were taken for each class, a column."""
        refuse_strays(self.name, int(total[-1]), "that are classes of the outputs")
        classes = round((len(total) - 2) ** 0.5)
        return total[:-2].reshape(classes, classes).astype(np.int64)

    def details(self, *totals: np.ndarray) -> Details:
        return {"matrix": self.matrix(totals[0])}


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfusionMatrix(Confused):
    """How often each class was taken for each: in the details as ``matrix``, a row for each target.

    The value is the share on its diagonal, the accuracy; NaN over nothing.
    """

    name: str = "confusion"
    better: ClassVar[Better | None] = "higher"

    def value(self, *totals: np.ndarray) -> float:
        matrix = self.matrix(totals[0])
        return float(ratio(np.trace(matrix), matrix.sum()))


@dataclass(frozen=True, slots=True, kw_only=True)
class CohenKappa(Confused):
    """Cohen's kappa (1960): how much of the disagreement that chance would give is not there; 1 is perfect, 0 is chance.

    ``weights`` weighs a disagreement by 1, or by the distance of the classes, "linear", or by its square, "quadratic"
    (Cohen 1968). NaN where chance would not disagree: all targets and decisions are of one class.
    """

    weights: Literal["linear", "quadratic"] | None = None
    name: str = "cohen-kappa"
    better: ClassVar[Better | None] = "higher"

    def __post_init__(self) -> None:
        Confused.__post_init__(self)
        check_field(self.name, "weights", self.weights, None, "linear", "quadratic")

    def value(self, *totals: np.ndarray) -> float:
        matrix = self.matrix(totals[0]).astype(np.float64)
        classes = np.arange(len(matrix))
        apart = np.abs(classes[:, None] - classes).astype(np.float64)
        weight = {None: (apart > 0).astype(np.float64), "linear": apart, "quadratic": apart**2}[self.weights]
        chance = matrix.sum(1)[:, None] * matrix.sum(0) / max(matrix.sum(), 1.0)
        return float(1 - ratio((weight * matrix).sum(), (weight * chance).sum()))
