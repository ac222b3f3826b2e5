"""Weight gradients by runs of pixels, as software adapters have them: each shape of run, by itself and through the planner,
against NumPy in double precision."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from tests.backend.test_weight_tiles import close, exactly
from tests.cases_conv import counts, window
from tests.null.test_shader_texts import code_of
from tests.plans import TARGETS, Plans
from tests.shader_bench import Out, needs, run
from wgpu_nn import Device, tensor
from wgpu_nn.backends.wgpu import Wgpu
from wgpu_nn.dtype import F32
from wgpu_nn.gpu import PARAMS_WORDS
from wgpu_nn.kernels import Target, conv_weight, weight_run
from wgpu_nn.kernels.conv_weight import run_weight_grad
from wgpu_nn.kernels.weight_run import RUNS, SUMS, WRITER, WeightRun, choose_run, weight_run_body
from wgpu_nn.shape import size

# x, weight and window: what a run can be.
ROWS: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "rows of 4, one channel": ((3, 1, 6, 6), (8, 1, 3, 3), {}),
    "rows of 7, two unequal blocks of channels": ((7, 7, 4, 9), (5, 7, 3, 3), {}),
    "rows of one pixel": ((5, 2, 3, 2), (3, 2, 3, 2), {}),
    "padding on two sides, a stride": ((3, 4, 10, 11), (11, 4, 3, 3), {"stride": (2, 1), "padding": ((0, 2), (1, 0))}),
    "padding wider than the window": ((2, 1, 2, 2), (9, 1, 1, 1), {"padding": ((3, 1), (0, 4))}),
    "dilation": ((2, 2, 12, 13), (6, 2, 3, 2), {"dilation": (2, 3)}),
    "strides beyond the window": ((2, 3, 17, 15), (8, 3, 2, 2), {"stride": (4, 3)}),
    "groups of outputs that a block does not divide": ((2, 6, 7, 8), (22, 3, 3, 3), {"groups": 2}),
    "1 x 1, several channels an invocation": ((5, 11, 5, 6), (9, 11, 1, 1), {}),
    "9 x 10 in parts of rows, dilated": (
        (2, 3, 19, 16), (5, 3, 9, 10), {"dilation": (2, 1), "stride": (1, 2), "padding": ((1, 0), (0, 2))},
    ),
    "2 x 81 in parts of both": ((1, 2, 3, 85), (4, 2, 2, 81), {}),
    "7 x 6, four outputs": ((2, 2, 8, 9), (8, 2, 7, 6), {"padding": ((1, 1), (0, 0))}),
}  # fmt: skip


@pytest.fixture(autouse=True)
def several_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let small shapes have two slices or more, all of several rows."""
    monkeypatch.setattr(weight_run, "SPREAD", 3)


class Launches(Plans):
    """A site that also keeps what distinguishes each kernel."""

    def __init__(self, tuned: bool) -> None:
        super().__init__(TARGETS["software"], tuned)
        self.keys: list[tuple[Any, tuple[int, ...], Any]] = []

    def launch(self, template: Any, key: Any, words: Any, views: Any, grid: Any) -> None:
        super().launch(template, key, words, views, grid)
        self.keys.append((key, words, grid))


def planned(name: str, sums: bool, tuned: bool = True) -> tuple[WeightRun, dict[str, int], Any]:
    """Return the kernel, the sizes and the workgroups of a row; the bias gradient lies right behind the weight's."""
    x_shape, shape, more = ROWS[name]
    options = window(2, **more)
    site = Launches(tuned)
    x, g = site.empty(x_shape, F32), site.empty(gradient(name), F32)
    both = site.empty((conv_weight.bias_place(shape) + shape[0],), F32) if sums else None
    run_weight_grad(site, "conv2d_weight_grad", [x, g], options, site.empty(shape, F32), both)
    key, words, grid = site.keys[0]
    return key, dict(zip(weight_run._WORDS, words, strict=True)), grid  # pyright: ignore[reportPrivateUsage]


def gradient(name: str) -> tuple[int, ...]:
    x_shape, shape, more = ROWS[name]
    return (x_shape[0], shape[0], *counts(x_shape[2:], shape[2:], window(2, **more)))


@pytest.mark.parametrize("name", ROWS)
def test_a_run_sums_over_its_slice(name: str, gpu_device: Device, rng: np.random.Generator, trust: str) -> None:
    x_shape, shape, more = ROWS[name]
    x, g = (rng.standard_normal(s).astype(np.float32) for s in (x_shape, gradient(name)))
    key, sizes, grid = planned(name, sums=True)
    slices, start = sizes["items"] // sizes["tiles"], sizes["sums_start"]
    buffers: Any = {"source": x, "grad": g, "out": Out((slices, sizes["slice_size"]))}
    out = run(gpu_device.gpu, WRITER, buffers, size(grid), sizes=sizes, written=weight_run_body(key))
    close(out[:, : size(shape)].sum(0).reshape(shape), exactly(x, g, shape, window(2, **more)))
    close(out[:, start:].sum(0), g.astype(np.float64).sum((0, 2, 3)))
    assert (out[:, size(shape) : start] == -77).all(), "nothing is written in between"


@pytest.mark.parametrize("name", ROWS)
def test_a_run_asks_its_header_for_just_what_it_uses(name: str) -> None:
    for sums in (False, True):
        key, sizes, _ = planned(name, sums)
        text = weight_run_body(key)
        asked, code = needs(WRITER, text), code_of(text)
        assert sorted(asked) == sorted(w for w in sizes if re.search(rf"\b{w}\(\)", code)), name
        assert key.sums == sums == ("sums_start" in asked) and len(sizes) <= PARAMS_WORDS


@pytest.mark.parametrize("name", ["rows of 7, two unequal blocks of channels", "padding on two sides, a stride"])
def test_planned_gradients_agree_with_float64(
    name: str, gpu_device: Device, gpu_variants: dict[str, Device], rng: np.random.Generator
) -> None:
    x_shape, shape, more = ROWS[name]
    options = window(2, **more)
    x, g = (rng.standard_normal(s).astype(np.float32) for s in (x_shape, gradient(name)))
    eager = Device.of(Wgpu(gpu_device.gpu, Target(software=True, invocations=256, storage=16384)))
    for device in (gpu_variants["software"], eager):
        ours = [tensor(v, device) for v in (x, g)]
        got = [ours[1].run("conv2d_weight_grad", *ours, shape=shape, **options).numpy() for _ in range(2)]
        close(got[0], exactly(x, g, shape, options))
        np.testing.assert_array_equal(got[0], got[1])


@pytest.mark.parametrize("width", [4, 5, 6, 9])
def test_a_nan_at_a_rows_end_reaches_only_the_weights_that_see_it(
    width: int, gpu_variants: dict[str, Device], rng: np.random.Generator, trust: str
) -> None:
    # Rows that runs do not divide end with single pixels: what lies beyond must not be multiplied by 0.
    x = rng.standard_normal((2, 1, 5, width + 2)).astype(np.float32)
    g = rng.standard_normal((2, 8, 3, width)).astype(np.float32)
    x[1, 0, 2, -1] = np.nan
    device, options = gpu_variants["software"], window(2)
    ours = [tensor(v, device) for v in (x, g)]
    got = ours[0].run("conv2d_weight_grad", *ours, shape=(8, 1, 3, 3), **options).numpy()
    want = exactly(x, g, (8, 1, 3, 3), options)
    assert np.isnan(want[..., 2]).all() and np.isfinite(want[..., :2]).all()
    close(got, want)


def test_captured_steps_choose_runs_that_make_up_rows_and_eager_ones_one_that_serves_all() -> None:
    def chosen(row: int | None, kernel: tuple[int, int] = (3, 3), group: tuple[int, int] = (8, 16)) -> WeightRun:
        return choose_run(kernel, (1, 1), (1, 1), group, False, True, row)

    runs = [chosen(row) for row in (24, 26, 27, 23, None)]
    assert [(r.run, r.exact) for r in runs] == [(4, True), (2, True), (3, True), (RUNS[0], False), (RUNS[0], False)]
    assert all(r.inputs == 4 and r.outputs == 8 and not r.split for r in runs)
    assert chosen(26, group=(5, 4)) == WeightRun((3, 3), (1, 1), (1, 1), (3, 3), 5, 4, 2, True, False, True)
    large = [chosen(26, kernel) for kernel in ((8, 8), (9, 10), (2, 81))]
    assert [(r.part, r.parts, r.outputs, r.inputs) for r in large] == [
        ((8, 8), (1, 1), 4, 1),
        ((5, 10), (2, 1), 4, 1),
        ((1, 41), (2, 2), 4, 1),
    ]
    assert all(r.part[0] * r.part[1] * r.outputs <= SUMS for r in large)
