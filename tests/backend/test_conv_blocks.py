"""Convolutions as block products and by runs, forced onto small shapes, against NumPy in double precision."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tests.plans import Plans
from wgpu_nn import Device, tensor
from wgpu_nn.backends.wgpu import Wgpu
from wgpu_nn.dtype import F32
from wgpu_nn.kernels import conv, conv_phases, conv_runs, conv_weight, implicit
from wgpu_nn.kernels.block import MIDDLE, Block
from wgpu_nn.kernels.plan import Target
from wgpu_nn.nn import Conv2dConfig
from wgpu_nn.optim import SgdConfig
from wgpu_nn.tensor import Tensor
from wgpu_nn.train import capture

# x, weight, and the window: plain, odd sizes, stride, dilation, groups, asymmetric padding, widths that are multiples of 4.
CASES: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ((2, 4, 9, 8), (20, 4, 3, 3), {"padding": ((1, 1), (1, 1))}),
    ((3, 5, 7, 11), (9, 5, 3, 2), {}),
    ((2, 3, 12, 9), (17, 3, 3, 3), {"stride": (2, 1), "padding": ((0, 2), (1, 0))}),
    ((1, 4, 11, 14), (8, 4, 2, 3), {"dilation": (2, 3), "padding": ((1, 1), (3, 3))}),
    ((2, 8, 6, 6), (36, 4, 1, 1), {"groups": 2}),
    ((2, 6, 8, 12), (33, 2, 3, 3), {"groups": 3, "padding": ((1, 1), (1, 1))}),
    ((5, 1, 4, 4), (70, 1, 3, 3), {"padding": ((1, 1), (1, 1))}),
]
WINDOW = {"stride": (1, 1), "padding": ((0, 0), (0, 0)), "dilation": (1, 1), "groups": 1}


@pytest.fixture
def gpu(fresh_variants: dict[str, Device], monkeypatch: pytest.MonkeyPatch) -> Device:
    """A device of GPU kernels, on which no convolution is too small for blocks."""
    monkeypatch.setattr(implicit, "choose_block", lambda *of: Block(4, 8, 1, 2, 8, *of[-2:]))
    monkeypatch.setattr(implicit, "LEAST", 1)
    monkeypatch.setattr(conv_phases, "ENOUGH", 0)
    monkeypatch.setattr(conv, "choose_runs", lambda *of: None)
    return fresh_variants["gpu"]


def planned(monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str) -> list[bool]:
    """Return a list that receives whether each convolution was planned as a block product."""
    seen: list[bool] = []
    run = getattr(module, name)

    def watched(*args: Any) -> Any:
        found = run(*args)
        seen.append(found is not None)
        return found

    monkeypatch.setattr(module, name, watched)
    return seen


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_convolution_and_its_gradients_agree_with_float64(
    gpu: Device, exact: Device, case: Any, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, trust: str
) -> None:
    forward, weight = planned(monkeypatch, conv, "forward_block"), planned(monkeypatch, conv_weight, "weight_slices")
    x_shape, w_shape, more = case
    window = WINDOW | more
    x, w, b = (rng.standard_normal(s).astype(np.float32) for s in (x_shape, w_shape, w_shape[:1]))

    def results(device: Device) -> list[np.ndarray]:
        ours = [tensor(v, device) for v in (x, w, b)]
        out = ours[0].run("conv2d", *ours, **window)
        g = out * 0.5 + 0.25
        back = out.run("conv2d_input_grad", g, ours[1], shape=x_shape, **window)
        to_weight = out.run("conv2d_weight_grad", ours[0], g, shape=w_shape, **window)
        return [out.numpy(), back.numpy(), to_weight.numpy()]

    for got, want in zip(results(gpu), results(exact), strict=True):
        # Sums of up to 500 products of numbers below 10.
        np.testing.assert_allclose(got, want, 1e-5, 1e-5 * max(1.0, float(np.abs(want).max())))
    assert all(forward) and forward
    assert all(weight) and weight


# The input's shape, the weight's, and the window: its gradient has a phase for each remainder by the strides.
PHASES: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any], int]] = [
    ((2, 5, 8, 8), (9, 5, 3, 3), {"stride": (2, 2), "padding": ((1, 1), (1, 1))}, 4),
    ((1, 4, 11, 9), (20, 4, 4, 3), {"stride": (2, 3), "padding": ((2, 0), (0, 3))}, 6),
    ((2, 6, 7, 16), (6, 2, 2, 2), {"stride": (2, 2), "groups": 3}, 4),
    ((3, 3, 1, 13), (10, 3, 1, 5), {"stride": (1, 2), "padding": ((0, 0), (2, 2))}, 2),
    (
        (1, 2, 1, 10),
        (3, 2, 2, 3),
        {"stride": (2, 3), "padding": ((1, 0), (4, 4))},
        3,
    ),  # a line: no second phase of rows
    ((2, 3, 6, 6), (4, 3, 5, 3), {"stride": (4, 2), "padding": ((4, 4), (2, 2))}, 8),  # windows that see padding alone
    ((2, 3, 9, 9), (4, 3, 1, 3), {"stride": (2, 2)}, 0),  # pixels that no weight meets
    ((2, 3, 9, 9), (4, 3, 3, 3), {"stride": (2, 2), "dilation": (1, 2)}, 0),
]


@pytest.mark.parametrize("case", PHASES, ids=str)
def test_an_input_gradient_by_phases_agrees_with_float64(
    gpu: Device, exact: Device, case: Any, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, trust: str
) -> None:
    seen: list[Any] = []
    run = conv_phases.run_forward
    monkeypatch.setattr(conv_phases, "run_forward", lambda *of: (seen.append(of), run(*of))[1])
    x_shape, w_shape, more, count = case
    window = WINDOW | more
    x, w = (rng.standard_normal(s).astype(np.float32) for s in (x_shape, w_shape))
    eager = Device.of(Wgpu(gpu.gpu, Target(software=False, invocations=256, storage=16384)))

    def results(device: Device) -> list[np.ndarray]:
        ours = [tensor(v, device) for v in (x, w)]
        out = ours[0].run("conv2d", *ours, **window)
        seen.clear()

        @capture
        def back(g: Tensor, w: Tensor) -> Tensor:
            return g.run("conv2d_input_grad", g, w, shape=x_shape, **window).relu() + 1.0  # each result as it is stored

        g = out * 0.5 + 0.25
        return [back(g, ours[1]).numpy(), g.run("conv2d_input_grad", g, ours[1], shape=x_shape, **window).numpy()]

    want = results(exact)
    for device in (gpu, eager):
        for got, good in zip(results(device), want, strict=True):
            np.testing.assert_allclose(got, good, 1e-5, 1e-5 * max(1.0, float(np.abs(good).max())))
        assert len(seen) == 2 * count


@pytest.mark.parametrize("sizes", [(4, 16), (4, 8), (5, 4)], ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_convolution_by_runs_agrees_with_float64(
    fresh_variants: dict[str, Device],
    gpu_device: Device,
    exact: Device,
    case: Any,
    sizes: tuple[int, int],
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
    trust: str,
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(conv, "choose_runs", lambda *of: seen.append(of) or sizes)
    x_shape, w_shape, more = case
    window = WINDOW | more
    x, w, b = (rng.standard_normal(s).astype(np.float32) for s in (x_shape, w_shape, w_shape[:1]))
    # The last way is eager mode's: sizes are parameters, and every load is guarded.
    eager = Device.of(Wgpu(gpu_device.gpu, Target(software=False, invocations=256, storage=16384)))

    def results(device: Device) -> list[np.ndarray]:
        ours = [tensor(v, device) for v in (x, w, b)]
        out = ours[0].run("conv2d", *ours, **window)
        back = out.run("conv2d_input_grad", out * 0.5 + 0.25, ours[1], shape=x_shape, **window)
        return [out.numpy(), back.numpy()]

    want = results(exact)
    for device in (fresh_variants["gpu"], eager):
        for got, good in zip(results(device), want, strict=True):
            np.testing.assert_allclose(got, good, 1e-5, 1e-5 * max(1.0, float(np.abs(good).max())))
    assert seen


@pytest.mark.usefixtures("gpu")
def test_four_pixels_of_a_row_are_read_within_their_image(rng: np.random.Generator) -> None:
    """Also those that a block has beyond the last one, where nothing is padded and memory ends."""
    watched = Device.of(Wgpu(Device(debug="bounds").gpu, Target(software=False, invocations=256, storage=16384)))
    x, w = (tensor(rng.standard_normal(s), watched) for s in ((2, 3, 9, 9), (4, 3, 1, 3)))
    x.run("conv2d", x, w, **(WINDOW | {"stride": (2, 2)})).numpy()


def test_runs_are_for_many_weights_and_many_pixels() -> None:
    def chosen(pixels: int, inner: int, outputs: int, tuned: bool = True) -> tuple[int, int] | None:
        site = Plans(Target(software=False, invocations=256, storage=16384), tuned)
        return conv_runs.choose_runs(site, pixels, inner, 9, outputs, 1)

    assert chosen(1024 * 26 * 26, 144, 8) == (4, 8) and chosen(64 * 56 * 56, 576, 64) == (4, 16)
    assert chosen(1024 * 24 * 24, 72, 16) is None and chosen(64 * 26 * 26, 144, 8) is None
    assert chosen(64 * 26 * 26, 144, 8, tuned=False) == chosen(26 * 26, 144, 8, tuned=False), (
        "the batch decides nothing"
    )


def test_phases_are_for_large_gradients_on_gpus() -> None:
    def launches(batch: int, channels: int, side: int, software: bool = False) -> list[str]:
        site = Plans(Target(software=software, invocations=256, storage=49152), tuned=True)
        shape = (batch, channels, 2 * side, 2 * side)
        g, w, out = (site.empty(s, F32) for s in ((batch, channels, side, side), (channels, channels, 3, 3), shape))
        attrs = {"stride": (2, 2), "padding": ((1, 1), (1, 1)), "dilation": (1, 1), "groups": 1}
        conv.run_input_grad(site, "conv2d_input_grad", [g, w], attrs, out)
        return [kernel.name for kernel, _, _ in site.launches if "phase" in kernel.name]

    assert len(launches(32, 128, 28)) == 4
    assert not launches(8, 64, 32) and not launches(32, 128, 28, software=True)


def test_a_captured_convolution_takes_bias_activation_and_bias_gradient_along(
    gpu: Device, exact: Device, rng: np.random.Generator
) -> None:
    def train(device: Device, captured: bool) -> list[np.ndarray]:
        device.seed(3)
        layer = Conv2dConfig(channels=(4, 24), kernel_size=(3, 3), padding="same").init(device.autodiff())
        layer.load_state({k: tensor(v, device.autodiff()) for k, v in given.items()})
        optimizer = SgdConfig(lr=0.1).init()

        def step(x: Tensor) -> Tensor:
            loss = layer.forward(x).relu().square().mean()
            optimizer.step(layer, loss.backward())
            return loss.inner()

        call = capture(state=[layer, optimizer])(step) if captured else step
        losses = [call(tensor(x, device.autodiff())).numpy() for _ in range(3)]
        return [*losses, *(t.numpy() for t in layer.state().values())]

    given = {"weight": rng.standard_normal((24, 4, 3, 3)) * 0.2, "bias": rng.standard_normal(24) * 0.1}
    x = rng.standard_normal((3, 4, 8, 10))
    for got, want in zip(train(gpu, True), train(exact, False), strict=True):
        np.testing.assert_allclose(got, want, 2e-5, 2e-5)


def test_the_blocks_of_a_real_size_are_chosen_by_channels() -> None:
    from wgpu_nn.kernels.block import WIDE, choose_block

    target = Target(software=False, invocations=256, storage=49152)
    wide = choose_block(target, 64, 64 * 56 * 56, 576, 1, True, False)
    middle = choose_block(target, 64, 128 * 64, 576, 1, True, False)
    assert wide is not None and wide[:4] == WIDE and middle is not None and middle[:4] != WIDE
    assert choose_block(target, 512, 128, 576, 1, True, False) is None and MIDDLE[0] == 8
