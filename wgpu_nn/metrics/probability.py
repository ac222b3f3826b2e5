"""How good predicted probabilities are: log loss, perplexity, Brier score and calibration error."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from wgpu_nn.errors import ConfigError
from wgpu_nn.metrics.base import Better, Details, Metric, ratio, refuse_strays
from wgpu_nn.metrics.classes import check_field, is_ignored, not_binary, paired, score_rows, strayed, tally
from wgpu_nn.tensor import Tensor, arange

COUNTED, IGNORED, STRAY = range(3)
LEAST = float(np.finfo(np.float32).eps)  # log loss takes probabilities for this far from 0 and 1 at least


@dataclass(frozen=True, slots=True, kw_only=True)
class Probabilistic(Metric):
    """A metric of predicted probabilities.

    "multiclass": outputs [..., classes], logits, or probabilities if ``logits`` is false; targets [...] Int. "binary":
    outputs [...] or [..., 1], a logit or the probability of the positive class; targets [...] of 0 and 1. Targets of
    ``ignore`` do not count; others that are no class raise DataError when the value is read. NaN over nothing.
    """

    task: Literal["binary", "multiclass"] = "multiclass"
    logits: bool = True
    ignore: int | None = None
    axis: int = -1
    name: str = ""
    better: ClassVar[Better | None] = "lower"

    def __post_init__(self) -> None:
        check_field(self.name, "task", self.task, "binary", "multiclass")

    def rows(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return outputs [n] or [n, classes], targets [n] that are classes, [n] Bool: which count, and [3] Int: how many.

        Targets that do not count are 0 there.
        """
        if self.task == "multiclass":
            outputs, targets = score_rows(self.name, outputs, targets, self.axis)
            stray = strayed(targets, outputs.shape[1])
        else:
            outputs, targets = (x.reshape(x.size) for x in paired(self.name, outputs, targets))
            stray = not_binary(targets)
        verdict = stray.where(STRAY, COUNTED)
        ignored = is_ignored(targets, self.ignore)
        if ignored is not None:
            verdict = ignored.where(IGNORED, verdict)
        counts = verdict == COUNTED
        return outputs, counts.where(targets.int(), 0), counts, tally(verdict, 3)

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return -log of the probability of each target, [n]."""
        if self.task == "binary":
            sign = targets.float() * 2.0 - 1.0
            if self.logits:
                return -(outputs * sign).log_sigmoid()
            return -_log((targets == 1).where(outputs, 1.0 - outputs))
        if self.logits:
            return outputs.run("cross_entropy", outputs, targets)
        return -_log(outputs.gather(1, targets.unsqueeze(1)).squeeze(1))

    def mean(self, totals: tuple[np.ndarray, ...]) -> float:
        """Return the mean over items from a sum over them and their tally."""
        refuse_strays(self.name, int(totals[1][STRAY]), "that are classes of the outputs")
        return float(ratio(totals[0], totals[1][COUNTED]))


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLoss(Probabilistic):
    """The mean of -log p[target], in nats: cross-entropy. Probabilities of 0 count as 1.2e-7, f32's epsilon."""

    name: str = "log-loss"

    def statistics(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
        """Return the sum of losses [] Float, and [3] Int: how many count, are ignored, and out of range."""
        outputs, targets, counts, tally = self.rows(outputs, targets)
        return counts.where(self.losses(outputs, targets), 0.0).sum(), tally

    def value(self, *totals: np.ndarray) -> float:
        return self.mean(totals)


@dataclass(frozen=True, slots=True, kw_only=True)
class Perplexity(Probabilistic):
    """exp(mean of -log p[target]): among how many equally likely tokens a model seems to choose; ``ignore`` is the padding."""

    name: str = "perplexity"

    def statistics(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
        """Return the sum of losses [] Float, and [3] Int: how many count, are ignored, and out of range."""
        outputs, targets, counts, tally = self.rows(outputs, targets)
        return counts.where(self.losses(outputs, targets), 0.0).sum(), tally

    def value(self, *totals: np.ndarray) -> float:
        return float(np.exp(np.float64(self.mean(totals))))


@dataclass(frozen=True, slots=True, kw_only=True)
class Brier(Probabilistic):
    """The mean squared distance of the probabilities from the truth (Brier 1950).

    "multiclass": Σ (p[c] - [c is the target])² over classes, 0 to 2. "binary": (p - target)², 0 to 1.
    """

    name: str = "brier"

    def statistics(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
        """Return the sum of squares [] Float, and [3] Int: how many count, are ignored, and out of range."""
        outputs, targets, counts, tally = self.rows(outputs, targets)
        if self.task == "binary":
            square = ((outputs.sigmoid() if self.logits else outputs) - targets.float()).square()
        else:
            truth = targets.one_hot(outputs.shape[1]).float()
            square = ((outputs.softmax(1) if self.logits else outputs) - truth).square().sum(1)
        return counts.where(square, 0.0).sum(), tally

    def value(self, *totals: np.ndarray) -> float:
        return self.mean(totals)


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationError(Probabilistic):
    """How far confidence is from accuracy, over ``bins`` equal ranges of confidence (Guo et al. 2017).

    ``norm`` "expected" is ECE, the mean distance, each range weighing as much as it has items; "maximum" is MCE, the
    largest one. Range i has confidences in (i / bins, (i + 1) / bins]; 0 is in the first. "multiclass": the confidence is
    the largest probability, and right is who has it on the target. "binary": it is that of the positive class, and right is
    who is positive. Details, of each range: ``confidence`` and ``accuracy``, NaN where ``items`` is 0: a reliability diagram.
    """

    bins: int = 15
    norm: Literal["expected", "maximum"] = "expected"
    name: str = "calibration-error"

    def __post_init__(self) -> None:
        Probabilistic.__post_init__(self)
        check_field(self.name, "norm", self.norm, "expected", "maximum")
        if self.bins < 1:
            raise ConfigError(f"{self.name}: expected bins of 1 or more, got {self.bins}")

    def statistics(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
        """Return confidences summed by range [bins] Float, items and right ones [2, bins] Int, and the tally [3] Int."""
        outputs, targets, counts, tally = self.rows(outputs, targets)
        if self.task == "binary":
            confidence = outputs.sigmoid() if self.logits else outputs
            right = targets == 1
        else:
            confidence = (outputs.softmax(1) if self.logits else outputs).max(1)
            right = outputs.argmax(1) == targets
        place = (confidence * float(self.bins)).ceil().int() - 1
        place = place.maximum(0).minimum(self.bins - 1)
        here = counts.unsqueeze(1) & (place.unsqueeze(1) == arange(self.bins, device=outputs.device))
        items, correct = here.where(1, 0).sum(0), (here & right.unsqueeze(1)).where(1, 0).sum(0)
        return here.where(confidence.unsqueeze(1), 0.0).sum(0), items, correct, tally

    def value(self, *totals: np.ndarray) -> float:
        found = self.details(*totals)
        gaps = np.abs(np.asarray(found["confidence"]) - np.asarray(found["accuracy"]))
        items = np.asarray(found["items"])
        if not items.any():
            return math.nan
        there = items > 0
        if self.norm == "maximum":
            return float(gaps[there].max())
        return float((gaps[there] * items[there]).sum() / items.sum())

    def details(self, *totals: np.ndarray) -> Details:
        confidence, items, correct, tally = totals
        refuse_strays(self.name, int(tally[STRAY]), "that are classes of the outputs")
        return {
            "confidence": ratio(confidence, items),
            "accuracy": ratio(correct, items),
            "items": items.astype(np.int64),
        }


def _log(p: Tensor) -> Tensor:
    return p.clamp(LEAST, 1.0 - LEAST).log()
