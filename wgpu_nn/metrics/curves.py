"""Areas under the ROC and the precision-recall curve: exact, from all scores, which the device sorts."""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from wgpu_nn.metrics.base import Better, Details, Joins, Metric, ratio, refuse_strays
from wgpu_nn.metrics.classes import check_field, is_ignored, not_binary, paired, score_rows, strayed
from wgpu_nn.metrics.decided import Task
from wgpu_nn.tensor import Tensor, arange, cat, ones

# Marks of an item and a class, and what is added to them once the scores are in order.
NEGATIVE, POSITIVE, IGNORED, STRAY = range(4)
LAST_OF_EQUALS, NOT_A_NUMBER = 4, 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked(Metric):
    """A metric of the order of all scores.

    "binary": outputs [...] or [..., 1], scores of any scale; targets [...] of 0 and 1. "multiclass": outputs [..., classes],
    each class against the rest; with ``logits`` the items rank by their softmax, else as they are; targets [...]
    Int. "multilabel": outputs and targets [..., labels].

    ``average`` over classes: "macro", or "weighted" by their number of targets. A class that is undefined is left out; NaN
    over none, and where a score is NaN. Equal scores count as one step of the curve. Targets of ``ignore`` do not count;
    others that are no class raise DataError when the value is read. Details: ``per_class``. All scores and marks, 8 bytes
    an item and class, stay on the device until then.
    """

    task: Task = "binary"
    average: Literal["macro", "weighted"] = "macro"
    logits: bool = True
    ignore: int | None = None
    axis: int = -1
    name: str = ""
    better: ClassVar[Better | None] = "higher"
    joins: ClassVar[Joins] = "concat"

    def __post_init__(self) -> None:
        check_field(self.name, "task", self.task, "binary", "multiclass", "multilabel")
        check_field(self.name, "average", self.average, "macro", "weighted")

    @abc.abstractmethod
    def area(self, tp: np.ndarray, fp: np.ndarray) -> float:
        """Return the area, from how many true and false positives there are at each threshold, from the highest down."""

    def statistics(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
        """Return scores [n, classes], and marks [n, classes] Int."""
        if self.task == "multiclass":
            rows, flat = score_rows(self.name, outputs, targets, self.axis)
            targets, classes = flat.unsqueeze(1), rows.shape[1]
            rows = rows.log_softmax(1) if self.logits else rows  # in the same order, and small ones keep apart
            positive = targets == arange(classes, device=outputs.device)
            stray = strayed(targets, classes)
        else:
            outputs, targets = paired(self.name, outputs, targets)
            labels = outputs.shape[-1] if self.task == "multilabel" else 1
            rows, targets = (x.reshape(x.size // max(labels, 1), labels) for x in (outputs, targets))
            positive, stray = targets == 1, not_binary(targets)
        mark = stray.where(STRAY, positive.where(POSITIVE, NEGATIVE))
        ignored = is_ignored(targets, self.ignore)
        return rows, mark if ignored is None else ignored.where(IGNORED, mark)

    def condense(self, *joined: Tensor) -> tuple[Tensor, ...]:
        """Return [n, classes] Int: the marks in order of falling scores, and where equal scores end."""
        scores, marks = joined
        items, classes = scores.shape
        if not items:
            return (marks,)
        order = scores.argsort(0, descending=True)
        scores, marks = scores.gather(0, order), marks.gather(0, order)
        ends = scores.narrow(0, 0, items - 1) != scores.narrow(0, 1, items - 1)
        last = cat([ends.where(1, 0), ones((1, classes), scores.device).int()])
        return (marks + last * LAST_OF_EQUALS + scores.is_nan().where(NOT_A_NUMBER, 0),)

    def value(self, *totals: np.ndarray) -> float:
        areas, support = self._areas(totals[0])
        there = ~np.isnan(areas)
        weights = support if self.average == "weighted" else np.ones_like(areas)
        return float(ratio((areas[there] * weights[there]).sum(), weights[there].sum()))

    def details(self, *totals: np.ndarray) -> Details:
        areas, support = self._areas(totals[0])
        return {"per_class": areas, "support": support}

    def _areas(self, marks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        kinds = marks % LAST_OF_EQUALS
        stray = (kinds == STRAY).sum(0)
        refuse_strays(
            self.name,
            int(stray.max(initial=0) if self.task == "multiclass" else stray.sum()),
            "that are classes of the outputs" if self.task == "multiclass" else "of 0 and 1",
        )
        counted = kinds != IGNORED
        nan = ((marks >= NOT_A_NUMBER) & counted).any(0)
        last = (marks & LAST_OF_EQUALS) > 0
        areas = np.full(marks.shape[1], math.nan)
        for c in np.flatnonzero(~nan):
            steps = last[:, c]
            tp, fp = (np.cumsum(kinds[:, c] == k, dtype=np.int64)[steps] for k in (POSITIVE, NEGATIVE))
            if len(tp):
                areas[c] = self.area(np.concatenate([[0], tp]), np.concatenate([[0], fp]))
        return areas, (kinds == POSITIVE).sum(0).astype(np.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class AUROC(Ranked):
    """The area under the curve of true positives over false ones: how likely a positive item scores higher than a negative.

    Equal scores count a half. NaN without positive or without negative items.
    """

    name: str = "auroc"

    def area(self, tp: np.ndarray, fp: np.ndarray) -> float:
        twice = (np.diff(fp) * (tp[1:] + tp[:-1])).sum()
        return float(ratio(twice, 2.0 * tp[-1] * fp[-1]))


@dataclass(frozen=True, slots=True, kw_only=True)
class AveragePrecision(Ranked):
    """Σ (recall[i] - recall[i - 1]) precision[i] over falling thresholds: the area under the precision-recall curve.

    Nothing is interpolated. NaN without positive items (scikit-learn says 0).
    """

    name: str = "average-precision"

    def area(self, tp: np.ndarray, fp: np.ndarray) -> float:
        precision = ratio(tp[1:], tp[1:] + fp[1:], undefined=0.0)
        return float(ratio((np.diff(tp) * precision).sum(), tp[-1]))
