"""Metrics: statistics of batches on the device, also inside captured steps, and values that are read rarely."""

from wgpu_nn.metrics.accuracy import Accuracy, TopKAccuracy
from wgpu_nn.metrics.base import Measured, Metric, measure
from wgpu_nn.metrics.meter import Meter

__all__ = ["Accuracy", "Measured", "Meter", "Metric", "TopKAccuracy", "measure"]
