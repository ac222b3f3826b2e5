"""Metrics on a GPU: their statistics inside captured steps are those of NumPy, and their counts are exact."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from tests.metric_cases import CASES, IDS, batches
from wgpu_nn import Device, Int, Tensor, tensor
from wgpu_nn.errors import DataError
from wgpu_nn.metrics import AUROC, F1, Accuracy, Meter, Metric, measure
from wgpu_nn.tensor import Cell, cat, zeros
from wgpu_nn.train import capture


def statistics(metric: Metric, kind: str, device: Device, captured: bool = False) -> list[list[Tensor]]:
    """Return, of each statistic, those of all batches."""
    data = batches(kind)
    step = capture(metric.statistics) if captured else metric.statistics
    found = [step(tensor(x, device), tensor(t, device)) for x, t in zip(data.outputs, data.targets)]
    return [list(column) for column in zip(*found)]


def joined(metric: Metric, columns: Sequence[list[Tensor]]) -> list[Tensor]:
    return [cat(c) if metric.joins == "concat" else sum(c[1:], c[0]) for c in columns]


@pytest.mark.parametrize("kind, metric", CASES, ids=IDS)
def test_a_captured_step_measures_what_numpy_does(kind: str, metric: Metric, gpu_device: Device, exact: Device) -> None:
    here, there = (statistics(metric, kind, gpu_device, captured=True), statistics(metric, kind, exact))
    for ours, theirs in zip(here, there, strict=True):
        for x, y in zip(ours, theirs, strict=True):
            assert x.shape == y.shape and x.kind is y.kind
            if x.kind is Int:
                np.testing.assert_array_equal(x.numpy(), y.numpy())
    found = measure(metric, *joined(metric, here))
    wanted = measure(metric, *joined(metric, there))
    # Outputs are f32 on both sides; 1e-5 is what sums and softmax of a hundred of them may lose.
    assert found.value == pytest.approx(wanted.value, rel=1e-5, abs=1e-6)
    for name, want in wanted.details.items():
        np.testing.assert_allclose(found.details[name], want, rtol=1e-5, atol=1e-5)


def test_a_metric_stands_in_the_state_of_a_captured_step(gpu_device: Device) -> None:
    metric, data = F1(), batches("classes")
    total = Cell(zeros((6, 6), gpu_device, Int))

    @capture(state=[total])
    def step(outputs: Tensor, targets: Tensor) -> None:
        total.value = total.value + metric.statistics(outputs, targets)[0]

    meter = Meter(metric)
    for x, t in zip(data.outputs, data.targets):
        step(tensor(x, gpu_device), tensor(t, gpu_device))
        meter.update(tensor(x, gpu_device), tensor(t, gpu_device))
    assert measure(metric, total.value).value == meter.value()


def test_accuracy_costs_a_captured_step_few_launches(gpu_device: Device) -> None:
    data, total = batches("classes"), Cell(zeros((4,), gpu_device, Int))

    @capture(state=[total])
    def step(outputs: Tensor, targets: Tensor) -> None:
        total.value = total.value + Accuracy(ignore=0).statistics(outputs, targets)[0]

    step(tensor(data.outputs[1], gpu_device), tensor(data.targets[1], gpu_device))
    assert step.steps[0].step.launches <= 4  # scores, verdicts, their tally, the total


def test_a_target_out_of_range_in_a_captured_step_is_seen_when_the_value_is_read(gpu_device: Device) -> None:
    step = capture(Accuracy(ignore=-1).statistics)
    found = step(tensor(np.eye(3, dtype=np.float32), gpu_device), tensor([0, 3, -1], gpu_device))
    with pytest.raises(DataError, match="accuracy: expected targets that are classes of the outputs, got 1 others"):
        measure(Accuracy(ignore=-1), *found)


def test_a_meter_keeps_no_history_of_gradients(gpu_device: Device) -> None:
    x = tensor(np.eye(3, dtype=np.float32), gpu_device.autodiff()).require_grad()
    meter = Meter(AUROC(task="multiclass"))
    meter.update(x * 2.0, tensor([0, 1, 2], gpu_device.autodiff()))
    assert meter.value() == 1.0


def test_metrics_of_a_training_on_the_gpu_can_run_on_the_cpu(gpu_device: Device, cpu: Device) -> None:
    meter, data = Meter(Accuracy()), batches("classes")
    outputs, targets = data.all
    meter.update(tensor(outputs, gpu_device.autodiff()).to(cpu), tensor(targets, cpu))
    assert meter.value() == np.mean(outputs.argmax(1) == targets)


def test_an_auroc_of_many_scores_is_exact(gpu_device: Device, rng: np.random.Generator) -> None:
    n = 70_001
    targets = rng.integers(0, 2, n)
    scores = np.round(rng.normal(targets, 1.0), 2).astype(np.float32)
    meter = Meter(AUROC())
    for part in np.array_split(np.arange(n), 3):
        meter.update(tensor(scores[part], gpu_device), tensor(targets[part], gpu_device))
    positive, negative = scores[targets == 1], np.sort(scores[targets == 0])
    below = np.searchsorted(negative, positive, "left").sum() + np.searchsorted(negative, positive, "right").sum()
    assert meter.value() == pytest.approx(below / (2 * len(positive) * len(negative)), rel=1e-15)
    assert not math.isnan(meter.value())
