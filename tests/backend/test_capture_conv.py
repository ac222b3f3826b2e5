"""Convolutional layers in captured steps: what follows them is fused into them, and steps equal eager mode."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from wgpu_nn import Device, Tensor, tensor
from wgpu_nn.nn import (
    AdaptiveAvgPool1dConfig,
    AdaptiveMaxPool1dConfig,
    AdaptiveMaxPool2dConfig,
    AvgPool1dConfig,
    AvgPool2dConfig,
    Conv1dConfig,
    Conv2dConfig,
    Conv3dConfig,
    ConvTranspose1dConfig,
    ConvTranspose2dConfig,
    ConvTranspose3dConfig,
    Fold4dConfig,
    Interpolate2dConfig,
    MaxPool1dConfig,
    MaxPool2dConfig,
    Module,
    PixelUnshuffleConfig,
    Unfold4dConfig,
)
from wgpu_nn.optim import SgdConfig
from wgpu_nn.train.capture import capture

PAIRS: dict[str, tuple[Any, Any, tuple[int, ...]]] = {
    "1d": (
        Conv1dConfig([3, 10], 3, stride=2, padding=1),
        ConvTranspose1dConfig([10, 3], 3, stride=2, padding=1),
        (4, 3, 13),
    ),
    "2d": (
        Conv2dConfig([4, 12], [3, 2], stride=(2, 1), groups=4),
        ConvTranspose2dConfig([12, 4], [3, 2], stride=(2, 1), groups=4, output_padding=(1, 0)),
        (2, 4, 8, 6),
    ),
    "3d": (
        Conv3dConfig([2, 9], [2, 3, 2], stride=(1, 2, 1)),
        ConvTranspose3dConfig([9, 2], [2, 3, 2], stride=(1, 2, 1)),
        (2, 2, 4, 5, 3),
    ),
    "depthwise": (
        Conv2dConfig([6, 6], [3, 3], padding="same", groups=6),
        ConvTranspose2dConfig([6, 6], [3, 3], padding="same", groups=6),
        (3, 6, 9, 11),
    ),
}


class Autoencoder(Module):
    """A convolution and a transposed one back to the input's size."""

    down: Any
    up: Any

    def forward(self, x: Tensor) -> Tensor:
        return self.up.forward(self.down.forward(x).relu()).tanh()


def autoencoder(name: str, device: Device) -> Autoencoder:
    device.seed(3)
    down, up, _ = PAIRS[name]
    return Autoencoder(down=down.init(device), up=up.init(device))


def given(name: str, device: Device) -> Tensor:
    return tensor(np.random.default_rng(0).standard_normal(PAIRS[name][2]).astype(np.float32), device)


@pytest.fixture(params=["software", "gpu"])
def device(request: pytest.FixtureRequest, gpu_variants: dict[str, Device]) -> Device:
    """Both variants of the kernels; that they stay within their buffers is what test_ops checks."""
    return gpu_variants[request.param]


@pytest.mark.parametrize("name", PAIRS)
def test_bias_and_activation_run_inside_of_a_convolution_and_its_transpose(name: str, device: Device) -> None:
    model, x = autoencoder(name, device), given(name, device)
    step = capture(state=[model])(model.forward)
    np.testing.assert_allclose(step(x).numpy(), model.forward(x).numpy(), rtol=1e-5, atol=1e-6)
    assert step.steps[0].step.launches == 2


@pytest.mark.parametrize("name", PAIRS)
def test_a_captured_autoencoder_learns_as_eager_mode_and_numpy_do(name: str, device: Device, exact: Device) -> None:
    found: list[list[np.ndarray]] = []
    start = autoencoder(name, device).state()
    for below, fused in ((device, True), (device, False), (exact, None)):
        above = below.autodiff()
        model, optimizer = autoencoder(name, above), SgdConfig(lr=0.5).init()
        model.load_state({path: tensor(t.numpy(), above) for path, t in start.items()})

        def train(x: Tensor, model: Autoencoder = model, optimizer: Any = optimizer) -> Tensor:
            loss = (model.forward(x) - x).square().mean()
            optimizer.step(model, loss.backward())
            return loss.inner()

        step = train if fused is None else capture(state=[model, optimizer], fuse=fused)(train)
        losses = [step(given(name, above)).numpy() for _ in range(4)]
        assert losses[-1] < losses[0]
        found.append([*losses, *(t.numpy() for t in model.state().values())])
    for got, plain, want in zip(*found, strict=True):
        np.testing.assert_allclose(got, plain, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


OTHERS: list[tuple[Any, tuple[int, ...]]] = [
    (MaxPool1dConfig(3, stride=2, padding=1), (2, 3, 12)),
    (AvgPool1dConfig(4, padding=(2, 1), count_include_pad=False), (2, 3, 12)),
    (AdaptiveAvgPool1dConfig(5), (2, 3, 12)),
    (AdaptiveMaxPool1dConfig(5), (2, 3, 12)),
    (AdaptiveMaxPool2dConfig([3, 2]), (2, 3, 7, 6)),
    (MaxPool2dConfig([2, 3], strides=(2, 1), padding=((0, 1), (1, 0))), (2, 3, 7, 6)),
    (AvgPool2dConfig([2, 3], strides=(1, 1), padding="same"), (2, 3, 7, 6)),
    (Interpolate2dConfig(scale_factor=(1.5, 2.0), mode="linear"), (2, 3, 7, 6)),
    (PixelUnshuffleConfig(2), (2, 3, 8, 6)),
    (Unfold4dConfig([2, 3], padding=(1, 0), stride=(2, 1)), (2, 3, 7, 6)),
    (Fold4dConfig([5, 4], [2, 2], dilation=(2, 1)), (2, 8, 9)),
]


@pytest.mark.parametrize(("config", "shape"), OTHERS, ids=lambda v: str(v)[:24])
def test_other_layers_and_their_gradients_are_numpys_eager_and_captured(
    config: Any, shape: tuple[int, ...], device: Device, exact: Device
) -> None:
    layer, x = config.init(), np.random.default_rng(0).standard_normal(shape).astype(np.float32)

    def both(x: Tensor) -> tuple[Tensor, Tensor]:
        leaf = x.require_grad()
        out = layer.forward(leaf)
        return out.inner(), out.square().sum().backward()[leaf]

    want = both(tensor(x, exact.autodiff()))
    for run in (both, capture(state=[])(both)):
        for got, wanted in zip(run(tensor(x, device.autodiff())), want, strict=True):
            np.testing.assert_allclose(got.numpy(), wanted.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("op", ["conv2d", "conv3d", "matmul"])
@pytest.mark.parametrize("biased", [True, False])
def test_what_follows_a_sum_of_nothing_is_not_lost(op: str, biased: bool, gpu_device: Device) -> None:
    rank = {"conv2d": 2, "conv3d": 3}.get(op, 0)
    window = {"stride": (1,) * rank, "padding": ((0, 0),) * rank, "dilation": (1,) * rank, "groups": 1}
    shapes = ((2, 0, *(4,) * rank), (3, 0, *(3,) * rank)) if rank else ((2, 0), (0, 3))
    x, w = (tensor(np.zeros(s, np.float32), gpu_device) for s in shapes)
    bias = tensor([1.0, -2.0, 3.0], gpu_device)

    def after(x: Tensor, w: Tensor, bias: Tensor) -> Tensor:
        out = x @ w if not rank else x.run(op, x, w, *([bias] if biased else []), **(window if rank else {}))
        return (out - 1.5).abs()

    base = np.array([1.0, -2.0, 3.0]) if biased and rank else np.zeros(3)
    want = np.abs(base - 1.5).reshape(1, 3, *(1,) * rank)
    for run in (after, capture(after)):
        got = run(x, w, bias).numpy()
        np.testing.assert_array_equal(got, np.broadcast_to(want, got.shape))
