"""Convolutions and their transposes over one, two and three axes against their sums in NumPy, and against PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from wgpu_nn import Device, tensor
from wgpu_nn.errors import ConfigError, ShapeError
from wgpu_nn.nn import (
    Conv1d,
    Conv1dConfig,
    Conv2d,
    Conv2dConfig,
    Conv3d,
    Conv3dConfig,
    ConvTranspose1d,
    ConvTranspose1dConfig,
    ConvTranspose2d,
    ConvTranspose2dConfig,
    ConvTranspose3d,
    ConvTranspose3dConfig,
)

WIDE = Device("numpy:f64")
CPU = Device("numpy")
CONVS: dict[int, Any] = {1: Conv1dConfig, 2: Conv2dConfig, 3: Conv3dConfig}
TRANSPOSES: dict[int, Any] = {1: ConvTranspose1dConfig, 2: ConvTranspose2dConfig, 3: ConvTranspose3dConfig}
Layer = Conv1d | Conv2d | Conv3d | ConvTranspose1d | ConvTranspose2d | ConvTranspose3d


def given(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def per_axis(value: Any, axes: int) -> tuple[Any, ...]:
    return (value,) if axes == 1 else value


def settings(layer: Layer, axes: int) -> tuple[Any, Any, Any, Any]:
    stride, dilation = per_axis(layer.stride, axes), per_axis(layer.dilation, axes)
    return stride, per_axis(layer.padding, axes), dilation, layer.groups


def correlated(x: np.ndarray, w: np.ndarray, stride: Any, padding: Any, dilation: Any, groups: int) -> np.ndarray:
    """out[n, o, p] = sum over c and k of x[n, c, p stride + k dilation - pad] w[o, c, k]."""
    x = np.pad(x, ((0, 0), (0, 0), *padding))
    into, kernel = w.shape[1], w.shape[2:]
    spans = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    counts = [(n - span) // s + 1 for n, span, s in zip(x.shape[2:], spans, stride, strict=True)]
    out = np.zeros((x.shape[0], w.shape[0], *counts))
    for o in range(w.shape[0]):
        first = o // (w.shape[0] // groups) * into
        for p in np.ndindex(*counts):
            at = [slice(i * s, i * s + span, d) for i, s, span, d in zip(p, stride, spans, dilation, strict=True)]
            seen = x[(slice(None), slice(first, first + into), *at)]
            out[(slice(None), o, *p)] = (seen * w[o]).sum(axis=tuple(range(1, x.ndim)))
    return out


def spread(
    x: np.ndarray, w: np.ndarray, stride: Any, padding: Any, dilation: Any, groups: int, extra: Any
) -> np.ndarray:
    """Each x[n, c, p] adds x w[c, o, k] to out[n, o, p stride + k dilation - pad]."""
    into, kernel = x.shape[1], w.shape[2:]
    sizes = [
        (n - 1) * s + d * (k - 1) + 1 + more
        for n, s, d, k, more in zip(x.shape[2:], stride, dilation, kernel, extra, strict=True)
    ]
    out = np.zeros((x.shape[0], w.shape[1] * groups, *sizes))
    for c in range(into):
        first = c // (into // groups) * w.shape[1]
        for p in np.ndindex(*x.shape[2:]):
            for k in np.ndindex(*kernel):
                at = [i * s + j * d for i, s, j, d in zip(p, stride, k, dilation, strict=True)]
                add = x[(slice(None), c, *p)][:, None] * w[(c, slice(None), *k)][None, :]
                out[(slice(None), slice(first, first + w.shape[1]), *at)] += add
    kept = (slice(a, n - b) for n, (a, b) in zip(sizes, padding, strict=True))
    return out[(slice(None), slice(None), *kept)]


def biased(out: np.ndarray, layer: Layer) -> np.ndarray:
    return out if layer.bias is None else out + layer.bias.value.numpy().reshape(-1, *(1,) * (out.ndim - 2))


SHAPE = {1: (2, 4, 9), 2: (2, 4, 7, 6), 3: (1, 4, 5, 6, 4)}
KERNEL = {1: 3, 2: (3, 2), 3: (2, 3, 1)}
OPTIONS: list[tuple[int, dict[str, Any]]] = [
    *((axes, more) for axes in (1, 2, 3) for more in ({}, {"groups": 2}, {"padding": "same"}, {"bias": False})),
    (1, {"stride": 2, "padding": 1}),
    (1, {"stride": 5, "padding": (2, 0), "dilation": 3}),
    (1, {"padding": "same", "dilation": 4}),
    (1, {"groups": 4, "dilation": 2, "padding": (0, 3)}),
    (2, {"stride": (2, 1), "padding": ((1, 0), (0, 2)), "dilation": (2, 1), "groups": 2}),
    (2, {"padding": (1, 2), "dilation": (1, 3), "groups": 4}),
    (3, {"stride": (1, 2, 3), "padding": (1, 0, 2), "dilation": (2, 1, 1)}),
    (3, {"stride": (3, 1, 2), "padding": ((1, 0), (0, 2), (1, 1)), "groups": 4}),
    (3, {"padding": "same", "dilation": (1, 2, 3)}),
]


@pytest.mark.parametrize(("axes", "options"), OPTIONS, ids=str)
def test_a_convolution_is_its_sum(axes: int, options: dict[str, Any]) -> None:
    layer = CONVS[axes]([4, 8], KERNEL[axes], **options).init(WIDE)
    x = given(*SHAPE[axes])
    out = layer.forward(tensor(x, WIDE)).numpy()
    want = biased(correlated(x, layer.weight.value.numpy(), *settings(layer, axes)), layer)
    np.testing.assert_allclose(out, want, atol=1e-12)
    if options.get("padding") == "same":
        assert out.shape[2:] == x.shape[2:]


@pytest.mark.parametrize(
    ("axes", "options"),
    [
        *OPTIONS,
        (1, {"stride": 3, "output_padding": 2}),
        (1, {"stride": 2, "dilation": 4, "output_padding": 3, "padding": 2}),
        (2, {"stride": (2, 3), "padding": (1, 1), "output_padding": (1, 2)}),
        (2, {"dilation": (3, 2), "output_padding": (2, 1), "groups": 2}),
        (3, {"stride": (2, 1, 3), "padding": (1, 0, 0), "output_padding": (1, 0, 2), "groups": 2}),
    ],
    ids=str,
)
def test_a_transposed_convolution_spreads_each_element(axes: int, options: dict[str, Any]) -> None:
    layer = TRANSPOSES[axes]([4, 8], KERNEL[axes], **options).init(WIDE)
    x = given(*SHAPE[axes])
    out = layer.forward(tensor(x, WIDE)).numpy()
    extra = per_axis(layer.output_padding, axes)
    want = biased(spread(x, layer.weight.value.numpy(), *settings(layer, axes), extra), layer)
    np.testing.assert_allclose(out, want, atol=1e-12)
    if options.get("padding") == "same":
        assert out.shape[2:] == x.shape[2:]


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("transposed", [False, True], ids=["plain", "transposed"])
def test_the_edges_of_what_fits(axes: int, transposed: bool) -> None:
    configs = TRANSPOSES if transposed else CONVS
    each = lambda n: n if axes == 1 else (n,) * axes
    rows = [
        ((2, 3, *(2,) * axes), {"padding": each(2)}, 5),  # a kernel larger than the input
        ((2, 3, *(7,) * axes), {"stride": each(4)}, 2),  # a stride larger than the kernel
        ((2, 3, *(1,) * axes), {}, 1),
        ((0, 3, *(4,) * axes), {}, 3),
    ]
    for shape, options, kernel in rows:
        layer = configs[axes]([3, 5], each(kernel), **options).init(WIDE)
        x = given(*shape)
        w, more = layer.weight.value.numpy(), settings(layer, axes)
        want = biased(spread(x, w, *more, (0,) * axes) if transposed else correlated(x, w, *more), layer)
        np.testing.assert_allclose(layer.forward(tensor(x, WIDE)).numpy(), want, atol=1e-12)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_a_transposed_convolution_is_the_gradient_of_a_convolution(axes: int) -> None:
    each = lambda n: n if axes == 1 else (n,) * axes
    conv = CONVS[axes]([3, 2], each(3), stride=each(2), padding=each(1), bias=False).init(WIDE.autodiff())
    back = TRANSPOSES[axes]([2, 3], each(3), stride=each(2), padding=each(1), output_padding=each(1), bias=False)
    layer = back.init(WIDE)
    layer.weight.value = conv.weight.value.inner()
    x = tensor(given(2, 3, *(6,) * axes), WIDE.autodiff()).require_grad()
    out = conv.forward(x)
    g = given(*out.shape, seed=1)
    grads = (out * tensor(g, WIDE.autodiff())).sum().backward()
    np.testing.assert_allclose(layer.forward(tensor(g, WIDE)).numpy(), grads[x].numpy(), atol=1e-12)


TORCH: list[tuple[int, dict[str, Any]]] = [
    (1, {"stride": 2, "padding": 1, "dilation": 2, "groups": 2}),
    (2, {"stride": (2, 3), "padding": (1, 0), "dilation": (2, 1), "groups": 4}),
    (3, {"stride": (2, 1, 2), "padding": (0, 1, 1), "dilation": (1, 2, 1), "groups": 2}),
]


@pytest.mark.parametrize("transposed", [False, True], ids=["plain", "transposed"])
@pytest.mark.parametrize(("axes", "options"), TORCH, ids=str)
def test_layers_and_their_gradients_are_pytorchs(axes: int, options: dict[str, Any], transposed: bool) -> None:
    torch = pytest.importorskip("torch")
    device = WIDE.autodiff()
    more = {"output_padding": 1 if axes == 1 else (1, 0, 1)[:axes]} if transposed else {}
    layer = (TRANSPOSES if transposed else CONVS)[axes]([4, 8], KERNEL[axes], **options, **more).init(device)
    name = f"Conv{'Transpose' * transposed}{axes}d"
    peer = getattr(torch.nn, name)(4, 8, KERNEL[axes], **options, **more).double()
    with torch.no_grad():
        peer.weight.copy_(torch.from_numpy(layer.weight.value.numpy()))
        peer.bias.copy_(torch.from_numpy(layer.bias.value.numpy()))
    x = given(*SHAPE[axes])
    mine = tensor(x, device).require_grad()
    theirs = torch.from_numpy(x).requires_grad_()
    out, want = layer.forward(mine), peer(theirs)
    np.testing.assert_allclose(out.numpy(), want.detach().numpy(), atol=1e-12)
    g = given(*out.shape, seed=1)
    grads = (out * tensor(g, device)).sum().backward()
    want.backward(torch.from_numpy(g))
    for got, other in ((mine, theirs), (layer.weight.value, peer.weight), (layer.bias.value, peer.bias)):
        np.testing.assert_allclose(grads[got].numpy(), other.grad.numpy(), atol=1e-11)


def test_layers_start_as_pytorchs_do() -> None:
    for config, fan in (
        (Conv1dConfig([8, 64], 5), 40),
        (Conv3dConfig([8, 64], [3, 3, 1]), 72),
        (ConvTranspose2dConfig([64, 8], [3, 3]), 72),
        (ConvTranspose1dConfig([64, 32], 5).with_groups(4), 40),
    ):
        layer = config.init(CPU)
        for p in (layer.weight, layer.bias):
            assert p is not None
            largest = float(np.abs(p.value.numpy()).max())
            assert 0.8 / fan**0.5 < largest <= 1 / fan**0.5


def test_layers_print_their_settings_and_configs_come_back_from_json() -> None:
    layer = ConvTranspose2dConfig([4, 6], [3, 3], stride=(2, 2), output_padding=(1, 0), groups=2).init(CPU)
    assert layer.extra() == (
        "4 -> 6, kernel=[3, 3], stride=[2, 2], padding=[[0, 0], [0, 0]], output_padding=[1, 0], groups=2"
    )
    assert Conv1dConfig([4, 6], 3, dilation=2).init(CPU).extra() == (
        "4 -> 6, kernel=3, stride=1, padding=[0, 0], dilation=2"
    )
    assert "kernel=[1, 2, 3]" in str(Conv3dConfig([1, 2], [1, 2, 3]).init(CPU))
    for config in (
        Conv1dConfig([1, 2], 3, padding=(1, 2)), Conv1dConfig([1, 2], 3, padding=1), Conv1dConfig([1, 2], 3, padding="same"),
        Conv3dConfig([1, 2], [1, 2, 3], padding=((0, 1), (0, 0), (2, 3))), ConvTranspose3dConfig([1, 2], [1, 2, 3]),
    ):  # fmt: skip
        assert type(config).from_json(config.to_json()) == config


def test_what_makes_no_sense_is_refused() -> None:
    for config, message in (
        (Conv1dConfig([3, 4], 3).with_groups(2), "Conv1dConfig: expected .* channels divisible by 2 groups"),
        (Conv3dConfig([1, 4], [3, 0, 3]), "Conv3dConfig: expected sizes of 1 or more"),
        (Conv2dConfig([1, 4], [3, 3]).with_padding((-1, 0)), "padding: expected sizes of 0 or more"),
        (Conv1dConfig([1, 4], 3, stride=2, padding="same"), 'Conv1dConfig.padding: "same" expects a stride of 1'),
        (ConvTranspose2dConfig([1, 4], [3, 3], output_padding=(1, 0)), r"output_padding: .* got \(1, 0\) for stride \(1, 1\)"),
        (ConvTranspose1dConfig([1, 4], 3, stride=2, output_padding=2), "less than the stride or the dilation"),
        (ConvTranspose3dConfig([1, 4], [3, 3, 3], output_padding=(0, 0, -1)), "expected 0 or more"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=message):
            config.init(CPU)
    with pytest.raises(ShapeError, match=r"conv1d: expected 3 channels on axis 1, got an input \[1, 2, 5\]"):
        Conv1dConfig([3, 4], 3).init(CPU).forward(tensor(np.zeros((1, 2, 5)), CPU))
    with pytest.raises(ShapeError, match=r"conv_transpose2d: expected 3 channels on axis 1"):
        ConvTranspose2dConfig([3, 4], [3, 3]).init(CPU).forward(tensor(np.zeros((1, 4, 5, 5)), CPU))
    with pytest.raises(ShapeError, match=r"conv_transpose2d: expected a result of sizes of 1 or more, got \[-2, 2\]"):
        ConvTranspose2dConfig([3, 4], [2, 2], padding=(2, 0)).init(CPU).forward(tensor(np.zeros((1, 3, 1, 1)), CPU))
    with pytest.raises(ShapeError, match="conv3d: expected 1 x 1 groups = 1 input channels"):
        Conv3dConfig([1, 4], [1, 1, 1]).init(CPU).forward(tensor(np.zeros((1, 2, 2, 2, 2)), CPU))
    with pytest.raises(ShapeError, match="conv2d_input_grad: expected an input"):
        g, w = tensor(np.zeros((1, 2, 9, 9)), CPU), tensor(np.zeros((2, 1, 3, 3)), CPU)
        window = {"stride": (1, 1), "padding": ((0, 0), (0, 0)), "dilation": (1, 1), "groups": 1}
        g.run("conv2d_input_grad", g, w, shape=(1, 1, 5, 5), **window)
