"""The WGSL bodies of convolutions and pools, each by itself, trusted and checked, against NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.shader_bench import Out, run
from wgpu_nn import Device
from wgpu_nn.backends import numpy_routines as reference
from wgpu_nn.backends import numpy_windows
from wgpu_nn.gpu import Gpu

pytestmark = pytest.mark.usefixtures("trust")


@pytest.fixture
def gpu(gpu_device: Device) -> Gpu:
    return gpu_device.gpu


def given(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


WINDOWS = [
    ((2, 4, 6, 5), (6, 2, 3, 2), (1, 1), ((0, 0), (0, 0)), (1, 1), 2),
    ((1, 3, 7, 7), (10, 3, 2, 3), (2, 1), ((1, 0), (2, 1)), (1, 2), 1),
    ((2, 2, 11, 9), (3, 2, 3, 1), (2, 3), ((1, 2), (0, 1)), (3, 1), 1),
    ((1, 2, 3, 6), (3, 2, 1, 2), (1, 1), ((0, 0), (0, 0)), (1, 1), 1),
]


def window_of(
    kernel: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int] | None = None, **more: int | bool
) -> dict[str, int | bool]:
    pairs = {"KERNEL": kernel, "STRIDE": stride, **({"DILATION": dilation} if dilation else {})}
    return {
        "WORKGROUP": 8,
        **{f"{n}_{a}": v for n, pair in pairs.items() for a, v in zip("HW", pair, strict=True)},
        **more,
    }


@pytest.mark.parametrize("row", WINDOWS, ids=["groups", "padded", "upright", "flat"])
@pytest.mark.parametrize("file", ["conv2d", "conv2d_pixel", "conv2d_input_grad"])
def test_convolutions_sum_over_their_windows(file: str, row: Any, gpu: Gpu) -> None:
    shape, weight, stride, padding, dilation, groups = row
    (n, c, h, w), (o, ci, kh, kw) = shape, weight
    oh, ow = (
        (size + sum(p) - d * (k - 1) - 1) // s + 1
        for size, p, d, k, s in zip((h, w), padding, dilation, (kh, kw), stride, strict=True)
    )
    x, taps, g, bias = given(*shape), given(*weight, seed=1), given(n, o, oh, ow, seed=2), given(o, seed=3)
    options: Any = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    blocks = -(-(o // groups) // 8)
    sizes = {
        "height": h, "width": w, "out_h": oh, "out_w": ow, "out_hw": oh * ow,
        "pad_top": padding[0][0], "pad_left": padding[1][0],
        "in_channels": c, "out_channels": o, "group_in": ci, "group_out": o // groups, "group_blocks": blocks,
    }  # fmt: skip
    constants = window_of((kh, kw), stride, dilation, PADDED=padding != ((0, 0), (0, 0)))
    if file in ("conv2d", "conv2d_pixel"):
        text = """fn weight_row(o: u32) -> u32 { return o * group_in() * KERNEL_H * KERNEL_W; }
        fn weight_tap(c: u32, ky: u32, kx: u32) -> u32 { return (c * KERNEL_H + ky) * KERNEL_W + kx; }
        fn initial(o: u32) -> f32 { return bias[o]; }"""
        more = {"pixels": n * oh * ow, "blocks": blocks * groups}
        out = run(
            gpu,
            file,
            {"source": x, "weight": taps, "bias": bias, "out": Out((n, o, oh, ow))},
            (9, 20, 1),
            constants=constants,
            sizes={**sizes, **more},
            text=text,
        )
        want = numpy_windows.convolution(x.astype(np.float64), taps, bias, **options)
    else:
        out = run(
            gpu,
            file,
            {"source": g, "weight": taps, "out": Out(shape)},
            (13, 5, 1),
            constants={**constants, "STEP_H": stride[0], "STEP_W": stride[1]},  # coprime to the dilations
            sizes={**sizes, "items": x.size},
        )
        want = numpy_windows.input_grad(g.astype(np.float64), taps, shape=shape, **options)
    np.testing.assert_allclose(out, want, rtol=1e-5, atol=2e-5)


POOLS = [
    ((2, 3, 6, 7), (2, 2), (2, 2), ((0, 0), (0, 0))),
    ((1, 2, 5, 5), (3, 2), (1, 2), ((1, 1), (1, 0))),
    ((2, 2, 5, 6), (1, 3), (2, 1), ((0, 0), (1, 1))),
]


@pytest.mark.parametrize("row", POOLS, ids=["plain", "padded", "flat"])
@pytest.mark.parametrize("file", ["max_pool2d", "max_pool2d_grad", "avg_pool2d", "avg_pool2d_grad"])
def test_pools_fold_their_windows_and_spread_them_again(file: str, row: Any, gpu: Gpu) -> None:
    shape, kernel, stride, padding = row
    x = given(*shape)
    options: Any = {"kernel": kernel, "stride": stride, "padding": padding}
    places = reference.argmax_pool2d(x, **options).astype(np.int32)
    g = given(*places.shape, seed=1)
    sizes = {
        "height": shape[2],
        "width": shape[3],
        "out_h": places.shape[2],
        "out_w": places.shape[3],
        "pad_top": padding[0][0],
        "pad_left": padding[1][0],
    }
    for include in (True, False) if file.startswith("avg") else (True,):
        constants = window_of(kernel, stride, INCLUDE_PAD=include)
        if file == "max_pool2d":
            text = "fn store(i: u32, best: f32, place: u32) { out[i] = best + 100.0 * f32(place); }"
            out = run(
                gpu,
                file,
                {"source": x, "out": Out(places.shape)},
                (9, 2, 1),
                constants=constants,
                sizes={**sizes, "items": g.size},
                text=text,
            )
            want = reference.max_pool2d(x, **options) + 100 * places.astype(np.float32)
        elif file == "max_pool2d_grad":
            out = run(
                gpu,
                file,
                {"source": g, "positions": places, "out": Out(shape)},
                (16, 2, 1),
                constants=constants,
                sizes={**sizes, "items": x.size},
            )
            want = reference.max_pool2d_grad(g, places, shape=shape, **options)
        elif file == "avg_pool2d":
            out = run(
                gpu,
                file,
                {"source": x, "out": Out(places.shape)},
                (9, 2, 1),
                constants=constants,
                sizes={**sizes, "items": g.size},
            )
            want = reference.avg_pool2d(x, **options, include_pad=include)
        else:
            out = run(
                gpu,
                file,
                {"source": g, "out": Out(shape)},
                (16, 2, 1),
                constants=constants,
                sizes={**sizes, "items": x.size},
            )
            want = reference.avg_pool2d_grad(g, shape=shape, **options, include_pad=include)
        np.testing.assert_allclose(out, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (7, 6)], ids=str)
@pytest.mark.parametrize("file", ["adaptive_avg_pool2d", "adaptive_avg_pool2d_grad"])
def test_adaptive_pools_average_bins_and_spread_them_again(file: str, size: tuple[int, int], gpu: Gpu) -> None:
    shape = (2, 1, 5, 4)
    sizes = {"height": 5, "width": 4, "out_h": size[0], "out_w": size[1]}
    if file == "adaptive_avg_pool2d":
        x = given(*shape)
        out = run(
            gpu,
            file,
            {"source": x, "out": Out((2, 1, *size))},
            (4, 4, 1),
            constants={"WORKGROUP": 8},
            sizes={**sizes, "items": 2 * size[0] * size[1]},
        )
        want = reference.adaptive_avg_pool2d(x, size=size)
    else:
        g = given(2, 1, *size)
        out = run(
            gpu, file, {"source": g, "out": Out(shape)}, 5, constants={"WORKGROUP": 8}, sizes={**sizes, "items": 40}
        )
        want = reference.adaptive_avg_pool2d_grad(g, shape=shape)
    np.testing.assert_allclose(out, want, rtol=1e-5, atol=1e-6)
