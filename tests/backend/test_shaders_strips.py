"""The WGSL bodies of 3-d convolutions and of those of few channels a group, each by itself, against NumPy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from tests.cases_conv import counts, slices_of, window
from tests.shader_bench import Out, run
from wgpu_nn import Device
from wgpu_nn.backends import numpy_windows
from wgpu_nn.gpu import Gpu

pytestmark = pytest.mark.usefixtures("trust")


@pytest.fixture
def gpu(gpu_device: Device) -> Gpu:
    return gpu_device.gpu


def given(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def constants_of(ways: Sequence[str], kernel: Any, given: dict[str, Any], **more: Any) -> dict[str, int | bool]:
    rows = {"KERNEL": kernel, "STRIDE": given["stride"], "DILATION": given["dilation"]}
    steps = [s // math.gcd(s, d) for s, d in zip(given["stride"], given["dilation"], strict=True)]
    found = {f"{n}_{w}": v for n, row in {**rows, "STEP": steps}.items() for w, v in zip(ways, row, strict=True)}
    return {"WORKGROUP": 2, "PADDED": any(map(any, given["padding"])), **found, **more}


VOLUMES = {
    "groups": ((2, 4, 3, 4, 3), (6, 2, 2, 3, 1), window(3, groups=2)),
    "padded": (
        (1, 11, 4, 3, 5),
        (10, 11, 2, 1, 3),
        window(3, stride=(2, 1, 3), padding=((1, 0), (0, 1), (2, 1)), dilation=(1, 2, 1)),
    ),
    "apart": ((1, 2, 5, 6, 7), (4, 1, 2, 2, 2), window(3, groups=2, stride=(1, 2, 3), dilation=(3, 1, 2))),
    "flat": ((1, 2, 2, 3, 4), (3, 2, 1, 2, 2), window(3, padding=((0, 0), (1, 1), (0, 0)))),
    "two blocks a group": ((2, 32, 2, 3, 3), (32, 16, 2, 1, 2), window(3, groups=2, padding=((1, 1), (0, 0), (0, 1)))),
    "one pixel": ((1, 1, 1, 1, 1), (2, 1, 2, 2, 2), window(3, padding=((1, 1), (1, 1), (1, 1)))),
}
FILES = ["conv3d", "conv3d_input_grad", "conv3d_weight_grad"]


@pytest.mark.parametrize("row", VOLUMES)
@pytest.mark.parametrize("file", FILES)
def test_volumes_sum_over_their_windows(file: str, row: str, gpu: Gpu) -> None:
    convolve(gpu, file, *VOLUMES[row])


@pytest.mark.parametrize("file", FILES)
def test_volumes_of_any_number_of_channels_end_where_these_do(file: str, gpu: Gpu) -> None:
    for n in range(1, 10):
        convolve(gpu, file, (2, 2 * n, 2, 1, 6), (2 * n, n, 1, 1, 3), window(3, groups=2))


def convolve(gpu: Gpu, file: str, shape: tuple[int, ...], weight: tuple[int, ...], options: dict[str, Any]) -> None:
    sizes, kernel, groups = shape[2:], weight[2:], options["groups"]
    found = counts(sizes, kernel, options)
    n, c, o, into = shape[0], shape[1], weight[0], weight[1]
    x, taps, g, bias = given(*shape), given(*weight, seed=1), given(n, o, *found, seed=2), given(o, seed=3)
    constants = constants_of("DHW", kernel, options, SUMS=True)
    names = dict(zip(("depth", "height", "width", "out_d", "out_h", "out_w"), (*sizes, *found), strict=True))
    pads = dict(zip(("pad_front", "pad_top", "pad_left"), (a for a, _ in options["padding"]), strict=True))
    common = {**names, **pads, "in_channels": c, "out_channels": o, "group_in": into, "group_out": o // groups}
    if file == "conv3d":
        blocks = -(-(o // groups) // 8)
        text = """fn weight_row(o: u32) -> u32 { return o * group_in() * KERNEL_D * KERNEL_H * KERNEL_W; }
        fn weight_tap(c: u32, z: u32, y: u32, x: u32) -> u32 { return ((c * KERNEL_D + z) * KERNEL_H + y) * KERNEL_W + x; }
        fn initial(o: u32) -> f32 { return bias[o]; }"""
        more = {"pixels": n * math.prod(found), "out_dhw": math.prod(found), "blocks": blocks * groups}
        buffers: Any = {"source": x, "weight": taps, "bias": bias, "out": Out((n, o, *found))}
        sized = {**common, **more, "group_blocks": blocks}
        out = run(
            gpu, file, buffers, -(-more["pixels"] // 16) * more["blocks"], constants=constants, sizes=sized, text=text
        )
        want = numpy_windows.convolution(x.astype(np.float64), taps, bias, **options)
    elif file == "conv3d_input_grad":
        blocks = -(-into // 8)
        more = {"items": n * blocks * groups * math.prod(sizes), "blocks": blocks * groups, "group_blocks": blocks}
        buffers = {"source": g, "weight": taps, "out": Out(shape)}
        out = run(gpu, file, buffers, -(-more["items"] // 2), constants=constants, sizes={**common, **more})
        want = numpy_windows.input_grad(g.astype(np.float64), taps, shape=shape, **options)
    else:
        columns, blocks, rows, per_slice = into * math.prod(kernel), -(-(o // groups) // 8), n * found[0] * found[1], 3
        slices, size = -(-rows // per_slice), taps.size
        more = {
            "items": slices * -(-columns // 8) * blocks * groups, "rows_per_slice": per_slice, "rows": rows,
            "slice_size": size + o, "sums_start": size, "group_blocks": blocks, "columns": columns,
            "column_blocks": -(-columns // 8),
        }  # fmt: skip
        buffers = {"source": x, "grad": g, "out": Out((slices, size + o))}
        tiles = -(-more["items"] // 2)
        both = run(gpu, file, buffers, tiles, constants=constants, sizes={**common, **more})
        if weight in (VOLUMES["groups"][1], VOLUMES["flat"][1]):
            without = {**constants, "SUMS": False}
            alone = run(gpu, file, buffers, tiles, constants=without, sizes={**common, **more})
            np.testing.assert_array_equal(alone[:, :size], both[:, :size])
            assert (alone[:, size:] == -77).all()
        shares = slices_of(g, 1, per_slice)
        np.testing.assert_allclose(both[:, size:], [s.sum(axis=(0, 2, 3, 4)) for s in shares], rtol=1e-5, atol=2e-5)
        out = both[:, :size].reshape(-1, *weight)
        want = [numpy_windows.weight_grad(x.astype(np.float64), s, shape=weight, **options) for s in shares]
    np.testing.assert_allclose(out, np.asarray(want), rtol=1e-5, atol=4e-5)


PLANES = [
    ((2, 3, 9, 11), (6, 1, 3, 5), window(2, groups=3, padding=((1, 1), (2, 1)))),  # slides
    ((1, 4, 12, 19), (2, 2, 2, 3), window(2, groups=2, stride=(2, 1), dilation=(1, 3), padding=((0, 1), (0, 0)))),
    ((2, 1, 4, 30), (2, 1, 1, 16), window(2, padding=((0, 0), (5, 5)))),
    ((2, 2, 11, 9), (2, 2, 3, 1), window(2, stride=(1, 2), dilation=(2, 1))),
    ((1, 1, 1, 1), (2, 1, 2, 2), window(2, padding=((1, 1), (1, 1)))),
]


@pytest.mark.parametrize("upright", [True, False], ids=["upright", "along rows"])
@pytest.mark.parametrize("row", PLANES, ids=["slides", "jumps", "long", "upright", "one pixel"])
def test_strips_sum_over_their_windows_in_either_direction(row: Any, upright: bool, gpu: Gpu) -> None:
    shape, weight, options = row
    found = counts(shape[2:], weight[2:], options)
    n, c, o, into = shape[0], shape[1], weight[0], weight[1]
    x, taps, bias = given(*shape), given(*weight, seed=1), given(o, seed=3)
    a, b = (0, 1) if upright else (1, 0)
    turned = {**options, **{k: (options[k][a], options[k][b]) for k in ("stride", "dilation")}}
    kernel = (weight[2 + a], weight[2 + b])
    constants = constants_of(("ALONG", "ACROSS"), kernel, turned)
    steps, outs, strips = (shape[3], 1), (found[1], 1), -(-found[a] // 8)
    sizes = {
        "items": n * o * strips * found[b], "strips": strips, "out_along": found[a], "out_across": found[b],
        "out_step_along": outs[a], "out_step_across": outs[b], "along": shape[2 + a], "across": shape[2 + b],
        "step_along": steps[a], "step_across": steps[b], "pad_along": options["padding"][a][0],
        "pad_across": options["padding"][b][0], "in_channels": c, "out_channels": o, "group_in": into,
        "group_out": o // options["groups"],
    }  # fmt: skip
    row_step = weight[3]
    tap = f"k * {row_step}u + j" if upright else f"j * {row_step}u + k"
    text = f"""fn weight_row(o: u32) -> u32 {{ return o * {taps[0].size}u; }}
    fn weight_tap(c: u32, k: u32, j: u32) -> u32 {{ return c * {taps[0, 0].size}u + {tap}; }}
    fn initial(o: u32) -> f32 {{ return bias[o]; }}"""
    buffers: Any = {"source": x, "weight": taps, "bias": bias, "out": Out((n, o, *found))}
    out = run(gpu, "conv2d_strip", buffers, -(-sizes["items"] // 2), constants=constants, sizes=sizes, text=text)
    want = numpy_windows.convolution(x.astype(np.float64), taps, bias, **options)
    np.testing.assert_allclose(out, want, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("sums", [False, True], ids=["weight", "weight and bias"])
@pytest.mark.parametrize("row", PLANES, ids=["slides", "jumps", "long", "upright", "one pixel"])
@pytest.mark.parametrize("shared", [False, True], ids=["rows", "shared"])
def test_filters_gradients_are_summed_in_slices(shared: bool, row: Any, sums: bool, gpu: Gpu) -> None:
    filter_gradients(gpu, shared, sums, *row)


@pytest.mark.parametrize("wide", [2, 4, 6, 7, 8])
def test_filters_of_any_width_end_where_these_do(wide: int, gpu: Gpu) -> None:
    filter_gradients(gpu, False, False, (1, 2, 3, 10), (2, 2, 2, wide), window(2, padding=((1, 0), (0, 1))))


def filter_gradients(
    gpu: Gpu, shared: bool, sums: bool, shape: tuple[int, ...], weight: tuple[int, ...], options: dict[str, Any]
) -> None:
    oh, ow = counts(shape[2:], weight[2:], options)
    n, c, o, into = shape[0], shape[1], weight[0], weight[1]
    x, g, size, columns = given(*shape), given(n, o, oh, ow, seed=2), math.prod(weight), math.prod(weight[1:])
    lines, per_slice = (n * oh * ow, 23) if shared else (n * oh * 2, 3)
    slices, unit = -(-lines // per_slice), "pixels" if shared else "parts"
    tiles = o * (-(-columns // 12) if shared else into * weight[2] * -(-weight[3] // 8))
    sizes = {
        "parts_per_row": 2, "part_size": -(-ow // 2),
        "items": slices * tiles, f"{unit}_per_slice": per_slice, unit: lines, "slice_size": size + o, "sums_start": size,
        "height": shape[2], "width": shape[3], "out_h": oh, "out_w": ow, "pad_top": options["padding"][0][0],
        "pad_left": options["padding"][1][0], "in_channels": c, "out_channels": o, "group_in": into,
        "group_out": o // options["groups"], "columns": columns, "column_blocks": -(-columns // 12),
    }  # fmt: skip
    constants = constants_of("HW", weight[2:], options, SUMS=sums, WORKGROUP=16 if shared else 2)
    file = "conv2d_filter_grad_shared" if shared else "conv2d_filter_grad"
    buffers: Any = {"source": x, "grad": g, "out": Out((slices, size + o))}
    groups = slices * tiles if shared else -(-slices * tiles // 2)
    out = run(gpu, file, buffers, groups, constants=constants, sizes=sizes)
    shares = slices_of(g, ow if shared else 2, per_slice)
    want = [numpy_windows.weight_grad(x.astype(np.float64), s, shape=weight, **options) for s in shares]
    np.testing.assert_allclose(out[:, :size].reshape(-1, *weight), want, rtol=1e-5, atol=3e-5)
    if sums:
        np.testing.assert_allclose(out[:, size:], [s.sum(axis=(0, 2, 3)) for s in shares], rtol=1e-5, atol=3e-5)
    else:
        assert (out[:, size:] == -77).all()
