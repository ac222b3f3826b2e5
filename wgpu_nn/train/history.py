"""What epochs came to, and which of them is the best; knows neither models nor files."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from wgpu_nn.errors import ConfigError
from wgpu_nn.metrics import Metric

Better = Literal["higher", "lower"]


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """What one epoch came to: loss and metrics by name on the training data, and on the validation data if there are any.

    ``epoch`` counts from 1, and ``step`` from the start of the run. ``seconds`` has training and evaluation;
    ``items_per_s`` is that of the training. Launches and bytes in use are those of a GPU.
    """

    epoch: int
    step: int
    train: dict[str, float]
    valid: dict[str, float] = field(default_factory=dict[str, float])
    lr: float = math.nan
    seconds: float = 0.0
    items_per_s: float = 0.0
    launches_per_step: float | None = None
    gpu_bytes: int | None = None

    def value(self, name: str) -> float:
        """Return what ``name`` came to: ``loss`` on the validation data, or else on the training data; ``train.loss``
        and ``valid.loss`` on these. NaN where nothing has that name."""
        split, _, rest = name.partition(".")
        if split in ("train", "valid") and rest:
            return (self.train if split == "train" else self.valid).get(rest, math.nan)
        return self.valid[name] if name in self.valid else self.train.get(name, math.nan)


@dataclass(frozen=True, slots=True)
class Monitor:
    """The number that says which epoch is best, and which way is better."""

    name: str
    better: Better

    def improves(self, value: float, best: float, least_change: float = 0.0) -> bool:
        """Say whether ``value`` is better than ``best`` by more than ``least_change``; NaN is no improvement."""
        if math.isnan(best):
            return not math.isnan(value)
        return value < best - least_change if self.better == "lower" else value > best + least_change

    def best(self, history: Iterable[EpochRecord]) -> EpochRecord | None:
        """Return the best epoch, the first of equals; the first of all if none has the number."""
        found: EpochRecord | None = None
        for record in history:
            if found is None or self.improves(record.value(self.name), found.value(self.name)):
                found = record
        return found


def monitor_of(name: str, metrics: Sequence[Metric]) -> Monitor:
    """Return the monitor of a loss or of one of ``metrics``; raise ConfigError for what none of them is called."""
    bare = name.removeprefix("train.").removeprefix("valid.")
    if bare == "loss":
        return Monitor(name, "lower")
    for metric in metrics:
        if metric.name == bare:
            if metric.better is None:
                raise ConfigError(f"monitor: expected a metric of which more or less is better, got {name}")
            return Monitor(name, metric.better)
    known = ", ".join(["loss", *(m.name for m in metrics)])
    raise ConfigError(f"monitor: expected one of {known}, got {name!r}; add the metric to the Learner's")
