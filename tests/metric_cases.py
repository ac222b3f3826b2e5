"""Metrics with batches that they are tested on: every metric of tensors that the package exports, in its settings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wgpu_nn import metrics as m
from wgpu_nn.metrics import Metric


@dataclass(frozen=True)
class Batches:
    """Outputs and targets of several batches, and all of them at once."""

    outputs: list[np.ndarray]
    targets: list[np.ndarray]

    @property
    def all(self) -> tuple[np.ndarray, np.ndarray]:
        return np.concatenate(self.outputs), np.concatenate(self.targets)


def _split(outputs: np.ndarray, targets: np.ndarray) -> Batches:
    """Split into batches of awkward sizes, the last one short."""
    at = [5, 5 + 64]
    return Batches(np.split(outputs, at), np.split(targets, at))


def batches(kind: str) -> Batches:
    """Return the batches of a kind of task; 101 items, drawn always alike."""
    rng = np.random.default_rng(len(kind))
    n = 101
    if kind == "classes":  # class 3 is rare, and no target is of class 5
        targets = rng.choice(5, n, p=[0.3, 0.3, 0.2, 0.02, 0.18])
        return _split((rng.normal(size=(n, 6)) + 1.2 * np.eye(6)[targets]).astype(np.float32), targets)
    if kind == "binary":  # scores of one digit: many are equal
        targets = rng.integers(0, 2, n)
        return _split(np.clip(np.round(rng.normal(0.3 + 0.3 * targets, 0.25), 1), 0, 1).astype(np.float32), targets)
    if kind == "labels":
        targets = (rng.random((n, 4)) < [0.5, 0.2, 0.8, 0.4]).astype(np.int64)
        return _split(np.clip(rng.normal(0.3 + 0.3 * targets, 0.3), 0, 1).astype(np.float32), targets)
    if kind == "numbers":  # far from 0, so that f32 sums of squares would be useless
        targets = 1000 + rng.normal(size=n)
        return _split((targets + rng.normal(0.1, 0.5, n)).astype(np.float32), targets.astype(np.float32))
    if kind == "ties":
        targets = rng.integers(0, 9, n).astype(np.float32)
        return _split(np.round(targets / 2 + rng.normal(size=n)).astype(np.float32), targets)
    if kind == "columns":
        targets = rng.normal(size=(n, 3)) * [1, 10, 0.1]
        return _split(
            (targets + rng.normal(size=(n, 3)) * [0.5, 2, 0.1]).astype(np.float32), targets.astype(np.float32)
        )
    if kind == "regions":  # 3 images of 5 x 7 pixels in 4 classes
        targets = rng.integers(0, 4, (3, 5, 7))
        outputs = rng.normal(size=(3, 4, 5, 7)) + np.moveaxis(np.eye(4)[targets], -1, 1)
        return Batches([outputs[:2].astype(np.float32), outputs[2:].astype(np.float32)], [targets[:2], targets[2:]])
    images, channels, height, width = {"images": (3, 2, 13, 17), "large": (2, 1, 176, 179)}[kind]
    y, x = np.mgrid[:height, :width]
    targets = 0.5 + 0.4 * np.sin(x / 3 + y / 5 + rng.random((images, channels, 1, 1)) * 6)
    outputs = np.clip(targets + rng.normal(0, 0.1, targets.shape), 0, 1)
    return Batches(*(np.split(z.astype(np.float32), [images - 1]) for z in (outputs, targets)))


CASES: list[tuple[str, Metric]] = [
    ("classes", m.Accuracy()),
    ("classes", m.Accuracy(ignore=1)),
    ("classes", m.TopKAccuracy(2)),
    ("classes", m.Precision()),
    ("classes", m.Recall(average="weighted")),
    ("classes", m.Specificity(average="micro")),
    ("classes", m.FBeta(beta=2.0, top_k=2)),
    ("classes", m.F1(ignore=2)),
    ("classes", m.Jaccard()),
    ("classes", m.BalancedAccuracy()),
    ("classes", m.MatthewsCorrelation()),
    ("classes", m.CohenKappa(weights="quadratic")),
    ("classes", m.ConfusionMatrix(ignore=0)),
    ("classes", m.AUROC(task="multiclass")),
    ("classes", m.AveragePrecision(task="multiclass", average="weighted", ignore=0)),
    ("classes", m.LogLoss()),
    ("classes", m.Perplexity(ignore=1)),
    ("classes", m.Brier()),
    ("classes", m.CalibrationError(bins=7)),
    ("binary", m.F1(task="binary")),
    ("binary", m.MatthewsCorrelation(task="binary")),
    ("binary", m.CohenKappa(task="binary")),
    ("binary", m.AUROC()),
    ("binary", m.AveragePrecision()),
    ("binary", m.LogLoss(task="binary", logits=False)),
    ("binary", m.Brier(task="binary")),
    ("binary", m.CalibrationError(task="binary", logits=False, norm="maximum", bins=7)),
    ("labels", m.Precision(task="multilabel")),
    ("labels", m.HammingScore()),
    ("labels", m.AUROC(task="multilabel")),
    ("numbers", m.MAE()),
    ("numbers", m.MSE()),
    ("numbers", m.RMSE()),
    ("numbers", m.MAPE()),
    ("numbers", m.MaxError()),
    ("numbers", m.R2()),
    ("numbers", m.ExplainedVariance()),
    ("numbers", m.Pearson()),
    ("numbers", m.Spearman()),
    ("ties", m.Spearman()),
    ("columns", m.R2()),
    ("regions", m.Dice()),
    ("regions", m.IoU(labels=(1, 2, 3))),
    ("regions", m.Accuracy(axis=1)),
    ("images", m.PSNR()),
    ("images", m.SSIM()),
    ("large", m.MSSSIM()),
]
IDS = [f"{kind}-{metric.name}-{i}" for i, (kind, metric) in enumerate(CASES)]
