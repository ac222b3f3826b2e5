"""Convolutions by minimal filtering: against NumPy in double precision, each body by itself, and when they are chosen."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.plans import TARGETS, Plans
from tests.shader_bench import Out, run
from wgpu_nn import Device, switches, tensor
from wgpu_nn.dtype import F32
from wgpu_nn.kernels import winograd
from wgpu_nn.kernels.winograd import COLLECT, SPREAD
from wgpu_nn.train.capture import capture

# Sums of at most 9 * 6 products of numbers below 4, each with an error of a few units of 2^-24 of its terms.
CLOSE: dict[str, Any] = {"rtol": 1e-5, "atol": 4e-5}
B = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]])
G = np.array([[2, 0, 0], [1, 1, 1], [1, -1, 1], [0, 0, 2]]) / 2
A = np.array([[1, 0], [1, 1], [1, -1], [0, -1]])


def given(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.fixture
def any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let convolutions of few channels and pixels be computed so as well."""
    monkeypatch.setattr(winograd, "CHANNELS", 1)
    monkeypatch.setattr(winograd, "TILES", 1)


def learned(device: Device, arrays: list[np.ndarray], padding: Any, captured: bool) -> list[np.ndarray]:
    """Return a convolution followed by a ReLU, and its gradients, for a cotangent that is the same each time."""
    device = device.autodiff()
    attrs = {"stride": (1, 1), "padding": padding, "dilation": (1, 1), "groups": 1}

    def step(*xs: Any) -> tuple[Any, ...]:
        leaves = [x.require_grad() for x in xs]
        found = leaves[0].run("conv2d", *leaves, **attrs).relu()
        grads = (found * tensor(given(*found.shape, seed=9), device)).sum().backward()
        return (found.inner(), *(grads[x] for x in leaves))

    operands = [tensor(x, device) for x in arrays]
    return [x.numpy() for x in (capture(step) if captured else step)(*operands)]


ROWS = [
    ((2, 3, 7, 9), 5, ((1, 1), (1, 1))),
    ((1, 4, 4, 4), 2, ((0, 0), (0, 0))),
    ((3, 2, 1, 5), 2, ((1, 1), (1, 1))),
    ((2, 6, 12, 10), 3, ((2, 1), (0, 1))),
    ((1, 1, 3, 3), 1, ((0, 0), (0, 0))),
]


@pytest.mark.usefixtures("any_size")
@pytest.mark.parametrize("captured", [False, True], ids=["eager", "captured"])
@pytest.mark.parametrize(("shape", "filters", "padding"), ROWS, ids=str)
def test_it_equals_a_direct_convolution_and_its_gradients(
    shape: tuple[int, ...], filters: int, padding: Any, captured: bool, fresh_variants: dict[str, Device], exact: Device
) -> None:
    arrays = [given(*shape), given(filters, shape[1], 3, 3, seed=1), given(filters, seed=2)]
    got = learned(fresh_variants["gpu"], arrays, padding, captured)
    for x, want in zip(got, learned(exact, arrays, padding, False), strict=True):
        np.testing.assert_allclose(x, want, **CLOSE)


def test_wide_convolutions_with_many_pixels_are_computed_so_and_others_are_not() -> None:
    def kernels(channels: int, side: int, kernel: int = 3, stride: int = 1, name: str = "gpu") -> set[str]:
        plans = Plans(TARGETS[name])
        x, w = (plans.empty(s, F32) for s in ((4, channels, side, side), (channels, channels, kernel, kernel)))
        pads = ((kernel // 2,) * 2,) * 2
        plans.run("conv2d", [x, w], {"stride": (stride,) * 2, "padding": pads, "dilation": (1, 1), "groups": 1})
        return {k.source for k, _, _ in plans.launches}

    assert "winograd_spread.wgsl" in kernels(64, 32)
    others = [
        kernels(32, 64),
        kernels(64, 8),
        kernels(64, 32, 5),
        kernels(64, 32, 3, 2),
        kernels(64, 32, name="software"),
    ]
    assert not any("winograd_spread.wgsl" in names for names in others)
    with switches.winograd.set(False):
        assert "winograd_spread.wgsl" not in kernels(64, 32)


@pytest.mark.usefixtures("trust")
@pytest.mark.parametrize(("role", "matrix"), [("input", B), ("filter", G), ("grad", A)], ids=str)
def test_a_tile_is_spread_by_rows_and_columns(role: str, matrix: np.ndarray, gpu_device: Device) -> None:
    tiles = given(12, 4, 4)
    n = matrix.shape[1]
    tiles[:, n:] = tiles[:, :, n:] = 0
    text = f"""fn load(i: u32) -> mat4x4f {{ return mat4x4f(x[4u * i], x[4u * i + 1u], x[4u * i + 2u], x[4u * i + 3u]); }}
    fn spread(m: mat4x4f) -> mat4x4f {{ {SPREAD[role]} }}"""
    buffers = {"x": tiles, "out": Out((16, 12))}
    options: dict[str, Any] = {"constants": {"WORKGROUP": 2}, "sizes": {"items": 12}, "elements": {"x": "vec4f"}}
    out = run(gpu_device.gpu, "winograd_spread", buffers, 6, text=text, **options)
    want = matrix @ tiles[:, :n, :n].astype(np.float64) @ matrix.T
    np.testing.assert_allclose(out.T.reshape(12, 4, 4), want, rtol=1e-6, atol=2e-6)


@pytest.mark.usefixtures("trust")
@pytest.mark.parametrize(("role", "matrix"), [("output", A.T), ("filter", G.T)], ids=str)
def test_a_tile_is_collected_by_rows_and_columns(role: str, matrix: np.ndarray, gpu_device: Device) -> None:
    tiles = given(16, 12)
    text = f"""fn store(i: u32, v: mat4x4f) {{ for (var y = 0u; y < 4u; y++) {{ out[4u * i + y] = v[y]; }} }}
    fn collect(m: mat4x4f) -> mat4x4f {{ {COLLECT[role]} }}"""
    buffers = {"source": tiles, "out": Out((12, 4, 4), element="vec4f")}
    options: dict[str, Any] = {"constants": {"WORKGROUP": 2}, "sizes": {"items": 12}}
    out = run(gpu_device.gpu, "winograd_collect", buffers, 6, text=text, **options)
    n = matrix.shape[0]
    want = matrix @ tiles.T.reshape(12, 4, 4).astype(np.float64) @ matrix.T
    np.testing.assert_allclose(out[:, :n, :n], want, rtol=1e-6, atol=4e-6)
    assert not out[:, n:].any() and not out[:, :, n:].any()
