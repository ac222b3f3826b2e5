"""Metrics of classes and numbers against scikit-learn and SciPy, over batches; what they are where nothing is defined."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats
from scipy.special import expit, softmax
from sklearn import metrics as sk

from tests.metric_cases import CASES, batches
from wgpu_nn import Device, Tensor, metrics, tensor
from wgpu_nn.errors import ConfigError, DataError, KindError, ShapeError
from wgpu_nn.metrics import Details, Meter, Metric

Scores = np.ndarray
Targets = np.ndarray
NAN = math.nan


def metered(metric: Metric, kind: str, device: Device) -> Meter:
    """Return a meter that has seen the batches of ``kind``."""
    meter, data = Meter(metric), batches(kind)
    for x, t in zip(data.outputs, data.targets):
        meter.update(tensor(x, device), tensor(t, device))
    return meter


def of(metric: Metric, outputs: object, targets: object, device: Device) -> float:
    meter = Meter(metric)
    meter.update(tensor(outputs, device), tensor(targets, device))
    return meter.value()


def decided(x: Scores) -> np.ndarray:
    return x.argmax(1)


def chance(x: Scores) -> np.ndarray:
    return softmax(x.astype(np.float64), 1)


def without(ignore: int, fn: Callable[[Scores, Targets], float]) -> Callable[[Scores, Targets], float]:
    """Return ``fn`` of the items that do not have the target ``ignore``."""
    return lambda x, t: fn(x[t != ignore], t[t != ignore])


def one_against_rest(fn: Callable[..., float], x: Scores, t: Targets, weighted: bool = False) -> float:
    """Return the mean of a binary score over the classes that there are targets of."""
    present = [c for c in range(x.shape[1]) if (t == c).any()]
    areas = [fn(t == c, chance(x)[:, c]) for c in present]
    return float(np.average(areas, weights=[(t == c).sum() for c in present] if weighted else None))


def top(x: Scores, k: int) -> np.ndarray:
    return np.argsort(-x, 1, kind="stable")[:, :k]


def f_of_top_two(x: Scores, t: Targets) -> float:
    picked = np.zeros(x.shape, bool)
    np.put_along_axis(picked, top(x, 2), True, 1)
    return sk.fbeta_score(np.eye(6)[t], picked, beta=2, average="macro", zero_division=NAN)


def specificity(x: Scores, t: Targets) -> float:
    matrices = sk.multilabel_confusion_matrix(t, decided(x), labels=range(6))
    return matrices[:, 0, 0].sum() / matrices[:, 0].sum()


def calibration(confidence: np.ndarray, right: np.ndarray, bins: int, norm: str) -> float:
    """Return ECE or MCE, written out range by range, with the edges as f32 has them."""
    edges = np.ceil(confidence.astype(np.float32) * np.float32(bins))
    gaps, weights = [], []
    for i in range(1, bins + 1):
        here = edges == i if i > 1 else edges <= 1
        if here.any():
            gaps.append(abs(confidence[here].mean() - right[here].mean()))
            weights.append(here.mean())
    return max(gaps) if norm == "maximum" else float(np.dot(gaps, weights))


WANTED: dict[tuple[str, Metric], Callable[[Scores, Targets], float]] = {
    ("classes", metrics.Accuracy()): lambda x, t: sk.accuracy_score(t, decided(x)),
    ("classes", metrics.Accuracy(ignore=1)): without(1, lambda x, t: sk.accuracy_score(t, decided(x))),
    ("classes", metrics.TopKAccuracy(2)): lambda x, t: sk.top_k_accuracy_score(t, x, k=2, labels=range(6)),
    ("classes", metrics.Precision()): lambda x, t: sk.precision_score(
        t, decided(x), average="macro", labels=range(6), zero_division=NAN
    ),
    ("classes", metrics.Precision(zero_division=0.0)): lambda x, t: sk.precision_score(
        t, decided(x), average="macro", labels=range(6), zero_division=0
    ),
    ("classes", metrics.Precision(average="micro", labels=(1, 3))): lambda x, t: sk.precision_score(
        t, decided(x), average="micro", labels=[1, 3]
    ),
    ("classes", metrics.Recall(average="weighted")): lambda x, t: sk.recall_score(
        t, decided(x), average="weighted", zero_division=NAN
    ),
    ("classes", metrics.Recall(zero_division=1.0)): lambda x, t: sk.recall_score(
        t, decided(x), average="macro", labels=range(6), zero_division=1
    ),
    ("classes", metrics.Specificity(average="micro")): specificity,
    ("classes", metrics.FBeta(beta=2.0, top_k=2)): f_of_top_two,
    ("classes", metrics.FBeta(beta=0.5, average="weighted")): lambda x, t: sk.fbeta_score(
        t, decided(x), beta=0.5, average="weighted", zero_division=NAN
    ),
    ("classes", metrics.F1(ignore=2)): without(
        2, lambda x, t: sk.f1_score(t, decided(x), average="macro", labels=range(6), zero_division=NAN)
    ),
    ("classes", metrics.Jaccard()): lambda x, t: sk.jaccard_score(
        t, decided(x), average="macro", labels=[c for c in range(6) if ((t == c) | (decided(x) == c)).any()]
    ),
    ("classes", metrics.BalancedAccuracy()): lambda x, t: sk.recall_score(
        t, decided(x), average="macro", labels=np.unique(t)
    ),
    ("classes", metrics.MatthewsCorrelation()): lambda x, t: sk.matthews_corrcoef(t, decided(x)),
    ("classes", metrics.CohenKappa()): lambda x, t: sk.cohen_kappa_score(t, decided(x)),
    ("classes", metrics.CohenKappa(weights="linear")): lambda x, t: sk.cohen_kappa_score(
        t, decided(x), weights="linear", labels=range(6)
    ),
    ("classes", metrics.CohenKappa(weights="quadratic")): lambda x, t: sk.cohen_kappa_score(
        t, decided(x), weights="quadratic", labels=range(6)
    ),
    ("classes", metrics.ConfusionMatrix(ignore=0)): without(0, lambda x, t: sk.accuracy_score(t, decided(x))),
    ("classes", metrics.AUROC(task="multiclass")): lambda x, t: one_against_rest(sk.roc_auc_score, x, t),
    ("classes", metrics.AveragePrecision(task="multiclass", average="weighted", ignore=0)): without(
        0, lambda x, t: one_against_rest(sk.average_precision_score, x, t, weighted=True)
    ),
    ("classes", metrics.LogLoss()): lambda x, t: sk.log_loss(t, chance(x), labels=range(6)),
    ("classes", metrics.Perplexity(ignore=1)): without(
        1, lambda x, t: math.exp(sk.log_loss(t, chance(x), labels=range(6)))
    ),
    ("classes", metrics.Brier()): lambda x, t: sk.brier_score_loss(t, chance(x), labels=range(6)),
    ("classes", metrics.CalibrationError(bins=7)): lambda x, t: calibration(
        chance(x).max(1), decided(x) == t, 7, "expected"
    ),
    ("binary", metrics.F1(task="binary")): lambda x, t: sk.f1_score(t, x >= 0.5),
    ("binary", metrics.Specificity(task="binary", threshold=0.3)): lambda x, t: sk.recall_score(
        t, x >= np.float32(0.3), pos_label=0
    ),
    ("binary", metrics.BalancedAccuracy(task="binary", adjusted=True)): lambda x, t: sk.balanced_accuracy_score(
        t, x >= 0.5, adjusted=True
    ),
    ("binary", metrics.MatthewsCorrelation(task="binary")): lambda x, t: sk.matthews_corrcoef(t, x >= 0.5),
    ("binary", metrics.CohenKappa(task="binary")): lambda x, t: sk.cohen_kappa_score(t, x >= 0.5),
    ("binary", metrics.AUROC()): lambda x, t: sk.roc_auc_score(t, x),
    ("binary", metrics.AveragePrecision()): lambda x, t: sk.average_precision_score(t, x),
    ("binary", metrics.LogLoss(task="binary", logits=False)): lambda x, t: sk.log_loss(t, x),
    ("binary", metrics.LogLoss(task="binary")): lambda x, t: sk.log_loss(t, expit(x.astype(np.float64))),
    ("binary", metrics.Brier(task="binary")): lambda x, t: sk.brier_score_loss(t, expit(x.astype(np.float64))),
    ("binary", metrics.CalibrationError(task="binary", logits=False, norm="maximum", bins=7)): lambda x, t: calibration(
        x, t == 1, 7, "maximum"
    ),
    ("labels", metrics.Precision(task="multilabel")): lambda x, t: sk.precision_score(t, x >= 0.5, average="macro"),
    ("labels", metrics.F1(task="multilabel", average="micro")): lambda x, t: sk.f1_score(t, x >= 0.5, average="micro"),
    ("labels", metrics.HammingScore()): lambda x, t: 1 - sk.hamming_loss(t, x >= 0.5),
    ("labels", metrics.AUROC(task="multilabel")): lambda x, t: sk.roc_auc_score(t, x, average="macro"),
    ("labels", metrics.AveragePrecision(task="multilabel", average="weighted")): lambda x, t: (
        sk.average_precision_score(t, x, average="weighted")
    ),
    ("numbers", metrics.MAE()): lambda x, t: sk.mean_absolute_error(t, x),
    ("numbers", metrics.MSE()): lambda x, t: sk.mean_squared_error(t, x),
    ("numbers", metrics.RMSE()): lambda x, t: sk.root_mean_squared_error(t, x),
    ("numbers", metrics.MAPE()): lambda x, t: sk.mean_absolute_percentage_error(t, x),
    ("numbers", metrics.MaxError()): lambda x, t: sk.max_error(t, x),
    ("numbers", metrics.R2()): lambda x, t: sk.r2_score(t, x),
    ("numbers", metrics.ExplainedVariance()): lambda x, t: sk.explained_variance_score(t, x),
    ("numbers", metrics.Pearson()): lambda x, t: float(stats.pearsonr(t, x).statistic),
    ("numbers", metrics.Spearman()): lambda x, t: float(stats.spearmanr(t, x).statistic),
    ("ties", metrics.Spearman()): lambda x, t: float(stats.spearmanr(t, x).statistic),
    ("columns", metrics.R2()): lambda x, t: sk.r2_score(t, x, multioutput="uniform_average"),
    ("columns", metrics.ExplainedVariance()): lambda x, t: sk.explained_variance_score(t, x),
    ("regions", metrics.Dice()): lambda x, t: sk.f1_score(t.ravel(), decided(x).ravel(), average="macro"),
    ("regions", metrics.IoU(labels=(1, 2, 3))): lambda x, t: sk.jaccard_score(
        t.ravel(), decided(x).ravel(), average="macro", labels=[1, 2, 3]
    ),
    ("regions", metrics.Accuracy(axis=1)): lambda x, t: sk.accuracy_score(t.ravel(), decided(x).ravel()),
}


@pytest.mark.parametrize("case", WANTED, ids=[f"{kind}-{m.name}-{i}" for i, (kind, m) in enumerate(WANTED)])
def test_a_metric_over_batches_is_scikit_learns_over_all_of_them(case: tuple[str, Metric], cpu: Device) -> None:
    kind, metric = case
    outputs, targets = batches(kind).all
    if targets.dtype == np.float32:
        outputs, targets = outputs.astype(np.float64), targets.astype(np.float64)
    # Counts and orders are exact; probabilities and sums of squares are of f32.
    assert metered(metric, kind, cpu).value() == pytest.approx(WANTED[case](outputs, targets), rel=2e-6)


def test_every_metric_on_the_gpu_is_compared_with_scikit_learn_or_is_one_of_images() -> None:
    assert {c for c in CASES if c[0] not in ("images", "large")} <= WANTED.keys()


def test_a_confusion_matrix_has_a_row_for_each_target(cpu: Device) -> None:
    outputs, targets = batches("classes").all
    found = metered(metrics.ConfusionMatrix(), "classes", cpu).details()["matrix"]
    np.testing.assert_array_equal(found, sk.confusion_matrix(targets, decided(outputs), labels=range(6)))


def test_details_have_the_values_of_classes(cpu: Device) -> None:
    outputs, targets = batches("classes").all
    found: Details = metered(metrics.F1(), "classes", cpu).details()
    wanted = sk.f1_score(targets, decided(outputs), average=None, labels=range(6), zero_division=NAN)
    np.testing.assert_allclose(found["per_class"], wanted)
    np.testing.assert_array_equal(found["support"], np.bincount(targets, minlength=6))


@pytest.mark.parametrize("metric", {type(m): m for _, m in CASES}.values(), ids=lambda m: m.name)
def test_a_metric_of_nothing_is_nan_and_an_empty_batch_changes_nothing(metric: Metric, cpu: Device) -> None:
    kind = next(kind for kind, m in CASES if m == metric)
    assert math.isnan(Meter(metric).value())
    data, empty = batches(kind), Meter(metric)
    none = [tensor(x[:0], cpu) for x in (data.outputs[0], data.targets[0])]
    empty.update(*none)
    assert math.isnan(empty.value())
    meter = metered(metric, kind, cpu)
    value = meter.value()
    meter.update(*none)
    assert meter.value() == value
    meter.reset()
    assert math.isnan(meter.value()) and not meter.details()


UNDEFINED = [
    (metrics.AUROC(), [0.1, 0.9], [1, 1]),
    (metrics.AveragePrecision(), [0.1, 0.9], [0, 0]),
    (metrics.AUROC(), [0.1, NAN], [0, 1]),
    (metrics.MatthewsCorrelation(task="binary"), [0.1, 0.9], [1, 1]),
    (metrics.CohenKappa(task="binary"), [0.8, 0.9], [1, 1]),
    (metrics.Recall(task="binary"), [0.1, 0.9], [0, 0]),
    (metrics.Precision(task="binary"), [0.1, 0.2], [0, 1]),
    (metrics.R2(), [1.0, 2.0], [3.0, 3.0]),
    (metrics.Pearson(), [1.0, 1.0], [3.0, 4.0]),
    (metrics.Spearman(), [1.0, NAN], [3.0, 4.0]),
    (metrics.MaxError(), [1.0, NAN], [3.0, 4.0]),
]


@pytest.mark.parametrize("case", UNDEFINED, ids=[c[0].name for c in UNDEFINED])
def test_what_is_undefined_is_nan(case: tuple[Metric, list[float], list[float]], cpu: Device) -> None:
    assert math.isnan(of(*case, cpu))


@pytest.mark.parametrize(
    "scores, area", [([0.5, 0.5, 0.5, 0.5], 0.5), ([0.1, 0.4, 0.4, 0.8], 0.875), ([0.0, -0.0, 0.0, 1.0], 0.75)], ids=str
)
def test_equal_scores_count_a_half(scores: list[float], area: float, cpu: Device) -> None:
    assert of(metrics.AUROC(), scores, [0, 0, 1, 1], cpu) == area


STRAYED = [
    (metrics.Accuracy(ignore=-1), "classes"),
    (metrics.TopKAccuracy(1), "classes"),
    (metrics.F1(), "classes"),
    (metrics.ConfusionMatrix(), "classes"),
    (metrics.AUROC(task="multiclass"), "classes"),
    (metrics.LogLoss(), "classes"),
    (metrics.CalibrationError(), "classes"),
    (metrics.F1(task="binary"), "0 and 1"),
    (metrics.AUROC(), "0 and 1"),
    (metrics.Brier(task="binary"), "classes"),
]


@pytest.mark.parametrize("metric, expected", STRAYED, ids=[m.name for m, _ in STRAYED])
def test_targets_out_of_range_are_named_when_the_value_is_read(metric: Metric, expected: str, cpu: Device) -> None:
    binary = getattr(metric, "task", "") == "binary"
    outputs = [0.1, 0.2, 0.3] if binary else np.eye(3, dtype=np.float32)
    with pytest.raises(DataError, match=rf"{metric.name}: expected targets .*{expected}.*, got 2 others"):
        of(metric, outputs, [0, 3, -7], cpu)


BINARY = [metrics.F1, metrics.AUROC, metrics.CohenKappa, metrics.LogLoss]


@pytest.mark.parametrize("metric", [m(task="binary") for m in BINARY], ids=lambda m: m.name)
def test_binary_targets_may_be_floats_or_truths_but_nothing_between(metric: Metric, cpu: Device) -> None:
    scores, truths = [0.1, 0.7, 0.6, 0.4], np.array([0, 1, 0, 1])
    value = of(metric, scores, truths, cpu)
    assert of(metric, scores, truths == 1, cpu) == of(metric, scores, truths.astype(np.float32), cpu) == value
    assert of(metric, np.reshape(scores, (4, 1)), truths, cpu) == value
    with pytest.raises(DataError, match="got 1 others"):
        of(metric, scores, [0.0, 1.0, 0.5, 1.0], cpu)


def test_shapes_and_kinds_that_do_not_fit_are_refused_at_once(cpu: Device) -> None:
    rows, numbers = np.zeros((4, 3), np.float32), np.zeros(4, np.float32)
    meter = Meter(metrics.Accuracy())
    for outputs, targets in ((rows, np.zeros(3, int)), (rows, np.zeros((4, 3), int)), (numbers, np.zeros(4, int))):
        with pytest.raises(ShapeError, match="accuracy: expected outputs of a score for each class"):
            meter.update(tensor(outputs, cpu), tensor(targets, cpu))
    with pytest.raises(KindError, match="accuracy: expected Float outputs and Int targets"):
        meter.update(tensor(rows, cpu), tensor(numbers, cpu))
    with pytest.raises(ShapeError, match="mse: expected outputs and targets of one shape"):
        of(metrics.MSE(), rows, numbers, cpu)
    assert math.isnan(meter.value())


def test_settings_that_mean_nothing_are_refused() -> None:
    with pytest.raises(ConfigError, match="precision: expected average 'micro' or 'macro' or 'weighted', got 'none'"):
        metrics.Precision(average="none")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="matthews-correlation: expected task 'binary' or 'multiclass'"):
        metrics.MatthewsCorrelation(task="multilabel")
    with pytest.raises(ConfigError, match="expected k of 1 or more, got 0"):
        metrics.TopKAccuracy(0)


def test_counts_go_on_beyond_32_bits(cpu: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    class Half(Metric):
        name = "half"

        def statistics(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
            return outputs.sum(), (targets * 0 + 2**29).sum()

        def value(self, *totals: np.ndarray) -> float:
            return float(totals[1])

    monkeypatch.setattr("wgpu_nn.metrics.meter.COUNTABLE", 3)  # as if each element counted for 2^29 of them
    meter = Meter(Half())
    for _ in range(9):
        meter.update(tensor(np.ones(1, np.float32), cpu), tensor([1], cpu))
    assert meter.value() == 9 * 2**29 and meter.value() == 9 * 2**29
    meter.update(tensor(np.ones(1, np.float32), cpu), tensor([1], cpu))
    assert meter.value() == 10 * 2**29


def test_a_metric_of_ones_own_takes_ten_lines(cpu: Device) -> None:
    class NearMiss(Metric):
        name, better = "near-miss", "lower"

        def statistics(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
            apart = (outputs.argmax(1) - targets).abs()
            return (apart == 1).int().sum(), (apart >= 0).int().sum()

        def value(self, *totals: np.ndarray) -> float:
            return float(metrics.ratio(*totals))

    outputs, targets = batches("classes").all
    assert metered(NearMiss(), "classes", cpu).value() == np.mean(np.abs(decided(outputs) - targets) == 1)
