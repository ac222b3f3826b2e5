"""Interpolation, pixel shuffles and folds against their formulas in NumPy, and against PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from wgpu_nn import Device, tensor
from wgpu_nn.errors import ConfigError, ShapeError
from wgpu_nn.nn import (
    Fold4dConfig,
    Interpolate1dConfig,
    Interpolate2dConfig,
    PixelShuffleConfig,
    PixelUnshuffleConfig,
    Unfold4dConfig,
)

WIDE = Device("numpy:f64")


def given(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.mark.parametrize("align", [False, True], ids=["centres", "corners"])
@pytest.mark.parametrize("size", [1, 3, 7, 12, 20])
def test_linear_interpolation_is_a_weighted_mean_of_two_neighbours(size: int, align: bool) -> None:
    x, n = given(2, 3, 7), 7
    layer = Interpolate1dConfig(output_size=size, mode="linear", align_corners=align).init()
    out = layer.forward(tensor(x, WIDE)).numpy()
    for i in range(size):
        at = i * (n - 1) / max(size - 1, 1) if align else min(max((i + 0.5) * n / size - 0.5, 0), n - 1)
        low = min(int(at), n - 1)
        want = x[:, :, low] * (1 - (at - low)) + x[:, :, min(low + 1, n - 1)] * (at - low)
        np.testing.assert_allclose(out[:, :, i], want, atol=1e-14)


def test_the_nearest_element_of_a_sample_is_that_of_its_start() -> None:
    x = given(1, 2, 5, 4)
    out = Interpolate2dConfig(output_size=(7, 3)).init().forward(tensor(x, WIDE)).numpy()
    rows, columns = [i * 5 // 7 for i in range(7)], [i * 4 // 3 for i in range(3)]
    np.testing.assert_array_equal(out, x[:, :, rows][:, :, :, columns])
    twice = Interpolate2dConfig(scale_factor=(2.0, 2.0)).init().forward(tensor(x, WIDE)).numpy()
    np.testing.assert_array_equal(twice, x.repeat(2, axis=2).repeat(2, axis=3))


@pytest.mark.parametrize(
    "options",
    [
        {"output_size": (9, 3)}, {"scale_factor": (1.7, 0.6)}, {"scale_factor": (2.0, 3.0)},
        {"output_size": (9, 3), "mode": "linear"}, {"scale_factor": (1.7, 0.6), "mode": "linear"},
        {"output_size": (9, 1), "mode": "linear", "align_corners": True},
        {"scale_factor": (2.5, 1.0), "mode": "linear", "align_corners": True},
    ],
    ids=str,
)  # fmt: skip
def test_interpolation_and_its_gradient_are_pytorchs(options: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    x, device = given(2, 3, 6, 5), WIDE.autodiff()
    mine, theirs = tensor(x, device).require_grad(), torch.from_numpy(x).requires_grad_()
    out = Interpolate2dConfig(**options).init().forward(mine)
    linear = options.get("mode") == "linear"
    want = torch.nn.functional.interpolate(
        theirs, options.get("output_size"), options.get("scale_factor"), "bilinear" if linear else "nearest",
        options.get("align_corners", False) if linear else None,
    )  # fmt: skip
    np.testing.assert_allclose(out.numpy(), want.detach().numpy(), atol=1e-12)
    g = given(*out.shape, seed=1)
    want.backward(torch.from_numpy(g))
    found = (out * tensor(g, device)).sum().backward()[mine]
    np.testing.assert_allclose(found.numpy(), theirs.grad.numpy(), atol=1e-12)


def test_pixels_are_shuffled_and_back() -> None:
    x = given(2, 12, 3, 5)
    out = PixelShuffleConfig(2).init().forward(tensor(x, WIDE))
    want = np.zeros((2, 3, 6, 10))
    for i, j in np.ndindex(2, 2):
        want[:, :, i::2, j::2] = x[:, 2 * i + j :: 4]
    np.testing.assert_array_equal(out.numpy(), want)
    np.testing.assert_array_equal(PixelUnshuffleConfig(2).init().forward(out).numpy(), x)


FOLDS: list[dict[str, Any]] = [
    {},
    {"stride": (2, 1), "padding": (1, 2)},
    {"dilation": (2, 3), "padding": (0, 1), "stride": (1, 2)},
]


def unfolded(x: np.ndarray, options: dict[str, Any]) -> np.ndarray:
    (sh, sw), (dh, dw), (top, left) = (
        options.get(k, d) for k, d in (("stride", (1, 1)), ("dilation", (1, 1)), ("padding", (0, 0)))
    )
    x = np.pad(x, ((0, 0), (0, 0), (top, top), (left, left)))
    oh, ow = (x.shape[2] - 2 * dh - 1) // sh + 1, (x.shape[3] - dw - 1) // sw + 1
    columns = [
        x[:, :, y * sh : y * sh + 2 * dh + 1 : dh, z * sw : z * sw + dw + 1 : dw].reshape(x.shape[0], -1)
        for y in range(oh)
        for z in range(ow)
    ]
    return np.stack(columns, axis=2)


@pytest.mark.parametrize("options", FOLDS, ids=str)
def test_unfold_lays_windows_out_and_fold_is_its_transpose(options: dict[str, Any]) -> None:
    x, device = given(2, 3, 7, 8), WIDE.autodiff()
    t = tensor(x, device).require_grad()
    out = Unfold4dConfig([3, 2], **options).init().forward(t)
    np.testing.assert_array_equal(out.numpy(), unfolded(x, options))
    g = given(*out.shape, seed=1)
    back = Fold4dConfig([7, 8], [3, 2], **options).init().forward(tensor(g, WIDE)).numpy()
    np.testing.assert_allclose((back * x).sum(), (g * out.numpy()).sum())  # <fold g, x> = <g, unfold x>
    np.testing.assert_allclose((out * tensor(g, device)).sum().backward()[t].numpy(), back, atol=1e-12)


def test_resampling_that_makes_no_sense_is_refused() -> None:
    x = tensor(given(1, 3, 4, 5), WIDE)
    for make in (
        lambda: Interpolate1dConfig().init(),
        lambda: Interpolate2dConfig(output_size=(2, 2), scale_factor=(1.0, 1.0)).init(),
    ):
        with pytest.raises(ConfigError, match="expected either output_size or scale_factor"):
            make()
    with pytest.raises(ConfigError, match="expected a factor of 1 or more"):
        PixelShuffleConfig(0).init()
    with pytest.raises(ConfigError, match="Unfold4dConfig: expected sizes of 1 or more"):
        Unfold4dConfig([0, 2]).init()
    refused: list[tuple[Any, str]] = [
        (Interpolate2dConfig(scale_factor=(0.1, 1.0)).init(), "interpolate2d: expected sizes of 1 or more"),
        (PixelShuffleConfig(2).init(), r"pixel_shuffle: expected channels divisible by 2\^2"),
        (PixelUnshuffleConfig(2).init(), "pixel_unshuffle: expected a height and a width divisible by 2"),
        (Unfold4dConfig([5, 2]).init(), "unfold4d: window of 5 does not fit in 4 elements"),
    ]
    for layer, message in refused:
        with pytest.raises(ShapeError, match=message):
            layer.forward(x)
    with pytest.raises(ShapeError, match=r"fold4d: expected \[batch, channels x 4, 12\]"):
        Fold4dConfig([4, 5], [2, 2]).init().forward(x[0])
