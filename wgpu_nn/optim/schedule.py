"""Learning rates as functions of a count of steps or epochs: pure, so that a resumed run needs no state of theirs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal, TypeAlias

from pydantic import Field

from wgpu_nn.errors import ConfigError
from wgpu_nn.nn import Config

Schedule: TypeAlias = "Callable[[int], float]"
"""count -> rate: that of the step, or of the epoch, before which ``count`` are complete. The first count is 0."""


class ConstantSchedule(Config):
    """lr."""

    lr: float = Field(ge=0.0)

    def __call__(self, count: int) -> float:
        """Return the rate."""
        return self.lr


class LinearSchedule(Config):
    """From ``start`` to ``end`` in equal parts over ``steps``, and ``end`` from then on."""

    start: float = Field(ge=0.0)
    end: float = Field(ge=0.0)
    steps: int = Field(gt=0)

    def __call__(self, count: int) -> float:
        """Return the rate."""
        return self.start + (self.end - self.start) * min(count / self.steps, 1.0)


class StepSchedule(Config):
    """lr factor^floor(count / every)."""

    lr: float = Field(ge=0.0)
    every: int = Field(gt=0)
    factor: float = Field(default=0.1, gt=0.0)

    def __call__(self, count: int) -> float:
        """Return the rate."""
        return self.lr * self.factor ** (count // self.every)


class ExponentialSchedule(Config):
    """lr factor^count."""

    lr: float = Field(ge=0.0)
    factor: float = Field(gt=0.0)

    def __call__(self, count: int) -> float:
        """Return the rate."""
        return self.lr * self.factor**count


class CosineSchedule(Config):
    """Half a cosine from ``lr`` to ``least``, after a linear ascent from 0 (Loshchilov and Hutter 2017; Goyal et al. 2017).

    The ascent takes ``warmup`` of the ``steps``: its first rate is lr / warmup. From ``steps`` on the rate is ``least``.
    """

    lr: float = Field(ge=0.0)
    steps: int = Field(gt=0)
    warmup: int = Field(default=0, ge=0)
    least: float = Field(default=0.0, ge=0.0)

    def model_post_init(self, context: object, /) -> None:
        """Raise ConfigError for an ascent that leaves no step for the cosine."""
        if self.warmup >= self.steps:
            raise ConfigError(f"expected a warmup below steps, got {self.warmup} of {self.steps}")

    def __call__(self, count: int) -> float:
        """Return the rate."""
        if count < self.warmup:
            return self.lr * (count + 1) / self.warmup
        done = min((count - self.warmup) / (self.steps - self.warmup), 1.0)
        return self.least + 0.5 * (self.lr - self.least) * (1.0 + math.cos(math.pi * done))


class OneCycleSchedule(Config):
    """Up from lr / ``start_div`` to ``lr``, then down to lr / ``end_div``, each by half a cosine (Smith and Topin 2018).

    The way up takes the share ``rise`` of the ``steps``; numbers are those of PyTorch's OneCycleLR.
    """

    lr: float = Field(ge=0.0)
    steps: int = Field(gt=1)
    rise: float = Field(default=0.3, gt=0.0, lt=1.0)
    start_div: float = Field(default=25.0, ge=1.0)
    end_div: float = Field(default=2.5e5, ge=1.0)

    def __call__(self, count: int) -> float:
        """Return the rate."""
        peak, end = max(self.rise * self.steps - 1, 0.0), self.steps - 1
        if count < peak:
            return _eased(self.lr / self.start_div, self.lr, count / peak)
        return _eased(self.lr, self.lr / self.end_div, min((count - peak) / (end - peak), 1.0))


class NoamSchedule(Config):
    """factor size^-0.5 min(n^-0.5, n warmup^-1.5), with n = count + 1 (Vaswani et al. 2017, section 5.3).

    ``size`` is the model's width.
    """

    size: int = Field(gt=0)
    warmup: int = Field(default=4000, gt=0)
    factor: float = Field(default=1.0, ge=0.0)

    def __call__(self, count: int) -> float:
        """Return the rate."""
        n = count + 1
        return self.factor * self.size**-0.5 * min(n**-0.5, n * self.warmup**-1.5)


class PlateauSchedule(Config):
    """lr factor^k, k being how often ``monitor`` did not improve for more than ``patience`` epochs in a row.

    It goes by what the epochs came to so far, and so by epochs. An improvement is one by more than ``least_change``;
    after a reduction ``cooldown`` epochs do not count. The rate is never below ``least``.
    """

    lr: float = Field(ge=0.0)
    factor: float = Field(default=0.1, gt=0.0, lt=1.0)
    patience: int = Field(default=10, ge=0)
    monitor: str = "loss"
    better: Literal["higher", "lower"] = "lower"
    least_change: float = Field(default=0.0, ge=0.0)
    cooldown: int = Field(default=0, ge=0)
    least: float = Field(default=0.0, ge=0.0)

    def rate(self, values: Sequence[float]) -> float:
        """Return the rate of the next epoch, from what ``monitor`` was after each one before; NaN is no improvement."""
        sign = 1.0 if self.better == "lower" else -1.0
        best, waited, rests, reductions = math.inf, 0, 0, 0
        for value in (sign * v for v in values):
            if value < best - self.least_change:
                best, waited = value, 0
            else:
                waited += 1
            if rests:
                rests, waited = rests - 1, 0
            if waited > self.patience:
                reductions, waited, rests = reductions + 1, 0, self.cooldown
        return max(self.lr * self.factor**reductions, self.least)


def product(*schedules: Schedule) -> Schedule:
    """Return the product of several, at the same count; the first gives the rate, the others factors as a rule."""
    _check_some("product", schedules)
    return lambda count: math.prod(s(count) for s in schedules)


def average(*schedules: Schedule) -> Schedule:
    """Return the mean of several, at the same count."""
    _check_some("average", schedules)
    return lambda count: math.fsum(s(count) for s in schedules) / len(schedules)


def sequential(schedules: Sequence[Schedule], starts: Sequence[int]) -> Schedule:
    """Return one schedule after the other: the first from 0, the next ones from their ``starts``, each counting from there.

    Raises ConfigError unless there is a start for each but the first, in ascending order above 0.
    """
    _check_some("sequential", schedules)
    begins = [0, *starts]
    if len(begins) != len(schedules) or any(b <= a for a, b in pairwise(begins)):
        raise ConfigError(
            f"sequential: expected {len(schedules) - 1} ascending starts above 0, got {list(starts)}; "
            "say from which count each schedule but the first applies"
        )

    def at(count: int) -> float:
        which = max(i for i, begin in enumerate(begins) if begin <= count)
        return schedules[which](count - begins[which])

    return at


def _eased(start: float, end: float, done: float) -> float:
    return end + 0.5 * (start - end) * (1.0 + math.cos(math.pi * done))


def _check_some(what: str, schedules: Sequence[Schedule]) -> None:
    if not schedules:
        raise ConfigError(f"{what}: expected at least one schedule, got none")
