"""What captured steps offer beside speed: the check against op by op, the warning of baked numbers, data on the device."""

from __future__ import annotations

import re

import numpy as np
import pytest

from wgpu_nn import Device, Tensor, tensor
from wgpu_nn.errors import CaptureError, DataError, KindError
from wgpu_nn.graph import emit
from wgpu_nn.nn import LinearConfig, Module
from wgpu_nn.optim import AdamConfig
from wgpu_nn.train import DeviceDataset, capture


def given(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_a_checked_step_agrees_with_its_ops_one_by_one(gpu_device: Device) -> None:
    device = gpu_device.autodiff()
    model, optimizer = LinearConfig(7, 5).init(device), AdamConfig(lr=0.1).init()
    x = tensor(given(6, 7), device)

    @capture(state=[model, optimizer], check=True, fuse=True)
    def step(x: Tensor) -> Tensor:
        loss = model.forward(x).relu().square().mean()
        optimizer.step(model, loss.backward())
        return loss

    losses = [step(x).item() for _ in range(5)]
    assert losses[-1] < losses[0] and optimizer.steps == 5


def test_a_wrong_fusion_is_named_with_its_op_and_line(gpu_device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    right = emit.expression
    monkeypatch.setattr(emit, "expression", lambda op, a, b: right(op, a, b).replace("tanh_near(x)", "(x * 0.9)"))

    @capture(check=True, fuse=True)
    def chain(x: Tensor) -> Tensor:
        y = x * 2.0
        return y.tanh().exp()

    with pytest.raises(CaptureError, match=r"the first op to differ is tanh f32\[9\].*test_capture_check\.py:\d+"):
        chain(tensor(given(9), gpu_device))


def test_a_number_that_was_baked_and_then_changed_is_warned_of_once(gpu_device: Device) -> None:
    scale = 2.0

    @capture
    def scaled(x: Tensor) -> Tensor:
        return x * scale

    x = tensor([1.0, 2.0], gpu_device)
    assert scaled(x).tolist() == [2.0, 4.0]
    scale = 3.0
    with pytest.warns(UserWarning, match=re.escape("scale was 2.0 when the function was captured")):
        assert scaled(x).tolist() == [2.0, 4.0]
    scaled(x)  # a second warning would be an error here


def test_a_method_can_be_captured(gpu_device: Device) -> None:
    class Doubled(Module):
        by: float

        @capture
        def forward(self, x: Tensor) -> Tensor:
            return x * self.by

    two, three = Doubled(by=2.0), Doubled(by=3.0)
    x = tensor([1.0], gpu_device)
    assert [m.forward(x).item() for m in (two, three, two)] == [2.0, 3.0, 2.0]


def test_a_captured_step_gathers_its_batch_on_the_device(gpu_device: Device) -> None:
    images, labels = given(20, 3, 2), np.arange(20, dtype=np.int32)
    data = DeviceDataset(images, labels, device=gpu_device)

    @capture
    def batch(indices: Tensor) -> tuple[Tensor, Tensor]:
        x, y = data.batch(indices)
        return x + 1.0, y

    for seed in range(3):
        rows = np.random.default_rng(seed).integers(0, 20, 5)
        x, y = batch(tensor(rows, gpu_device))
        np.testing.assert_array_equal(x.numpy(), images[rows] + 1)
        np.testing.assert_array_equal(y.numpy(), rows)
    assert len(batch.steps) == 1 and len(data) == 20


def test_a_device_data_set_refuses_what_does_not_fit(gpu_device: Device) -> None:
    with pytest.raises(DataError, match="at least one array"):
        DeviceDataset(device=gpu_device)
    with pytest.raises(DataError, match=r"one length, got \[2, 3\]"):
        DeviceDataset(given(2), given(3), device=gpu_device)
    with pytest.raises(KindError, match="Int indices of rank 1"):
        DeviceDataset(given(2), device=gpu_device).batch(tensor([0.0], gpu_device))
