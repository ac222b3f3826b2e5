"""Meter: one metric over many batches, for loops of one's own; knows nothing of what the metric computes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wgpu_nn.dtype import Int
from wgpu_nn.metrics.base import Details, Measured, Metric, measure
from wgpu_nn.tensor import Tensor, cat

# Counts of 32 bits are carried over to 64 on the host before the elements that were counted could have filled them.
COUNTABLE = 2**31 - 1


class Meter:
    """Joins what batches add to a metric, on the device that the tensors are on; ``value`` reads it.

    Counts stay exact however many there are; sums of Floats are of f32.
    """

    def __init__(self, metric: Metric) -> None:
        self.metric = metric
        self.reset()

    def reset(self) -> None:
        """Forget all batches."""
        self._parts: list[tuple[Tensor, ...]] = []
        self._carried: list[np.ndarray] | None = None  # sums on the host, in 64 bits
        self._counted = 0
        self._measured: Measured | None = None

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Add a batch; waits for nothing. Raises what the metric's ``statistics`` does, and then counts nothing."""
        found = self.metric.statistics(outputs.detach(), targets.detach())
        elements = max(outputs.size, targets.size)
        if self.metric.joins == "sum" and self._parts:
            if self._counted + elements > COUNTABLE:
                self._carry()
                self._parts = [found]
            else:
                self._parts = [tuple(a + b for a, b in zip(self._parts[0], found, strict=True))]
        else:
            self._parts.append(found)
        self._counted += elements
        self._measured = None

    def value(self) -> float:
        """Return the metric over all batches since the last ``reset``; NaN over none. Waits for the device."""
        return self._measure().value

    def details(self) -> Details:
        """Return what the value leaves out, by name; nothing over no batches. Waits for the device."""
        return self._measure().details

    def _carry(self) -> None:
        carried = [np.asarray(t.numpy(), np.int64 if t.kind is Int else np.float64) for t in self._parts[0]]
        before: Sequence[np.ndarray | int] = [0] * len(carried) if self._carried is None else self._carried
        self._carried = [a + b for a, b in zip(before, carried)]
        self._parts, self._counted = [], 0

    def _measure(self) -> Measured:
        if self._measured is None:
            if self._carried is not None:
                self._carry()
                totals = self._carried
                self._measured = Measured(float(self.metric.value(*totals)), self.metric.details(*totals))
            else:
                columns = zip(*self._parts)
                self._measured = measure(self.metric, *[c[0] if len(c) == 1 else cat(c) for c in columns])
        return self._measured
