"""Which classes outputs decide for, counted class by class against the targets; what is made of the counts is elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from wgpu_nn.errors import ConfigError, ShapeError
from wgpu_nn.metrics.base import Metric, refuse_strays
from wgpu_nn.metrics.classes import (
    check_field,
    class_scores,
    is_ignored,
    not_binary,
    paired,
    score_rows,
    strayed,
    tally,
)
from wgpu_nn.tensor import Tensor, arange

Task = Literal["binary", "multiclass", "multilabel"]

# What can be said of an item and a class; the first four are 2 truth + decision.
TRUE_NEGATIVE, FALSE_POSITIVE, FALSE_NEGATIVE, TRUE_POSITIVE, IGNORED, STRAY = range(6)


@dataclass(frozen=True, slots=True)
class Counts:
    """How often each class was decided rightly and wrongly: [classes] of double precision each; sums stay exact."""

    tp: np.ndarray
    fp: np.ndarray
    fn: np.ndarray
    tn: np.ndarray

    @property
    def support(self) -> np.ndarray:
        """How many targets are of each class."""
        return self.tp + self.fn

    @property
    def decided(self) -> np.ndarray:
        """How many decisions are for each class."""
        return self.tp + self.fp

    def pooled(self) -> Counts:
        """Return the sums over classes, as [1]."""
        return Counts(*(x.sum(keepdims=True) for x in (self.tp, self.fp, self.fn, self.tn)))

    def of(self, labels: tuple[int, ...]) -> Counts:
        """Return the counts of some classes."""
        return Counts(*(x[list(labels)] for x in (self.tp, self.fp, self.fn, self.tn)))

    def both(self) -> Counts:
        """Return the counts of the negative class and of the positive one, from those of the positive one."""
        tp, fp, fn, tn = self.tp, self.fp, self.fn, self.tn
        return Counts(*(np.concatenate(x) for x in ((tn, tp), (fn, fp), (fp, fn), (tp, tn))))


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided(Metric):
    """A metric of the counts of right and wrong decisions.

    ``task`` says what the outputs are:

    - "multiclass": a score for each class on ``axis``, [..., classes]; decided are the ``top_k`` largest, the first of
      equal ones; targets [...] Int.
    - "binary": a score [...], or [..., 1]; positive from ``threshold`` on: 0.5 for probabilities, 0 for logits; targets
      [...] of 0 and 1.
    - "multilabel": scores [..., labels], decided one by one as binary ones; targets [..., labels] of 0 and 1.

    Targets of ``ignore`` do not count. Other targets that are no class raise DataError when the value is read: the device
    counts them, as a captured step cannot stop.
    """

    task: Task = "multiclass"
    threshold: float = 0.5
    top_k: int = 1
    ignore: int | None = None
    axis: int = -1
    name: str = ""

    def __post_init__(self) -> None:
        check_field(self.name, "task", self.task, "binary", "multiclass", "multilabel")
        if self.top_k < 1 or (self.top_k > 1 and self.task != "multiclass"):
            raise ConfigError(f"{self.name}: expected top_k of 1, or more of a multiclass task, got {self.top_k}")

    def statistics(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
        """Return [6, classes] Int: how often each class was decided for, or not, rightly and wrongly; ignored; stray."""
        if self.task == "multiclass":
            decided, truth, targets, stray = self._classes(outputs, targets)
        else:
            decided, truth, targets, stray = self._labels(outputs, targets)
        verdict = stray.where(STRAY, truth.where(2, 0) + decided.where(1, 0))
        ignored = is_ignored(targets, self.ignore)
        if ignored is not None:
            verdict = ignored.where(IGNORED, verdict)
        return (tally(verdict, 6),)

    def counts(self, total: np.ndarray) -> Counts:
        """Return the counts from the joined statistics; DataError where targets were out of range."""
        stray = total[STRAY]
        if self.task == "multiclass":  # where it is the same target that strays from all classes
            refuse_strays(self.name, int(stray.max()), "that are classes of the outputs")
        else:
            refuse_strays(self.name, int(stray.sum()), "of 0 and 1")
        tn, fp, fn, tp = (total[k].astype(np.float64) for k in range(4))
        return Counts(tp=tp, fp=fp, fn=fn, tn=tn)

    def _classes(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        classes = outputs.shape[class_scores(self.name, outputs, targets, self.axis)]
        places = arange(classes, device=outputs.device)
        if self.top_k == 1:
            flat = targets.reshape(targets.size)
            decided = outputs.argmax(self.axis).reshape(flat.size, 1) == places
        else:
            rows, flat = score_rows(self.name, outputs, targets, self.axis)
            decided = (rows.topk(self.top_k, 1)[1].unsqueeze(2) == places).any(1)
        column = flat.unsqueeze(1)
        return decided, column == places, column, strayed(column, classes)

    def _labels(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        scores, truths = paired(self.name, outputs, targets)
        if self.task == "multilabel" and (scores.rank < 2 or not scores.shape[-1]):
            raise ShapeError(
                f"{self.name}: expected scores [..., labels], got {list(scores.shape)}; is the task binary?"
            )
        labels = scores.shape[-1] if self.task == "multilabel" else 1
        scores, truths = (x.reshape(x.size // labels, labels) for x in (scores, truths))
        return scores >= self.threshold, truths == 1, truths, not_binary(truths)
