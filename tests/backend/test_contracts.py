"""Numbers that do not depend on the machine: what a training step launches, compiles and allocates."""

from __future__ import annotations

import gc

import numpy as np
import pytest

from wgpu_nn import Device, tensor
from wgpu_nn.backends.wgpu import Wgpu
from wgpu_nn.gpu import Gpu, choose
from wgpu_nn.models import Model, ModelConfig
from wgpu_nn.nn import CrossEntropyLossConfig
from wgpu_nn.optim import AdamConfig, Optimizer

LOSS = CrossEntropyLossConfig().init()


@pytest.fixture(scope="module")
def device() -> Device:
    """A device of its own, whose pool and pipelines no other test has filled."""
    return Device.of(Wgpu(Gpu(choose()[0]))).autodiff()


@pytest.fixture(scope="module")
def model(device: Device) -> Model:
    return ModelConfig(10, 64).init(device)


@pytest.fixture(scope="module")
def optimizer() -> Optimizer:
    return AdamConfig().init()


def step(model: Model, optimizer: Optimizer, device: Device, batch: int) -> float:
    rng = np.random.default_rng(batch)
    x = tensor(rng.random((batch, 28, 28)).astype(np.float32), device)
    loss = LOSS.forward(model.forward(x), tensor(rng.integers(0, 10, batch), device))
    optimizer.step(model, loss.backward())
    return float(loss)


def test_a_new_batch_size_compiles_nothing(model: Model, optimizer: Optimizer, device: Device) -> None:
    # Two sizes, one a multiple of four and one not, bring the kernels of four elements and of one.
    counts = device.gpu.counts
    for batch in (64, 37):
        step(model, optimizer, device, batch)
    compiled = counts.pipelines
    for batch in (5, 48, 1, 2, 19, 64):
        step(model, optimizer, device, batch)
        assert counts.pipelines == compiled, f"batch {batch} compiled something"


@pytest.mark.unwatched("counts submits, and a device that watches submits each launch")
def test_a_step_in_steady_state_allocates_and_compiles_nothing(
    model: Model, optimizer: Optimizer, device: Device
) -> None:
    gpu = device.gpu
    for _ in range(2):
        step(model, optimizer, device, 32)
    gc.collect()
    before, pool = gpu.counts.copy(), gpu.pool.stats()
    for _ in range(5):
        assert np.isfinite(step(model, optimizer, device, 32))
    since = gpu.counts.since(before)
    assert gpu.pool.stats().created == pool.created, "a buffer was made"
    assert gpu.pool.stats().live_bytes == pool.live_bytes, "something is kept"
    assert since.pipelines == 0 and since.reads == 5 and since.uploads == 10
    assert since.launches % 5 == 0, "each step launches the same"
    assert since.submits <= 5 * (since.launches // 5 // 64 + 4)


def test_steps_reuse_their_bind_groups(model: Model, optimizer: Optimizer, device: Device) -> None:
    gpu = device.gpu
    for _ in range(40):  # the places of parameters in their stacks are shuffled until all shuffles were seen
        step(model, optimizer, device, 32)
    before = gpu.counts.copy()
    for _ in range(4):
        step(model, optimizer, device, 32)
    since = gpu.counts.since(before)
    assert since.bind_groups <= since.launches // 10, since  # the last shuffles are rare, and rarer with every step
