"""Configs of all metrics, made of their own fields: a metric in a run's config is its name and its parameters."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, Union, cast, get_type_hints

import pydantic

from wgpu_nn import metrics
from wgpu_nn.metrics import Metric
from wgpu_nn.runs.kinds import KIND, Kind

METRICS: dict[str, type[Metric]] = {
    "accuracy": metrics.Accuracy,
    "top-k": metrics.TopKAccuracy,
    "precision": metrics.Precision,
    "recall": metrics.Recall,
    "f1": metrics.F1,
    "f-beta": metrics.FBeta,
    "specificity": metrics.Specificity,
    "jaccard": metrics.Jaccard,
    "balanced-accuracy": metrics.BalancedAccuracy,
    "matthews-correlation": metrics.MatthewsCorrelation,
    "cohen-kappa": metrics.CohenKappa,
    "hamming-score": metrics.HammingScore,
    "confusion": metrics.ConfusionMatrix,
    "auroc": metrics.AUROC,
    "average-precision": metrics.AveragePrecision,
    "log-loss": metrics.LogLoss,
    "perplexity": metrics.Perplexity,
    "brier": metrics.Brier,
    "calibration-error": metrics.CalibrationError,
    "mae": metrics.MAE,
    "mse": metrics.MSE,
    "rmse": metrics.RMSE,
    "mape": metrics.MAPE,
    "max-error": metrics.MaxError,
    "r2": metrics.R2,
    "explained-variance": metrics.ExplainedVariance,
    "pearson": metrics.Pearson,
    "spearman": metrics.Spearman,
    "psnr": metrics.PSNR,
    "ssim": metrics.SSIM,
    "ms-ssim": metrics.MSSSIM,
    "dice": metrics.Dice,
    "iou": metrics.IoU,
}


class MetricPart(Kind):
    """Of a metric: its kind, and the fields that the metric has; None leaves the metric's own default."""

    def init(self) -> Metric:
        """Return the metric; ConfigError for parameters that do not go together."""
        given = {name: getattr(self, name) for name in type(self).model_fields if name != KIND}
        return METRICS[self.kind](**{name: value for name, value in given.items() if value is not None})


def _config_of(kind: str, metric: type[Metric]) -> type[MetricPart]:
    """Return the config class of ``metric``."""
    hints = get_type_hints(metric)
    declared: dict[str, Any] = {KIND: (Literal[kind], kind)}
    for field in fields(cast(Any, metric)):
        # NaN, a default of some, is no JSON.
        absent = isinstance(field.default, float) and math.isnan(field.default)
        declared[field.name] = (hints[field.name] | None, None) if absent else (hints[field.name], field.default)
    made = pydantic.create_model(f"{metric.__name__}Part", __base__=MetricPart, __doc__=metric.__doc__, **declared)
    return cast("type[MetricPart]", made)


if TYPE_CHECKING:
    AnyMetric: TypeAlias = MetricPart
else:
    AnyMetric = Annotated[
        Union[tuple(_config_of(kind, metric) for kind, metric in METRICS.items())],  # noqa: UP007
        pydantic.Field(discriminator=KIND),
    ]
