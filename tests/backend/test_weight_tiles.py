"""Weight gradients of few channels on the kernels of GPUs: each shape of tile, by itself and through the planner, against
NumPy in double precision."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest

from tests.cases_conv import counts, window
from tests.null.test_shader_texts import code_of
from tests.plans import TARGETS, Plans
from tests.shader_bench import Out, needs, run
from wgpu_nn import Device, tensor
from wgpu_nn.backends import numpy_windows
from wgpu_nn.dtype import Float
from wgpu_nn.gpu import PARAMS_WORDS, Gpu
from wgpu_nn.kernels import Target, weight_run, weight_tile
from wgpu_nn.kernels.weight_tile import THREADS, WRITER, WeightTile, run_weight_tiles, weight_tile_body
from wgpu_nn.ops import DEFAULT_DTYPES
from wgpu_nn.shape import size

# x, weight and window: what a tile can be.
ROWS: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "one image, 3 x 3, one channel": ((1, 1, 9, 7), (8, 1, 3, 3), {}),
    "strips that end within, 5 channels of two teams": ((7, 5, 8, 6), (16, 5, 3, 3), {}),
    "many turns, three teams": ((41, 3, 12, 13), (8, 3, 3, 3), {}),
    "many turns, one team": ((67, 1, 11, 13), (8, 1, 3, 3), {"padding": ((1, 0), (1, 1))}),
    "an output lower than a strip": ((13, 3, 4, 9), (5, 3, 3, 3), {}),
    "an output of one pixel": ((5, 2, 3, 2), (3, 2, 3, 2), {}),
    "padding on two sides, a stride": ((3, 4, 10, 11), (11, 4, 3, 3), {"stride": (2, 1), "padding": ((0, 2), (1, 0))}),
    "padding around a tiny image": ((11, 1, 1, 2), (4, 1, 3, 3), {"padding": ((1, 1), (1, 1))}),
    "padding wider than the window": ((2, 1, 2, 2), (9, 1, 1, 1), {"padding": ((3, 1), (0, 4))}),
    "dilation": ((2, 2, 12, 13), (6, 2, 3, 2), {"dilation": (2, 3)}),
    "dilation, stride and padding": (
        (3, 2, 13, 12), (3, 2, 2, 3), {"dilation": (3, 2), "stride": (2, 3), "padding": ((2, 0), (0, 3))},
    ),
    "strides beyond the window": ((2, 3, 17, 15), (8, 3, 2, 2), {"stride": (4, 3)}),
    "groups of outputs that a tile does not divide": ((2, 6, 7, 8), (22, 3, 3, 3), {"groups": 2}),
    "groups, padded": ((3, 4, 6, 5), (12, 1, 3, 3), {"groups": 4, "padding": ((1, 1), (1, 1))}),
    "1 x 1, several channels an invocation": ((5, 11, 5, 7), (9, 11, 1, 1), {}),
    "1 x 1 with a stride": ((3, 21, 6, 5), (4, 21, 1, 1), {"stride": (2, 2)}),
    "2 x 2, two channels an invocation": ((2, 5, 6, 7), (8, 5, 2, 2), {}),
    "5 x 5 in parts of rows": ((2, 2, 11, 9), (8, 2, 5, 5), {"padding": ((2, 2), (2, 2))}),
    "4 x 5 in parts that are whole": ((2, 1, 9, 8), (8, 1, 4, 5), {}),
    "6 x 5 in whole parts, dilated": ((2, 3, 15, 9), (8, 3, 6, 5), {"dilation": (2, 1), "stride": (1, 2)}),
    "1 x 13 in parts of columns": ((2, 3, 4, 19), (8, 3, 1, 13), {"dilation": (1, 1)}),
    "2 x 23 in parts of both": ((1, 1, 5, 29), (6, 1, 2, 23), {"padding": ((1, 0), (0, 2)), "stride": (1, 2)}),
}  # fmt: skip


@pytest.fixture
def several_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let small shapes have two slices, and so the larger of them several turns a slice."""
    monkeypatch.setattr(weight_tile, "ALONE", 0)
    monkeypatch.setattr(weight_tile, "SLICES", 2)


class Launches(Plans):
    """A site that also keeps what distinguishes each kernel."""

    def __init__(self) -> None:
        super().__init__(TARGETS["gpu"])
        self.keys: list[tuple[Any, tuple[int, ...], Any]] = []

    def launch(self, template: Any, key: Any, words: Any, views: Any, grid: Any) -> None:
        super().launch(template, key, words, views, grid)
        self.keys.append((key, words, grid))


def planned(x: tuple[int, ...], g: tuple[int, ...], shape: tuple[int, ...], options: Any, sums: bool) -> Launches:
    """Plan a weight gradient, and that of the bias behind it."""
    site = Launches()
    dtype = DEFAULT_DTYPES[Float]
    both = site.empty((size(shape) + shape[0],), dtype)
    out = site.empty(shape, dtype)
    run_weight_tiles(
        site, site.empty(x, dtype), site.empty(g, dtype), out, options, both if sums else None, size(shape)
    )
    return site


def exactly(x: np.ndarray, g: np.ndarray, shape: tuple[int, ...], options: Any) -> np.ndarray:
    return numpy_windows.weight_grad(x.astype(np.float64), g.astype(np.float64), shape=shape, **options)


def close(got: np.ndarray, want: np.ndarray) -> None:
    # Sums of up to 10,000 products of numbers near 1, in f32, each in parts of at most 100.
    np.testing.assert_allclose(got, want, 1e-5, 5e-5)


@pytest.mark.usefixtures("several_slices")
@pytest.mark.parametrize("sums", [False, True], ids=["weight", "weight and bias"])
@pytest.mark.parametrize("name", ROWS)
def test_a_tile_sums_over_its_slice(
    name: str, sums: bool, gpu_device: Device, rng: np.random.Generator, trust: str
) -> None:
    x_shape, shape, more = ROWS[name]
    options = window(2, **more)
    g_shape = (x_shape[0], shape[0], *counts(x_shape[2:], shape[2:], options))
    x, g = (rng.standard_normal(s).astype(np.float32) for s in (x_shape, g_shape))
    tile, words, grid = planned(x_shape, g_shape, shape, options, sums).keys[0]
    assert isinstance(tile, WeightTile) and tile.threads <= THREADS and tile.sums == sums
    slices, per_slice = grid[0] // words[1], size(shape) + (shape[0] if sums else 0)
    gpu: Gpu = gpu_device.gpu
    sizes = dict(zip(weight_tile._WORDS, words, strict=True))  # pyright: ignore[reportPrivateUsage]
    buffers = {"source": x, "grad": g, "out": Out((slices, per_slice))}
    out = run(gpu, WRITER, buffers, math.prod(grid), sizes=sizes, written=weight_tile_body(tile))
    close(out[:, : size(shape)].sum(0).reshape(shape), exactly(x, g, shape, options))
    if sums:
        close(out[:, size(shape) :].sum(0), g.astype(np.float64).sum((0, 2, 3)))


@pytest.mark.usefixtures("several_slices")
@pytest.mark.parametrize("name", ROWS)
def test_planned_gradients_agree_with_float64(
    name: str, fresh_variants: dict[str, Device], rng: np.random.Generator
) -> None:
    x_shape, shape, more = ROWS[name]
    options = window(2, **more)
    g_shape = (x_shape[0], shape[0], *counts(x_shape[2:], shape[2:], options))
    x, g = (rng.standard_normal(s).astype(np.float32) for s in (x_shape, g_shape))
    ours = [tensor(v, fresh_variants["gpu"]) for v in (x, g)]
    got = [ours[1].run("conv2d_weight_grad", *ours, shape=shape, **options).numpy() for _ in range(2)]
    close(got[0], exactly(x, g, shape, options))
    np.testing.assert_array_equal(got[0], got[1])


@pytest.mark.usefixtures("several_slices")
@pytest.mark.parametrize("padded", [False, True], ids=["plain", "padded"])
def test_what_no_window_covers_does_not_matter_and_what_one_does_stays_where_it_is(
    padded: bool, fresh_variants: dict[str, Device], rng: np.random.Generator, trust: str
) -> None:
    # Rows and columns between strides are in no window; an output of 5 rows ends within its second strip.
    options = window(2, stride=(3, 3), padding=((1, 1), (1, 1)) if padded else ((0, 0), (0, 0)))
    x = rng.standard_normal((3, 2, 14, 14)).astype(np.float32)
    first = 1 if padded else 2  # of the rows, and columns, that windows of 2 step over
    x[:, :, first::3] = np.nan
    x[:, :, :, first::3] = np.inf
    g_shape = (3, 6, *counts(x.shape[2:], (2, 2), options))
    g = rng.standard_normal(g_shape).astype(np.float32)
    device = fresh_variants["gpu"]
    run_one = tensor(g, device).run
    want = exactly(x, g, (6, 2, 2, 2), options)
    assert g_shape[2] == 5 and np.isfinite(want).all()
    close(
        run_one("conv2d_weight_grad", tensor(x, device), tensor(g, device), shape=(6, 2, 2, 2), **options).numpy(), want
    )


@pytest.mark.usefixtures("several_slices")
def test_a_nan_of_the_last_input_row_reaches_only_the_taps_that_see_it(
    fresh_variants: dict[str, Device], rng: np.random.Generator, trust: str
) -> None:
    # 5 rows of outputs are a strip and a quarter: those that are missing must not multiply the row by 0.
    x, g = rng.standard_normal((2, 1, 7, 6)).astype(np.float32), rng.standard_normal((2, 8, 5, 4)).astype(np.float32)
    x[1, 0, 6, 2] = np.nan
    device, options = fresh_variants["gpu"], window(2)
    ours = [tensor(v, device) for v in (x, g)]
    got = ours[0].run("conv2d_weight_grad", *ours, shape=(8, 1, 3, 3), **options).numpy()
    want = exactly(x, g, (8, 1, 3, 3), options)
    assert np.isnan(want[:, :, 2]).all() and np.isfinite(want[:, :, :2]).all()
    close(got, want)


@pytest.mark.usefixtures("several_slices")
def test_a_tile_asks_its_header_for_just_what_it_uses() -> None:
    for name, (x, shape, more) in ROWS.items():
        options = window(2, **more)
        g = (x[0], shape[0], *counts(x[2:], shape[2:], options))
        for sums in (False, True):
            tile, words, _ = planned(x, g, shape, options, sums).keys[0]
            text = weight_tile_body(tile)
            asked, code = needs(WRITER, text), code_of(text)
            given = weight_tile._WORDS  # pyright: ignore[reportPrivateUsage]
            assert sorted(asked) == sorted(w for w in given if re.search(rf"\b{w}\(\)", code)), name
            assert len(words) == len(given) <= PARAMS_WORDS and len(asked) == len(set(asked))


def test_new_batches_and_images_compile_nothing_and_slices_follow_the_shape_alone() -> None:
    keys: set[Any] = set()
    for n, side in ((1, 12), (64, 30), (1000, 26)):
        sites = [
            planned((n, 8, side, side), (n, 16, side - 2, side - 2), (16, 8, 3, 3), window(2), True) for _ in range(2)
        ]
        assert sites[0].launches == sites[1].launches
        keys |= {sites[0].keys[0][0]}
    assert len(keys) == 1


def test_many_channels_spread_over_workgroups_and_few_pixels_over_few() -> None:
    def groups(n: int, channels: tuple[int, int], side: int) -> tuple[int, int]:
        x, g = (n, channels[0], side, side), (n, channels[1], side - 2, side - 2)
        _, words, grid = planned(x, g, (channels[1], channels[0], 3, 3), window(2), True).keys[0]
        assert math.prod(grid) == words[0]
        return words[0], words[0] // words[1]

    assert 1000 <= groups(1024, (8, 16), 26)[0] <= 2000
    assert 256 <= groups(1024, (1, 8), 28)[0] <= 512
    assert groups(1, (1, 8), 5) == (1, 1)


def test_what_one_slice_does_in_a_few_turns_is_one_launch() -> None:
    few, more = (planned((n, 1, 18, 18), (n, 8, 16, 16), (8, 1, 3, 3), window(2), True) for n in (8, 9))
    assert len(few.launches) == 1 and few.keys[0][2] == (1, 1, 1)
    assert len(more.launches) == 2 and more.keys[0][2] == (5, 1, 1)


def test_adapters_with_too_little_do_without_workgroup_memory() -> None:
    texts: dict[tuple[int, int], str] = {}
    for limits in ((256, 16384), (64, 16384), (256, 8192)):
        plans = Plans(Target(software=False, invocations=limits[0], storage=limits[1]))
        operands = [plans.empty(s, DEFAULT_DTYPES[Float]) for s in ((4, 8, 9, 9), (4, 16, 7, 7))]
        plans.run("conv2d_weight_grad", operands, {"shape": (16, 8, 3, 3), **window(2)})
        texts[limits] = plans.launches[0][0].source
    assert texts == {
        (256, 16384): WRITER,
        (64, 16384): weight_run.WRITER,
        (256, 8192): weight_run.WRITER,
    }
