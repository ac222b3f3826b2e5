"""A minute's smoke test: the model of the README learns a little on the default device."""

from __future__ import annotations

import numpy as np

from wgpu_nn import Config, Device, Module, Tensor, tensor
from wgpu_nn.nn import (
    AdaptiveAvgPool2d,
    AdaptiveAvgPool2dConfig,
    Conv2d,
    Conv2dConfig,
    CrossEntropyLossConfig,
    Linear,
    LinearConfig,
)
from wgpu_nn.optim import AdamConfig


class Tiny(Module):
    conv: Conv2d
    pool: AdaptiveAvgPool2d
    linear: Linear

    def forward(self, images: Tensor[3]) -> Tensor[2]:
        x = self.conv.forward(images.unsqueeze(1)).relu()
        return self.linear.forward(self.pool.forward(x).flatten(1))


class TinyConfig(Config):
    classes: int
    channels: int = 4

    def init(self, device: Device) -> Tiny:
        conv = Conv2dConfig([1, self.channels], [3, 3]).init(device)
        pool = AdaptiveAvgPool2dConfig([3, 3]).init()
        return Tiny(conv, pool, LinearConfig(9 * self.channels, self.classes).init(device))


def test_a_small_model_learns_which_half_is_bright(gpu_device: Device) -> None:
    device = gpu_device.autodiff()
    device.seed(0)
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 32)
    images = rng.random((32, 8, 8)).astype(np.float32) * 0.5
    images[labels == 1, 4:] += 0.5
    images[labels == 0, :4] += 0.5
    model, optimizer, loss_of = (
        TinyConfig(2).init(device),
        AdamConfig().with_lr(0.02).init(),
        CrossEntropyLossConfig().init(),
    )
    x, y = tensor(images, device), tensor(labels, device)
    losses: list[float] = []
    for _ in range(30):
        loss = loss_of.forward(model.forward(x), y)
        optimizer.step(model, loss.backward())
        losses.append(float(loss))
    assert losses[-1] < 0.3 < 0.5 < losses[0], losses
    right = (model.valid().forward(x.inner()).argmax(1) == y.inner()).float().mean()
    assert float(right) == 1.0
    assert gpu_device.gpu.counts.launches > 0
