"""Precision, recall, F-scores and what else compares decisions with targets: formulas over the counts of classes."""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from wgpu_nn.errors import ConfigError
from wgpu_nn.metrics.base import Better, Details, ratio
from wgpu_nn.metrics.classes import check_field
from wgpu_nn.metrics.decided import Counts, Decided, Task

Average = Literal["micro", "macro", "weighted"]
Parts = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, slots=True, kw_only=True)
class Averaged(Decided):
    """A share of counts, of each class, and its mean over classes.

    ``average``: "macro" is the mean over classes, "weighted" weighs each by its number of targets, "micro" pools the counts
    of all classes first. A class whose share is 0 / 0 is ``zero_division``; if that is NaN, as it is unless set, the mean
    leaves the class out, and is NaN over none. ``labels`` limits the mean to some classes. A binary task has the value of
    the positive class. Details: ``per_class`` and ``support``.
    """

    average: Average = "macro"
    zero_division: float = math.nan
    labels: tuple[int, ...] | None = None
    better: ClassVar[Better | None] = "higher"

    def __post_init__(self) -> None:
        Decided.__post_init__(self)
        check_field(self.name, "average", self.average, "micro", "macro", "weighted")

    @abc.abstractmethod
    def parts(self, n: Counts) -> Parts:
        """Return numerator and denominator of each class."""

    def value(self, *totals: np.ndarray) -> float:
        counts = self._chosen(totals[0])
        if self.average == "micro":
            counts = counts.pooled()
        shares = ratio(*self.parts(counts), undefined=self.zero_division)
        weights = counts.support if self.average == "weighted" else np.ones_like(shares)
        there = ~np.isnan(shares)
        return float(ratio((shares[there] * weights[there]).sum(), weights[there].sum()))

    def details(self, *totals: np.ndarray) -> Details:
        counts = self.counts(totals[0])
        return {"per_class": ratio(*self.parts(counts), undefined=self.zero_division), "support": counts.support}

    def _chosen(self, total: np.ndarray) -> Counts:
        counts = self.counts(total)
        if self.labels is None:
            return counts
        if not all(0 <= label < len(counts.tp) for label in self.labels):
            raise ConfigError(f"{self.name}: expected labels below {len(counts.tp)}, got {list(self.labels)}")
        return counts.of(self.labels)


@dataclass(frozen=True, slots=True, kw_only=True)
class Precision(Averaged):
    """tp / (tp + fp): how many of the decisions for a class are right."""

    name: str = "precision"

    def parts(self, n: Counts) -> Parts:
        return n.tp, n.decided


@dataclass(frozen=True, slots=True, kw_only=True)
class Recall(Averaged):
    """tp / (tp + fn): how many of the targets of a class are found; also called sensitivity."""

    name: str = "recall"

    def parts(self, n: Counts) -> Parts:
        return n.tp, n.support


@dataclass(frozen=True, slots=True, kw_only=True)
class Specificity(Averaged):
    """tn / (tn + fp): how many of the items that are not of a class are not taken for it."""

    name: str = "specificity"

    def parts(self, n: Counts) -> Parts:
        return n.tn, n.tn + n.fp


@dataclass(frozen=True, slots=True, kw_only=True)
class FBeta(Averaged):
    """(1 + b²) tp / (b² (tp + fn) + tp + fp): the harmonic mean of precision and recall, which weighs b² times as much."""

    beta: float = 1.0
    name: str = "f-beta"

    def parts(self, n: Counts) -> Parts:
        square = self.beta**2
        return (1 + square) * n.tp, square * n.support + n.decided


@dataclass(frozen=True, slots=True, kw_only=True)
class F1(Averaged):
    """2 tp / (2 tp + fp + fn): the harmonic mean of precision and recall."""

    name: str = "f1"

    def parts(self, n: Counts) -> Parts:
        return _dice(n)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dice(Averaged):
    """2 |A ∩ B| / (|A| + |B|) of the regions of each class in all images, which is F1 over pixels (Dice 1945).

    outputs [batch, classes, ...] and targets [batch, ...] Int; ``labels=(1, 2)`` leaves the background, 0, out.
    """

    axis: int = 1
    name: str = "dice"

    def parts(self, n: Counts) -> Parts:
        return _dice(n)


@dataclass(frozen=True, slots=True, kw_only=True)
class IoU(Averaged):
    """|A ∩ B| / |A ∪ B| of the regions of each class in all images: Jaccard's index over pixels (Jaccard 1901).

    outputs [batch, classes, ...] and targets [batch, ...] Int; ``labels=(1, 2)`` leaves the background, 0, out.
    """

    axis: int = 1
    name: str = "iou"

    def parts(self, n: Counts) -> Parts:
        return n.tp, n.tp + n.fp + n.fn


@dataclass(frozen=True, slots=True, kw_only=True)
class Jaccard(Averaged):
    """tp / (tp + fp + fn): Jaccard's index of decisions and targets; ``IoU`` is the same for images."""

    name: str = "jaccard"

    def parts(self, n: Counts) -> Parts:
        return n.tp, n.tp + n.fp + n.fn


@dataclass(frozen=True, slots=True, kw_only=True)
class BalancedAccuracy(Decided):
    """The mean recall over the classes that there are targets of; ``adjusted`` makes chance 0 and perfection 1.

    NaN over nothing, and adjusted over one class.
    """

    adjusted: bool = False
    name: str = "balanced-accuracy"
    better: ClassVar[Better | None] = "higher"

    def __post_init__(self) -> None:
        _refuse_labels(self)

    def value(self, *totals: np.ndarray) -> float:
        counts = _of_classes(self.counts(totals[0]), self.task)
        there = counts.support > 0
        if not there.any():
            return math.nan
        mean = float((counts.tp[there] / counts.support[there]).mean())
        chance = 1 / int(there.sum())
        return float(ratio(mean - chance, 1 - chance)) if self.adjusted else mean


@dataclass(frozen=True, slots=True, kw_only=True)
class MatthewsCorrelation(Decided):
    """Matthews' correlation of decisions and targets, for any number of classes (Gorodkin 2004): -1 to 1, 0 by chance.

    NaN where the targets, or the decisions, are all of one class (scikit-learn says 0).
    """

    name: str = "matthews-correlation"
    better: ClassVar[Better | None] = "higher"

    def __post_init__(self) -> None:
        _refuse_labels(self)
        if self.top_k > 1:
            raise ConfigError(f"{self.name}: expected top_k of 1, got {self.top_k}; a correlation needs one decision")

    def value(self, *totals: np.ndarray) -> float:
        n = _of_classes(self.counts(totals[0]), self.task)
        items = n.support.sum()
        both = n.tp.sum() * items - (n.support * n.decided).sum()
        spread = [items**2 - (x**2).sum() for x in (n.support, n.decided)]
        return float(ratio(both, math.sqrt(spread[0]) * math.sqrt(spread[1])))


@dataclass(frozen=True, slots=True, kw_only=True)
class HammingScore(Decided):
    """(tp + tn) / (tp + fp + fn + tn) over all labels: the share of labels that are right; NaN over nothing."""

    task: Task = "multilabel"
    name: str = "hamming-score"
    better: ClassVar[Better | None] = "higher"

    def value(self, *totals: np.ndarray) -> float:
        n = self.counts(totals[0])
        if self.task == "multiclass":  # one label an item: the decided class
            return float(ratio(n.tp.sum(), n.support.sum()))
        return float(ratio((n.tp + n.tn).sum(), (n.tp + n.tn + n.fp + n.fn).sum()))


def _dice(n: Counts) -> Parts:
    return 2 * n.tp, n.support + n.decided


def _of_classes(counts: Counts, task: Task) -> Counts:
    return counts.both() if task == "binary" else counts


def _refuse_labels(metric: Decided) -> None:
    Decided.__post_init__(metric)
    check_field(metric.name, "task", metric.task, "binary", "multiclass")
