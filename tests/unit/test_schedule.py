"""Learning rates by step and epoch: PyTorch's numbers where it has the schedule, the formula where it has not."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from wgpu_nn.errors import ConfigError
from wgpu_nn.optim import (
    ConstantSchedule,
    CosineSchedule,
    ExponentialSchedule,
    LinearSchedule,
    NoamSchedule,
    OneCycleSchedule,
    PlateauSchedule,
    Schedule,
    StepSchedule,
    average,
    product,
    sequential,
)


def rates(schedule: Schedule, count: int) -> list[float]:
    return [schedule(i) for i in range(count)]


def of_torch(make: Any, count: int, lr: float = 0.2) -> list[float]:
    torch: Any = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr)
    schedule = make(torch.optim.lr_scheduler, optimizer)
    found: list[float] = []
    for i in range(count):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if i < count - 1:
            schedule.step()
    return found


@pytest.mark.parametrize(
    ("mine", "make"),
    [
        (ConstantSchedule(0.2), lambda s, o: s.ConstantLR(o, 1.0)),
        (StepSchedule(0.2, 3, factor=0.5), lambda s, o: s.StepLR(o, 3, 0.5)),
        (ExponentialSchedule(0.2, 0.9), lambda s, o: s.ExponentialLR(o, 0.9)),
        (LinearSchedule(0.2, 0.05, 7), lambda s, o: s.LinearLR(o, 1.0, 0.25, 7)),
        (CosineSchedule(0.2, 10, least=0.01), lambda s, o: s.CosineAnnealingLR(o, 10, 0.01)),
        (OneCycleSchedule(0.2, 11), lambda s, o: s.OneCycleLR(o, 0.2, 11)),
        (OneCycleSchedule(0.2, 11, rise=0.6), lambda s, o: s.OneCycleLR(o, 0.2, 11, pct_start=0.6)),
    ],
    ids=lambda x: type(x).__name__,
)
def test_rates_are_those_of_pytorch(mine: Schedule, make: Any):
    assert rates(mine, 11) == pytest.approx(of_torch(make, 11), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("cooldown", [0, 2])
@pytest.mark.parametrize("patience", [0, 1, 3])
@pytest.mark.parametrize("better", ["lower", "higher"])
def test_a_plateau_reduces_the_rate_when_pytorch_does(cooldown: int, patience: int, better: Any):
    torch: Any = pytest.importorskip("torch")
    values = np.random.default_rng(patience).normal(size=40).round(1).tolist()
    mine = PlateauSchedule(
        0.2, factor=0.5, patience=patience, better=better, cooldown=cooldown, least=0.001, least_change=0.05
    )
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.2)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer,
        "min" if better == "lower" else "max",
        0.5,
        patience,
        threshold=0.05,
        threshold_mode="abs",
        cooldown=cooldown,
        min_lr=0.001,
        eps=0.0,
    )
    for n in range(len(values)):
        assert mine.rate(values[:n]) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
        theirs.step(values[n])
    assert mine.rate(values) < 0.2


def test_a_value_that_is_nan_is_no_improvement():
    assert PlateauSchedule(1.0, patience=1).rate([1.0, math.nan, math.nan]) == pytest.approx(0.1)


def test_warm_up_rises_in_equal_steps_to_the_top_of_the_cosine():
    schedule = CosineSchedule(0.8, 12, warmup=4)
    assert rates(schedule, 5) == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8])
    assert rates(schedule, 14)[4:] == pytest.approx(rates(CosineSchedule(0.8, 8), 10))


def test_noam_peaks_at_the_end_of_its_warm_up():
    found = rates(NoamSchedule(64, warmup=10), 30)
    assert found.index(max(found)) == 9 and max(found) == pytest.approx(64**-0.5 * 10**-0.5)
    assert found[0] == pytest.approx(64**-0.5 * 10**-1.5) and found[29] == pytest.approx(64**-0.5 * 30**-0.5)


def test_schedules_are_multiplied_averaged_and_put_one_after_the_other():
    up, half = LinearSchedule(0.0, 1.0, 4), ConstantSchedule(0.5)
    assert rates(product(up, half), 3) == pytest.approx([0.0, 0.125, 0.25])
    assert rates(average(up, half), 3) == pytest.approx([0.25, 0.375, 0.5])
    assert rates(sequential([up, half, up], [2, 3]), 5) == pytest.approx([0.0, 0.25, 0.5, 0.0, 0.25])


@pytest.mark.parametrize("starts", [[], [0], [3, 2], [1, 2, 3]])
def test_starts_that_do_not_fit_are_refused(starts: list[int]):
    with pytest.raises(ConfigError, match="ascending starts"):
        sequential([ConstantSchedule(0.1)] * 3 if len(starts) != 1 else [ConstantSchedule(0.1)] * 2, starts)


def test_a_warm_up_that_leaves_no_step_is_refused_by_name():
    with pytest.raises(ConfigError, match="warmup below steps, got 3 of 3"):
        CosineSchedule(1.0, 3, warmup=3)
    with pytest.raises(ConfigError, match="at least one schedule"):
        product()
