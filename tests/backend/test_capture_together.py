"""Calls of a captured function that share a submit: the same numbers, fewer submits."""

from __future__ import annotations

import gc

import numpy as np
import pytest

from tests.backend.test_capture import OPTIMIZERS, batch, step_of
from wgpu_nn.errors import CaptureError
from wgpu_nn.models import ModelConfig
from wgpu_nn.tensor import Device, Tensor, tensor
from wgpu_nn.train import capture


def train(device: Device, together: int, steps: int = 7) -> list[np.ndarray]:
    """Return losses, kept until the end, and parameters; the learning rate falls from step to step."""
    device.seed(11)
    model, optimizer = ModelConfig(10, 16).init(device.autodiff()), OPTIMIZERS["adam"].init()
    step = capture(state=[model, optimizer, device], calls_per_submit=together)(step_of(model, optimizer))
    losses: list[Tensor] = []
    for n in range(steps):
        optimizer.lr = 0.01 / (n + 1)
        losses.append(step(*batch(device.autodiff(), 6)))
    return [*(x.numpy() for x in losses), *(t.numpy() for t in model.state().values())]


@pytest.mark.parametrize("together", [2, 3, 8])
def test_calls_that_share_a_submit_give_the_same_bits(gpu_device: Device, together: int) -> None:
    want = train(gpu_device, 1)
    assert all(np.array_equal(g, w) for g, w in zip(train(gpu_device, together), want, strict=True))


@pytest.mark.unwatched("counts submits, and a device that watches submits each launch")
def test_one_submit_for_so_many_calls(gpu_device: Device) -> None:
    double = capture(calls_per_submit=4)(lambda x: x * 2.0 + 1.0)
    x = tensor([1.0, 2.0], gpu_device)
    double(x)
    gpu_device.sync()
    for _ in range(3):  # the first call of the round was the one above
        double(x)
    before = gpu_device.gpu.counts.copy()
    for _ in range(8):
        y = double(x)
    assert gpu_device.gpu.counts.since(before).submits == 2
    assert y.numpy().tolist() == [3.0, 5.0]


def test_a_read_in_between_sends_what_waits(gpu_device: Device) -> None:
    count = capture(calls_per_submit=100)(lambda x: x + 1.0)
    x = tensor([0.0], gpu_device)
    for n in range(1, 8):
        x = count(x)
        if n % 3 == 0:
            assert x.item() == n
    assert x.item() == 7.0


def test_uploads_and_eager_ops_between_the_calls_keep_their_order(gpu_device: Device) -> None:
    scaled = capture(calls_per_submit=16)(lambda x: x * 3.0)
    found = [scaled(tensor(np.full(5, n, np.float32), gpu_device)).sum() + float(n) for n in range(12)]
    assert [int(f.item()) for f in found] == [16 * n for n in range(12)]


def test_a_captured_function_may_go_before_its_calls_are_sent(gpu_device: Device) -> None:
    scaled = capture(calls_per_submit=16)(lambda x: x * 3.0 - x.mean())
    y = scaled(tensor([1.0, 3.0], gpu_device))
    del scaled
    gc.collect()
    tensor(np.zeros(64, np.float32), gpu_device)
    assert y.numpy().tolist() == [1.0, 7.0]


@pytest.mark.parametrize("given", [{"most": 0}, {"calls_per_submit": 0}])
def test_numbers_below_one_are_refused(given: dict[str, int]) -> None:
    with pytest.raises(CaptureError, match=r"capture: expected most and calls_per_submit of 1 or more, got"):
        capture(**given)  # pyright: ignore
