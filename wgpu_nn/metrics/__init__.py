"""Metrics: statistics of batches on the device, also inside captured steps, and values that are read rarely."""

from wgpu_nn.metrics.accuracy import Accuracy, TopKAccuracy
from wgpu_nn.metrics.base import Better, Details, Joins, Measured, Metric, measure, ratio
from wgpu_nn.metrics.confusion import CohenKappa, ConfusionMatrix
from wgpu_nn.metrics.correlation import R2, ExplainedVariance, Pearson, Spearman
from wgpu_nn.metrics.curves import AUROC, AveragePrecision
from wgpu_nn.metrics.image import MSSSIM, PSNR, SSIM
from wgpu_nn.metrics.meter import Meter
from wgpu_nn.metrics.probability import Brier, CalibrationError, LogLoss, Perplexity
from wgpu_nn.metrics.regression import MAE, MAPE, MSE, RMSE, MaxError
from wgpu_nn.metrics.scores import (
    F1,
    BalancedAccuracy,
    Dice,
    FBeta,
    HammingScore,
    IoU,
    Jaccard,
    MatthewsCorrelation,
    Precision,
    Recall,
    Specificity,
)
from wgpu_nn.metrics.text import BLEU, CER, WER, RougeL, TextMeter, TextMetric, token_lists

__all__ = [
    "Metric",
    "Meter",
    "Measured",
    "measure",
    "ratio",
    "Better",
    "Details",
    "Joins",
    "Accuracy",
    "TopKAccuracy",
    "BalancedAccuracy",
    "Precision",
    "Recall",
    "Specificity",
    "FBeta",
    "F1",
    "Jaccard",
    "HammingScore",
    "MatthewsCorrelation",
    "CohenKappa",
    "ConfusionMatrix",
    "AUROC",
    "AveragePrecision",
    "LogLoss",
    "Perplexity",
    "Brier",
    "CalibrationError",
    "MAE",
    "MSE",
    "RMSE",
    "MAPE",
    "MaxError",
    "R2",
    "ExplainedVariance",
    "Pearson",
    "Spearman",
    "PSNR",
    "SSIM",
    "MSSSIM",
    "Dice",
    "IoU",
    "TextMetric",
    "TextMeter",
    "CER",
    "WER",
    "BLEU",
    "RougeL",
    "token_lists",
]
