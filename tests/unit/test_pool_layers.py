"""Pooling layers over one axis, by adaptive bins, and with paddings of every spelling, against their formulas in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from wgpu_nn import Device, tensor
from wgpu_nn.errors import ConfigError, ShapeError
from wgpu_nn.nn import (
    AdaptiveAvgPool1dConfig,
    AdaptiveMaxPool1dConfig,
    AdaptiveMaxPool2dConfig,
    AvgPool1dConfig,
    AvgPool2dConfig,
    MaxPool1dConfig,
    MaxPool2dConfig,
)

WIDE = Device("numpy:f64")


def given(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape)


def windows(x: np.ndarray, k: int, stride: int, pads: tuple[int, int], fill: float) -> np.ndarray:
    padded = np.pad(x, ((0, 0), (0, 0), pads), constant_values=fill)
    return np.lib.stride_tricks.sliding_window_view(padded, k, axis=2)[:, :, ::stride]


@pytest.mark.parametrize(
    ("options", "stride", "pads"),
    [
        ({}, 3, (0, 0)),
        ({"stride": 2}, 2, (0, 0)),
        ({"stride": 1, "padding": "same"}, 1, (1, 1)),
        ({"stride": 5, "padding": 1}, 5, (1, 1)),
        ({"padding": (0, 1)}, 3, (0, 1)),
    ],
    ids=str,
)
def test_pools_along_one_axis_are_the_maxima_and_means_of_windows(
    options: dict[str, Any], stride: int, pads: tuple[int, int]
) -> None:
    x = given(2, 3, 11)
    layers: list[tuple[Any, Any, float]] = [
        (MaxPool1dConfig(3, **options), np.max, -np.inf),
        (AvgPool1dConfig(3, **options), np.mean, 0.0),
        (AvgPool1dConfig(3, **options, count_include_pad=False), np.nanmean, np.nan),
    ]
    for config, fold, fill in layers:
        out = config.init().forward(tensor(x, WIDE)).numpy()
        np.testing.assert_allclose(out, fold(windows(x, 3, stride, pads, fill), axis=3), atol=1e-15)


def test_a_plane_may_be_padded_by_different_sizes_on_each_side() -> None:
    x = given(1, 2, 5, 4)
    padded = np.pad(x, ((0, 0), (0, 0), (0, 1), (1, 0)), constant_values=-np.inf)
    want = np.lib.stride_tricks.sliding_window_view(padded, (2, 3), axis=(2, 3))[:, :, ::2, ::1].max(axis=(4, 5))
    config = MaxPool2dConfig([2, 3], strides=(2, 1), padding=((0, 1), (1, 0)))
    np.testing.assert_array_equal(config.init().forward(tensor(x, WIDE)).numpy(), want)
    same = AvgPool2dConfig([3, 2], strides=(1, 1), padding="same").init()
    assert same.padding == ((1, 1), (0, 1)) and same.forward(tensor(x, WIDE)).shape == x.shape
    assert "padding=((1, 1), (0, 1))" in same.extra()


BINS = [(11, 1), (11, 11), (12, 4), (11, 4), (3, 7), (1, 2)]


@pytest.mark.parametrize(("n", "bins"), BINS)
def test_adaptive_pools_fold_bins_along_one_axis(n: int, bins: int) -> None:
    x = given(2, 3, n)
    edges = [(i * n // bins, -(-(i + 1) * n // bins)) for i in range(bins)]
    for config, fold in ((AdaptiveAvgPool1dConfig(bins), np.mean), (AdaptiveMaxPool1dConfig(bins), np.max)):
        want = np.stack([fold(x[:, :, a:b], axis=2) for a, b in edges], axis=2)
        np.testing.assert_allclose(config.init().forward(tensor(x, WIDE)).numpy(), want, atol=1e-15)


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (6, 5), (4, 3), (8, 7)])
def test_adaptive_maxima_of_a_plane_and_their_gradient(size: tuple[int, int]) -> None:
    x = given(2, 3, 6, 5)
    bins = [[(i * n // s, -(-(i + 1) * n // s)) for i in range(s)] for n, s in zip((6, 5), size, strict=True)]
    device = WIDE.autodiff()
    t = tensor(x, device).require_grad()
    out = AdaptiveMaxPool2dConfig(list(size)).init().forward(t)
    g = np.random.default_rng(1).standard_normal(out.shape)
    grad = np.zeros_like(x)
    for (y, (a, b)), (z, (c, d)) in ((r, q) for r in enumerate(bins[0]) for q in enumerate(bins[1])):
        seen = x[:, :, a:b, c:d].reshape(2, 3, -1)
        np.testing.assert_array_equal(out.numpy()[:, :, y, z], seen.max(axis=2))
        for n, k in np.ndindex(2, 3):
            row, column = divmod(int(seen[n, k].argmax()), d - c)
            grad[n, k, a + row, c + column] += g[n, k, y, z]
    np.testing.assert_allclose((out * tensor(g, device)).sum().backward()[t].numpy(), grad, atol=1e-15)


def test_equal_maxima_share_the_gradient_also_where_bins_are_filled_up() -> None:
    device = WIDE.autodiff()
    x = tensor(np.ones((1, 1, 5)), device).require_grad()
    out = AdaptiveMaxPool1dConfig(2).init().forward(x)  # bins of 3 that share the middle
    np.testing.assert_allclose(out.sum().backward()[x].numpy().sum(), 2)


def test_pools_that_make_no_sense_are_refused() -> None:
    x = tensor(given(1, 1, 6), WIDE)
    with pytest.raises(ShapeError, match="padding of half the window at most"):
        MaxPool1dConfig(2, padding=(2, 0)).init().forward(x)
    with pytest.raises(ShapeError, match="window of 7 does not fit in 6 elements"):
        AvgPool1dConfig(7).init().forward(x)
    with pytest.raises(ConfigError, match=r'MaxPool1dConfig.padding: "same" expects a stride of 1'):
        MaxPool1dConfig(2, padding="same").init()
    with pytest.raises(ConfigError, match="AvgPool1dConfig: expected sizes of 1 or more"):
        AvgPool1dConfig(3, stride=0).init()
    with pytest.raises(ShapeError, match="expected sizes of 1 or more"):
        AdaptiveMaxPool1dConfig(0).init().forward(x)


def test_pools_are_pytorchs() -> None:
    torch = pytest.importorskip("torch")
    x = given(2, 3, 13)
    t = torch.from_numpy(x)
    for config, peer in (
        (MaxPool1dConfig(3, stride=2, padding=1), torch.nn.MaxPool1d(3, 2, 1)),
        (AvgPool1dConfig(4, padding=2), torch.nn.AvgPool1d(4, padding=2)),
        (
            AvgPool1dConfig(4, padding=2, count_include_pad=False),
            torch.nn.AvgPool1d(4, padding=2, count_include_pad=False),
        ),
        (AdaptiveAvgPool1dConfig(5), torch.nn.AdaptiveAvgPool1d(5)),
        (AdaptiveMaxPool1dConfig(5), torch.nn.AdaptiveMaxPool1d(5)),
    ):
        np.testing.assert_allclose(config.init().forward(tensor(x, WIDE)).numpy(), peer(t).numpy(), atol=1e-15)
