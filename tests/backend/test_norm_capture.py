"""Normalisation layers in captured steps: running statistics as state, what fuses, and that it equals eager mode."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from wgpu_nn import Device, Tensor, tensor
from wgpu_nn.nn import (
    BatchNorm,
    BatchNormConfig,
    Conv2d,
    Conv2dConfig,
    GroupNormConfig,
    InstanceNormConfig,
    LayerNormConfig,
    Linear,
    LinearConfig,
    Module,
    RmsNormConfig,
)
from wgpu_nn.optim import SgdConfig
from wgpu_nn.train import capture


class Net(Module):
    """A convolution, a norm and a linear layer."""

    conv: Conv2d
    norm: BatchNorm
    linear: Linear

    def forward(self, x: Tensor) -> Tensor:
        """[batch, 2, 6, 6] -> [batch, 3]."""
        return self.linear.forward(self.norm.forward(self.conv.forward(x)).relu().mean((2, 3)))


def net(device: Device) -> Net:
    device.seed(3)
    return Net(
        Conv2dConfig((2, 4), (3, 3)).init(device), BatchNormConfig(4).init(device), LinearConfig(4, 3).init(device)
    )


def trained(below: Device, captured: bool) -> tuple[Net, list[np.ndarray], Any]:
    device = below.autodiff()
    model, optimizer = net(device), SgdConfig(lr=0.1).init()

    def step(x: Tensor) -> Tensor:
        loss = model.forward(x).square().mean()
        optimizer.step(model, loss.backward())
        return loss.inner()

    run = capture(state=[model, optimizer])(step) if captured else step
    rng = np.random.default_rng(0)
    losses = [run(tensor(rng.random((5, 2, 6, 6)).astype(np.float32), device)).numpy() for _ in range(4)]
    return model, losses, run


def test_running_statistics_follow_in_captured_steps_as_in_eager_ones(gpu_device: Device) -> None:
    eager, want, _ = trained(gpu_device, False)
    model, got, step = trained(gpu_device, True)
    np.testing.assert_allclose(got, want, rtol=1e-5)
    for (name, t), u in zip(model.state().items(), eager.state().values(), strict=True):
        np.testing.assert_allclose(t.numpy(), u.numpy(), rtol=1e-4, atol=1e-6, err_msg=name)
    assert (model.norm.running_mean.value.numpy() != 0).all()
    x = tensor(np.random.default_rng(5).random((2, 2, 6, 6)).astype(np.float32), gpu_device)
    resting = capture(lambda x: model.valid().forward(x))
    np.testing.assert_allclose(resting(x).numpy(), eager.valid().forward(x).numpy(), rtol=1e-4, atol=1e-6)
    assert len(step.steps) == 1


CONFIGS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "batch": (BatchNormConfig(4), (8, 4, 6, 6)),
    "layer": (LayerNormConfig(12), (8, 4, 12)),
    "rms": (RmsNormConfig(12), (8, 4, 12)),
    "group": (GroupNormConfig(2, 4), (8, 4, 6, 6)),
    "instance": (InstanceNormConfig(4), (8, 4, 6, 6)),
}
# Forward and an activation at rest; forward and backward in training, with the gradients of all parameters. Sums over the
# batch and the image go in two passes: those side by side, then the rest.
LAUNCHES = {"batch": (2, 10), "layer": (1, 4), "rms": (1, 3), "group": (1, 7), "instance": (1, 7)}


@pytest.mark.parametrize("name", CONFIGS)
def test_what_a_norm_launches(name: str, gpu_device: Device) -> None:
    config, shape = CONFIGS[name]
    layer = config.init(gpu_device)
    rest = capture(lambda x: layer.forward(x).relu())
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    rest(tensor(x, gpu_device))
    device = gpu_device.autodiff()
    training = config.init(device)

    def grads(x: Tensor, w: Tensor) -> list[Tensor]:
        leaf = x.require_grad()
        found = (training.forward(leaf) * w).sum().backward()
        return [found[leaf], *(found[p.value] for p in training.params() if p.trainable)]

    step = capture(state=[training])(grads)
    given = (tensor(x, device), tensor(x[::-1].copy(), device))
    got = step(*given)
    for g, want in zip(got, grads(*given), strict=True):
        np.testing.assert_allclose(g.numpy(), want.numpy(), rtol=1e-4, atol=1e-4)
    print(rest.steps[0].plan, step.steps[0].plan, sep="\n")  # shown if the test fails
    assert rest.steps[0].step.launches <= LAUNCHES[name][0]
    few = gpu_device.gpu.limits["max-storage-buffers-per-shader-stage"] <= 8 and name == "batch"  # its sums bind nine
    assert step.steps[0].step.launches <= LAUNCHES[name][1] + few


@pytest.mark.parametrize("shape", [(3, 5), (3, 64), (2, 4096), (2, 7001), (2, 9001), (1, 33_000)], ids=str)
def test_maps_run_in_the_kernel_of_normalised_rows(
    shape: tuple[int, int], each_way: Device, rng: np.random.Generator
) -> None:
    x, y, w = (tensor(rng.standard_normal(n).astype(np.float32), each_way) for n in (shape, shape, shape[1:]))

    def fn(x: Tensor, y: Tensor, w: Tensor) -> list[Tensor]:
        g = x.run("layer_norm_grad", y, x, w, epsilon=1e-5)
        rows = [(x.layer_norm() * w + y).relu(), (x.rms_norm(w) - y).tanh(), g * 2.0 - w]
        return [*rows, x.softmax(1) * 2.0 + y, (x.log_softmax(1) - w).exp()]

    captured = capture(fn)
    for got, want in zip(captured(x, y, w), fn(x, y, w), strict=True):
        np.testing.assert_allclose(got.numpy(), want.numpy(), rtol=1e-5, atol=1e-5)
    if shape[1] <= 8192:
        assert captured.steps[0].step.launches == 5


@pytest.mark.parametrize("features", [3, 70, 1500])
def test_the_gradient_of_a_constant_row_is_large_and_as_exact_as_any(
    features: int, each_way: Device, exact: Device, rng: np.random.Generator
) -> None:
    # Its variance is 0, so that it is multiplied by 1 / sqrt(epsilon), 316: what looks like a large error is a small part.
    x = np.full((2, features), 100.1, np.float32)
    g = rng.standard_normal((2, features)).astype(np.float32)

    def gradients(device: Device) -> np.ndarray:
        place = tensor(x, device.autodiff()).require_grad()
        out = LayerNormConfig(features).init(device.autodiff()).forward(place)
        return (out * tensor(g, device.autodiff())).sum().backward()[place].numpy()

    want = gradients(exact)
    assert np.abs(want).max() > 200
    np.testing.assert_allclose(gradients(each_way), want, 0, 2e-6 * np.abs(want).max())
