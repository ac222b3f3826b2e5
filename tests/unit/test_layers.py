"""Layers, initialisers and losses against their formulas in NumPy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from wgpu_nn import Device, Int, Tensor, tensor
from wgpu_nn.errors import ConfigError, KindError, ShapeError
from wgpu_nn.nn import (
    AdaptiveAvgPool2dConfig,
    AvgPool2dConfig,
    Constant,
    Conv2dConfig,
    CrossEntropyLossConfig,
    DropoutConfig,
    Gelu,
    KaimingNormal,
    KaimingUniform,
    LinearConfig,
    MaxPool2dConfig,
    MseLossConfig,
    Normal,
    ReLU,
    Sigmoid,
    Tanh,
    Uniform,
    XavierNormal,
    XavierUniform,
)

WIDE = Device("numpy:f64")
CPU = Device("numpy")


def given(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


# --- layers ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("shape", [(3,), (4, 3), (2, 5, 3), (0, 3)])
def test_linear_is_x_w_plus_b(shape: tuple[int, ...]) -> None:
    layer, x = LinearConfig(3, 2).init(WIDE), given(*shape)
    w, b = layer.weight.value.numpy(), layer.bias.value.numpy()  # pyright: ignore[reportOptionalMemberAccess]
    np.testing.assert_allclose(layer.forward(tensor(x, WIDE)).numpy(), x @ w + b)
    assert LinearConfig(3, 2).with_bias(False).init(WIDE).bias is None
    with pytest.raises(ShapeError, match=r"linear: expected 3 features on the last axis, got \[2\]"):
        layer.forward(tensor([1.0, 2], WIDE))


@pytest.mark.parametrize(
    "options",
    [
        {}, {"stride": (2, 1)}, {"dilation": (1, 2)}, {"groups": 2}, {"padding": (1, 2)}, {"padding": "same"}, {"bias": False},
        {"padding": ((1, 0), (0, 2)), "stride": (2, 2), "groups": 2, "dilation": (2, 1)},
        {"padding": "same", "dilation": (2, 3)},
    ],
)  # fmt: skip
def test_conv2d_is_its_sum(options: dict[str, Any]) -> None:
    config = Conv2dConfig([4, 6], [3, 2], **options)
    layer, x = config.init(WIDE), given(2, 4, 7, 6)
    (pt, pb), (pl, pr) = layer.padding
    padded = np.pad(x, ((0, 0), (0, 0), (pt, pb), (pl, pr)))
    w = layer.weight.value.numpy()
    (sh, sw), (dh, dw), ci = layer.stride, layer.dilation, 4 // layer.groups
    oh, ow = (padded.shape[2] - dh * 2 - 1) // sh + 1, (padded.shape[3] - dw - 1) // sw + 1
    want = np.zeros((2, 6, oh, ow))
    for o in range(6):
        first = o // (6 // layer.groups) * ci
        for y in range(oh):
            for z in range(ow):
                seen = padded[:, first : first + ci, y * sh : y * sh + 2 * dh + 1 : dh, z * sw : z * sw + dw + 1 : dw]
                want[:, o, y, z] = (seen * w[o]).sum(axis=(1, 2, 3))
    if layer.bias is not None:
        want += layer.bias.value.numpy()[:, None, None]
    out = layer.forward(tensor(x, WIDE)).numpy()
    np.testing.assert_allclose(out, want, atol=1e-12)
    if options.get("padding") == "same":
        assert out.shape[2:] == x.shape[2:]


def test_a_conv2d_that_makes_no_sense_is_refused() -> None:
    for config, message in (
        (Conv2dConfig([3, 4], [3, 3]).with_groups(2), "channels divisible by 2 groups"),
        (Conv2dConfig([0, 4], [3, 3]), "sizes of 1 or more"),
        (Conv2dConfig([1, 4], [3, 3]).with_padding("same").with_stride((2, 2)), '"same" expects a stride of 1'),
    ):
        with pytest.raises(ConfigError, match=message):
            config.init(CPU)
    layer = Conv2dConfig([1, 4], [3, 3]).init(CPU)
    with pytest.raises(ShapeError, match="window of 3 does not fit in 2 elements"):
        layer.forward(tensor(np.zeros((1, 1, 2, 5)), CPU))
    with pytest.raises(ShapeError, match="conv2d: expected 1 x 1 groups = 1 input channels"):
        layer.forward(tensor(np.zeros((1, 2, 5, 5)), CPU))


@pytest.mark.parametrize("padding", [(0, 0), (1, 0)])
def test_pools_are_the_maxima_and_means_of_windows(padding: tuple[int, int]) -> None:
    x = given(2, 3, 6, 5)
    for name, fold in (("max", np.max), ("avg", np.mean), ("bare", np.nanmean)):
        fill = {"max": -np.inf, "avg": 0.0, "bare": np.nan}[name]
        padded = np.pad(x, ((0, 0), (0, 0), (padding[0],) * 2, (padding[1],) * 2), constant_values=fill)
        wins = np.lib.stride_tricks.sliding_window_view(padded, (2, 3), axis=(2, 3))[:, :, ::2, ::1]
        want = fold(wins, axis=(4, 5))
        config = (
            MaxPool2dConfig([2, 3]) if name == "max" else AvgPool2dConfig([2, 3]).with_count_include_pad(name == "avg")
        )
        layer = config.with_strides((2, 1)).with_padding(padding).init()
        np.testing.assert_allclose(layer.forward(tensor(x, WIDE)).numpy(), want, err_msg=name)
    assert MaxPool2dConfig([2, 3]).init().strides == (2, 3)
    with pytest.raises(ShapeError, match="padding of half the window at most"):
        MaxPool2dConfig([2, 2]).with_padding((2, 0)).init().forward(tensor(x, WIDE))


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (6, 5), (8, 7)])
def test_adaptive_pooling_averages_bins(size: tuple[int, int]) -> None:
    x = given(2, 3, 6, 5)
    out = AdaptiveAvgPool2dConfig(list(size)).init().forward(tensor(x, WIDE)).numpy()
    bins = [[(i * n // s, math.ceil((i + 1) * n / s)) for i in range(s)] for n, s in zip((6, 5), size, strict=True)]
    want = [[x[:, :, a:b, c:d].mean(axis=(2, 3)) for c, d in bins[1]] for a, b in bins[0]]
    np.testing.assert_allclose(out, np.moveaxis(np.array(want), (0, 1), (2, 3)))


def test_activations_are_their_functions() -> None:
    x = given(3, 4)
    t = tensor(x, WIDE)
    np.testing.assert_allclose(ReLU().forward(t).numpy(), np.maximum(x, 0))
    np.testing.assert_allclose(Sigmoid().forward(t).numpy(), 1 / (1 + np.exp(-x)))
    np.testing.assert_allclose(Tanh().forward(t).numpy(), np.tanh(x))
    np.testing.assert_allclose(Gelu().forward(t).numpy(), x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2))))


# --- dropout -----------------------------------------------------------------------------------------------------------
def test_dropout_rests_without_autodiff() -> None:
    x = tensor(given(4, 4), CPU)
    assert DropoutConfig(0.5).init().forward(x) is x
    tracked = x.to(CPU.autodiff())
    assert DropoutConfig(0.0).init().forward(tracked) is tracked
    assert DropoutConfig(1.0).init().forward(tracked).tolist() == [[0.0] * 4] * 4


@pytest.mark.parametrize("prob", [0.1, 0.5, 0.9])
def test_dropout_zeroes_with_its_probability_and_scales_the_rest(prob: float) -> None:
    device = CPU.autodiff()
    device.seed(1)
    out = DropoutConfig(prob).init().forward(tensor(np.ones((200, 200)), device)).numpy()
    np.testing.assert_allclose(np.unique(out), [0, 1 / (1 - prob)], rtol=1e-6)
    assert (out == 0).mean() == pytest.approx(prob, abs=5 * math.sqrt(prob * (1 - prob) / 40_000))
    assert np.abs(np.corrcoef((out == 0).ravel()[:-1], (out == 0).ravel()[1:])[0, 1]) < 0.03


def test_dropout_repeats_from_a_seed_and_differs_from_call_to_call() -> None:
    device, layer, x = CPU.autodiff(), DropoutConfig(0.5).init(), np.ones((8, 8))
    device.seed(3)
    first, second = (layer.forward(tensor(x, device)).numpy() for _ in range(2))
    device.seed(3)
    np.testing.assert_array_equal(layer.forward(tensor(x, device)).numpy(), first)
    assert not np.array_equal(first, second)


def test_the_gradient_of_dropout_is_its_mask() -> None:
    device = CPU.autodiff()
    x = tensor(np.ones(50), device).require_grad()
    out = DropoutConfig(0.5).init().forward(x)
    np.testing.assert_array_equal(out.sum().backward()[x].numpy(), out.numpy())


# --- initialisers ------------------------------------------------------------------------------------------------------
UNIFORM = [
    (KaimingUniform(), 1 / math.sqrt(200)), (KaimingUniform(gain=math.sqrt(2)), math.sqrt(6 / 200)),
    (KaimingUniform(fan_out_only=True), 1 / math.sqrt(300)), (XavierUniform(), math.sqrt(6 / 500)),
    (Uniform(low=-0.3, high=0.3), 0.3),
]  # fmt: skip
NORMAL = [
    (KaimingNormal(), math.sqrt(2 / 200)), (KaimingNormal(gain=1.0, fan_out_only=True), math.sqrt(1 / 300)),
    (XavierNormal(), math.sqrt(2 / 500)), (Normal(std=0.02), 0.02),
]  # fmt: skip


@pytest.mark.parametrize(("initializer", "bound"), UNIFORM, ids=lambda v: str(v)[:30])
def test_a_uniform_initialiser_fills_its_range(initializer: Any, bound: float) -> None:
    w = LinearConfig(200, 300).with_initializer(initializer).init(CPU).weight.value.numpy()
    assert np.abs(w).max() <= bound * (1 + 1e-6) and np.abs(w).max() > 0.99 * bound
    assert w.mean() == pytest.approx(0, abs=0.02 * bound) and w.std() == pytest.approx(bound / math.sqrt(3), rel=0.02)


@pytest.mark.parametrize(("initializer", "std"), NORMAL, ids=lambda v: str(v)[:30])
def test_a_normal_initialiser_has_its_deviation(initializer: Any, std: float) -> None:
    w = LinearConfig(200, 300).with_initializer(initializer).init(CPU).weight.value.numpy()
    assert w.std() == pytest.approx(std, rel=0.02) and w.mean() == pytest.approx(0, abs=0.03 * std)


def test_layers_start_as_pytorchs_do() -> None:
    conv = Conv2dConfig([8, 64], [3, 3]).init(CPU)
    assert conv.bias is not None
    for p in (conv.weight, conv.bias):
        largest = float(np.abs(p.value.numpy()).max())
        assert 0.9 / math.sqrt(72) < largest <= 1 / math.sqrt(72)
    grouped = Conv2dConfig([8, 64], [3, 3]).with_groups(4).init(CPU).weight.value.numpy()
    assert 0.95 / math.sqrt(18) < np.abs(grouped).max() <= 1 / math.sqrt(18)
    assert set(LinearConfig(2, 2).with_initializer(Constant(0.5)).init(CPU).weight.value.numpy().ravel()) == {0.5}


def test_a_seed_fixes_a_layers_parameters() -> None:
    def draw() -> list[Any]:
        CPU.seed(4)
        return [t.tolist() for t in LinearConfig(3, 2).init(CPU).state().values()]

    assert draw() == draw()


# --- losses ------------------------------------------------------------------------------------------------------------
def cross_entropy(logits: np.ndarray, targets: np.ndarray, smoothing: float) -> np.ndarray:
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    wanted = np.full(logits.shape, smoothing / logits.shape[1])
    wanted[np.arange(len(targets)), targets] += 1 - smoothing
    return -(wanted * log_p).sum(axis=1)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_its_formula_and_its_gradient_softmax_less_the_target(
    smoothing: float, reduction: Any
) -> None:
    logits, targets = given(6, 4) * 3, np.array([0, 3, 1, 1, 2, 0])
    loss = CrossEntropyLossConfig(smoothing=smoothing, reduction=reduction).init()
    x = tensor(logits, WIDE.autodiff()).require_grad()
    out = loss.forward(x, tensor(targets, WIDE.autodiff()))
    rows = cross_entropy(logits, targets, smoothing)
    np.testing.assert_allclose(out.numpy(), {"mean": rows.mean(), "sum": rows.sum(), "none": rows}[reduction])
    soft = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    want = soft - ((1 - smoothing) * np.eye(4)[targets] + smoothing / 4)
    np.testing.assert_allclose(out.sum().backward()[x].numpy(), want / (6 if reduction == "mean" else 1), atol=1e-12)


@pytest.mark.parametrize("device", [CPU, WIDE], ids=["f32", "f64"])
def test_cross_entropy_is_stable_for_large_logits(device: Device) -> None:
    loss = CrossEntropyLossConfig().with_reduction("none").init()
    x = tensor([[1e4, -1e4], [1e4, -1e4], [-1e4, -1e4]], device.autodiff()).require_grad()
    out = loss.forward(x, tensor([0, 1, 0], device.autodiff()))
    assert out.tolist() == pytest.approx([0, 2e4, math.log(2)])
    assert out.sum().backward()[x].tolist() == [[0, 0], [1, -1], [-0.5, 0.5]]


def test_losses_refuse_what_does_not_fit() -> None:
    loss = CrossEntropyLossConfig().init()
    x = tensor(given(3, 4), CPU)
    with pytest.raises(ShapeError, match="cross_entropy: expected a target for each of 3 rows, got 2"):
        loss.forward(x, tensor([0, 1], CPU))
    with pytest.raises(KindError, match=r"forward\(targets\): expected a Tensor\[1, Int\], got a Float"):
        loss.forward(x, tensor([0.0, 1, 2], CPU))
    with pytest.raises(ShapeError, match="mse: expected equal shapes"):
        MseLossConfig().init().forward(x, x[0])
    # A class that is not there reads NaN on every backend, as a GPU cannot raise.
    for outside in (4, -1):
        assert math.isnan(loss.forward(x, tensor([0, 1, outside], CPU)).item())


def test_mse_is_the_mean_of_squares() -> None:
    a, b = given(3, 4), given(3, 4, seed=1)
    x, y = tensor(a, WIDE), tensor(b, WIDE)
    found: Tensor = MseLossConfig().init().forward(x, y)
    assert found.item() == pytest.approx(((a - b) ** 2).mean()) and found.shape == ()
    assert MseLossConfig(reduction="sum").init().forward(x, y).item() == pytest.approx(((a - b) ** 2).sum())
    assert MseLossConfig(reduction="none").init().forward(x, y).shape == (3, 4)
    assert tensor([1, 2], CPU).kind is Int
