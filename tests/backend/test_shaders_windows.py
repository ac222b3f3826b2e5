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


WINDOWS = {
    "groups": ((2, 4, 6, 5), (6, 2, 3, 2), (1, 1), ((0, 0), (0, 0)), (1, 1), 2),
    "padded": ((1, 3, 7, 7), (10, 3, 2, 3), (2, 1), ((1, 0), (2, 1)), (1, 2), 1),
    "upright": ((2, 2, 11, 9), (3, 2, 3, 1), (3, 2), ((1, 2), (0, 1)), (2, 1), 1),
    "flat": ((1, 2, 3, 6), (3, 2, 1, 2), (1, 1), ((0, 0), (0, 0)), (1, 1), 1),
    "two blocks a group": ((2, 4, 5, 4), (32, 2, 2, 2), (1, 1), ((0, 0), (1, 1)), (1, 1), 2),
    "one pixel": ((1, 1, 1, 1), (2, 1, 2, 2), (1, 1), ((1, 1), (1, 1)), (1, 1), 1),
}
# More channels than have their weights in memory at a time, and a window that is too large for those of one.
PIXELS = {
    "deep": ((1, 8, 6, 8), (3, 8, 5, 7), (1, 1), ((0, 0), (0, 0)), (1, 1), 1),
    "long": ((1, 2, 2, 131), (2, 2, 1, 130), (1, 1), ((0, 0), (0, 0)), (1, 1), 1),
}


def window_of(
    kernel: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int] | None = None, **more: int | bool
) -> dict[str, int | bool]:
    pairs = {"KERNEL": kernel, "STRIDE": stride, **({"DILATION": dilation} if dilation else {})}
    return {
        "WORKGROUP": 2,
        **{f"{n}_{a}": v for n, pair in pairs.items() for a, v in zip("HW", pair, strict=True)},
        **more,
    }


FILES = ["conv2d", "conv2d_pixel", "conv2d_input_grad"]


@pytest.mark.parametrize("row", WINDOWS)
@pytest.mark.parametrize("file", FILES)
def test_convolutions_sum_over_their_windows(file: str, row: str, gpu: Gpu) -> None:
    convolve(gpu, file, *WINDOWS[row])


@pytest.mark.parametrize("row", PIXELS)
def test_a_pixel_is_summed_over_more_weights_than_are_in_memory_at_a_time(row: str, gpu: Gpu) -> None:
    convolve(gpu, "conv2d_pixel", *PIXELS[row])


@pytest.mark.parametrize("file", FILES)
def test_convolutions_of_any_number_of_channels_end_where_these_do(file: str, gpu: Gpu) -> None:
    for n in range(1, 10):
        convolve(gpu, file, (2, 2 * n, 2, 7), (2 * n, n, 1, 3), (1, 1), ((0, 0), (1, 0)), (1, 1), 2)


def convolve(
    gpu: Gpu,
    file: str,
    shape: tuple[int, ...],
    weight: tuple[int, ...],
    stride: tuple[int, int],
    padding: tuple[tuple[int, int], tuple[int, int]],
    dilation: tuple[int, int],
    groups: int,
) -> None:
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
        of_group = 16 if file == "conv2d" else 2
        out = run(
            gpu,
            file,
            {"source": x, "weight": taps, "bias": bias, "out": Out((n, o, oh, ow))},
            -(-more["pixels"] // of_group) * more["blocks"],
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
            -(-x.size // 2),
            constants={**constants, "STEP_H": stride[0], "STEP_W": stride[1]},  # coprime to the dilations
            sizes={**sizes, "items": x.size},
        )
        want = numpy_windows.input_grad(g.astype(np.float64), taps, shape=shape, **options)
    np.testing.assert_allclose(out, np.asarray(want), rtol=1e-5, atol=1e-4)


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
    if file == "max_pool2d_grad":  # places may be anywhere, and count within their windows alone
        places = np.random.default_rng(1).integers(0, shape[2] * shape[3], places.shape, np.int32)
        inside = np.ones(places.shape, bool)
        for axis, at in enumerate(np.divmod(places, shape[3])):
            first = np.arange(places.shape[2 + axis]) * stride[axis] - padding[axis][0]
            first = first[:, None] if axis == 0 else first
            inside &= (at >= first) & (at < first + kernel[axis])
    for include in (True, False) if file.startswith("avg") else (True,):
        constants = window_of(kernel, stride, INCLUDE_PAD=include)
        if file == "max_pool2d":
            text = "fn store(i: u32, best: f32, place: u32) { out[i] = best + 100.0 * f32(place); }"
            out = run(
                gpu,
                file,
                {"source": x, "out": Out(places.shape)},
                -(-g.size // 2),
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
                -(-x.size // 2),
                constants=constants,
                sizes={**sizes, "items": x.size},
            )
            want = reference.max_pool2d_grad(g * inside, places, shape=shape, **options)
        elif file == "avg_pool2d":
            out = run(
                gpu,
                file,
                {"source": x, "out": Out(places.shape)},
                -(-g.size // 2),
                constants=constants,
                sizes={**sizes, "items": g.size},
            )
            want = reference.avg_pool2d(x, **options, include_pad=include)
        else:
            out = run(
                gpu,
                file,
                {"source": g, "out": Out(shape)},
                -(-x.size // 2),
                constants=constants,
                sizes={**sizes, "items": x.size},
            )
            want = reference.avg_pool2d_grad(g, shape=shape, **options, include_pad=include)
        np.testing.assert_allclose(out, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (4, 6), (7, 6)], ids=str)
@pytest.mark.parametrize("file", ["adaptive_avg_pool2d", "adaptive_avg_pool2d_grad"])
def test_adaptive_pools_average_bins_and_spread_them_again(file: str, size: tuple[int, int], gpu: Gpu) -> None:
    shape = (2, 1, 6, 4)
    sizes = {"height": 6, "width": 4, "out_h": size[0], "out_w": size[1]}
    x, g = given(*shape), given(2, 1, *size)
    grad = file == "adaptive_avg_pool2d_grad"
    items = x.size if grad else g.size
    buffers = {"source": g, "out": Out(shape)} if grad else {"source": x, "out": Out(g.shape)}
    out = run(gpu, file, buffers, -(-items // 4), constants={"WORKGROUP": 4}, sizes={**sizes, "items": items})
    want = reference.adaptive_avg_pool2d_grad(g, shape=shape) if grad else reference.adaptive_avg_pool2d(x, size=size)
    np.testing.assert_allclose(out, want, rtol=1e-5, atol=1e-6)
