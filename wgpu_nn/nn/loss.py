"""Losses."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from wgpu_nn.dtype import Int
from wgpu_nn.errors import ShapeError
from wgpu_nn.nn.config import Config
from wgpu_nn.nn.module import Module
from wgpu_nn.tensor import Tensor

Reduction = Literal["mean", "sum", "none"]


def _reduce(x: Tensor, reduction: Reduction) -> Tensor:
    return x if reduction == "none" else x.mean() if reduction == "mean" else x.sum()


class CrossEntropyLoss(Module):
    """-log softmax(logits)[target], from logits, so that it cannot overflow.

    With smoothing s the target distribution is 1 - s on the target and s / classes on all (Szegedy et al. 2016).
    """

    smoothing: float
    reduction: Reduction

    def forward(self, logits: Tensor[2], targets: Tensor[1, Int]) -> Tensor:
        """[batch, classes], [batch] Int -> [], or [batch] without reduction; ShapeError where batches differ."""
        if logits.shape[0] != targets.shape[0]:
            raise ShapeError(
                f"cross_entropy: expected a target for each of {logits.shape[0]} rows, got {targets.shape[0]}"
            )
        loss = logits.run("cross_entropy", logits, targets)
        if self.smoothing:
            loss = loss * (1.0 - self.smoothing) - logits.log_softmax(1).mean(1) * self.smoothing
        return _reduce(loss, self.reduction)


class CrossEntropyLossConfig(Config):
    """Of a CrossEntropyLoss."""

    smoothing: float = Field(default=0.0, ge=0.0, lt=1.0)
    reduction: Reduction = "mean"

    def init(self) -> CrossEntropyLoss:
        """Return the loss."""
        return CrossEntropyLoss(smoothing=self.smoothing, reduction=self.reduction)


class MseLoss(Module):
    """(prediction - target)^2."""

    reduction: Reduction

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """[...], [...] -> [], or [...] without reduction; ShapeError where shapes differ."""
        if prediction.shape != target.shape:
            raise ShapeError(f"mse: expected equal shapes, got {list(prediction.shape)} and {list(target.shape)}")
        return _reduce((prediction - target).square(), self.reduction)


class MseLossConfig(Config):
    """Of an MseLoss."""

    reduction: Reduction = "mean"

    def init(self) -> MseLoss:
        """Return the loss."""
        return MseLoss(reduction=self.reduction)
