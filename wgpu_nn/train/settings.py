"""What a Learner was told: the parts of a run that do not change while it goes on; runs nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from wgpu_nn.metrics import Metric
from wgpu_nn.optim import PlateauSchedule, Schedule
from wgpu_nn.tensor import Device
from wgpu_nn.train.callbacks import Callback
from wgpu_nn.train.history import EpochRecord, Monitor
from wgpu_nn.train.step import StepFunction, Training


@dataclass(frozen=True, slots=True)
class Rates:
    """The learning rate of each step or epoch; None leaves the optimizer's."""

    schedule: Schedule | PlateauSchedule | None
    by: Literal["step", "epoch"]

    def of_step(self, updates: int) -> float | None:
        """Return the rate of the next step of the optimizer, if it goes by steps."""
        if self.by != "step" or self.schedule is None or isinstance(self.schedule, PlateauSchedule):
            return None
        return self.schedule(updates)

    def of_epoch(self, history: list[EpochRecord]) -> float | None:
        """Return the rate of the next epoch, if it goes by epochs."""
        if isinstance(self.schedule, PlateauSchedule):
            return self.schedule.rate([record.value(self.schedule.monitor) for record in history])
        if self.by != "epoch" or self.schedule is None:
            return None
        return self.schedule(len(history))


@dataclass(frozen=True, slots=True)
class Settings:
    """See Learner; ``captured`` is the number of steps in a submit, 0 for eager mode."""

    training: Training
    valid_step: StepFunction
    loss: object
    metrics: tuple[Metric, ...]
    rates: Rates
    accumulate: int
    monitor: Monitor
    captured: int
    callbacks: tuple[Callback, ...]
    valid_device: Device | None
    keep_on_device: bool | None

    @property
    def summed(self) -> list[Metric]:
        """The metrics that are measured in training too: those whose statistics are summed."""
        return [m for m in self.metrics if m.joins == "sum"]
