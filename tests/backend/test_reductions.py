"""Reductions of every variant: lanes, slices, passes and columns, eager and in captured steps, against double precision."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from wgpu_nn import Device, Tensor, tensor
from wgpu_nn.tensor import Cell
from wgpu_nn.train import capture

# shape, axes: each takes another way through the planner on a GPU, on a software adapter, or on both.
WAYS = [
    ((3, 5), (1,)), ((40, 17), (1,)), ((7, 130), (1,)), ((5, 1031), (1,)), ((1, 9000), (1,)), ((40_003,), (0,)),
    ((5, 20_000), (1,)), ((33, 3), (0,)), ((70, 8), (0,)), ((1100, 16), (0,)), ((1030, 64), (0,)), ((300, 132), (0,)),
    ((5000, 4), (0,)), ((2, 37, 12), (1,)), ((2, 37, 5), (1,)), ((3, 4, 5, 7), (0, 2, 3)), ((3, 5, 2, 3), (0, 2, 3)),
    ((2, 3, 3000), (0, 2)), ((70, 3, 33), (0, 2)), ((4, 6, 5), (0, 2)), ((9, 11), ()), ((2, 3, 5, 7), (0, 1, 2, 3)),
]  # fmt: skip
LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "plain": lambda x: x,
    "transposed": lambda x: x.permute([*reversed(range(x.rank))]),
    "flipped": lambda x: x.flip(),
    "cut": lambda x: x[1:] if x.shape[0] > 1 else x,
}


def axes_of(x: Tensor, axes: tuple[int, ...], layout: str) -> tuple[int, ...]:
    return tuple(x.rank - 1 - a for a in axes) if layout == "transposed" else axes


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("shape", "axes"), WAYS, ids=str)
def test_folds_equal_those_in_double_precision(
    shape: tuple[int, ...], axes: tuple[int, ...], layout: str, each_way: Device, rng: np.random.Generator
) -> None:
    given = rng.standard_normal(shape).astype(np.float32)
    x = LAYOUTS[layout](tensor(given, each_way))
    at = axes_of(x, axes, layout)
    want = x.numpy().astype(np.float64)
    np.testing.assert_allclose(x.sum(at).numpy(), want.sum(at), rtol=1e-5, atol=3e-4)
    np.testing.assert_allclose(x.mean(at, keepdim=True).numpy(), want.mean(at, keepdims=True), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(x.max(at).numpy(), x.numpy().max(at))
    np.testing.assert_array_equal((x > 2.5).any(at).numpy(), (x.numpy() > 2.5).any(at))
    whole = (x * 100).int()
    np.testing.assert_array_equal(whole.sum(at).numpy(), whole.numpy().sum(at))
    if len(at) == 1:
        few = x.round()
        np.testing.assert_array_equal(few.argmax(at[0]).numpy(), few.numpy().argmax(at[0]))


@pytest.mark.parametrize(("shape", "axes"), WAYS, ids=str)
def test_captured_folds_take_maps_at_both_ends(
    shape: tuple[int, ...], axes: tuple[int, ...], each_way: Device, rng: np.random.Generator
) -> None:
    x, y = (tensor(rng.standard_normal(shape).astype(np.float32), each_way) for _ in range(2))
    last = tensor(rng.standard_normal(shape[-1:]).astype(np.float32), each_way)

    def fn(x: Tensor, y: Tensor, last: Tensor) -> list[Tensor]:
        return [
            (x * y + last).sum(axes) * 2.0 + 1.0,
            ((x - y) * last).abs().max(axes).sqrt(),
            ((x > y) & (x > 0.5)).any(axes),
            (x * 2.0).int().sum(axes),
        ]

    captured = capture(fn)
    for got, want in zip(captured(x, y, last), fn(x, y, last), strict=True):
        if want.kind.value == "Float":
            np.testing.assert_allclose(got.numpy(), want.numpy(), rtol=2e-5, atol=1e-3)
        else:
            np.testing.assert_array_equal(got.numpy(), want.numpy())
    a, b, c = (t.numpy().astype(np.float64) for t in (x, y, last))
    np.testing.assert_allclose(captured(x, y, last)[0].numpy(), (a * b + c).sum(axes) * 2 + 1, rtol=1e-5, atol=1e-3)


def test_the_same_sum_twice_has_the_same_bits(each_way: Device, rng: np.random.Generator) -> None:
    x = tensor(rng.standard_normal((3, 100_003)).astype(np.float32), each_way)
    for axes in ((1,), (0, 1), (0,)):
        np.testing.assert_array_equal(x.sum(axes).numpy(), x.sum(axes).numpy())


@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize("shape", [(3, 5), (4, 70_001)])  # the latter is folded in two launches
def test_sums_are_added_to_state_that_they_may_read_themselves(
    gpu_device: Device, fuse: bool, shape: tuple[int, int]
) -> None:
    x = np.random.default_rng(5).integers(-9, 10, shape)
    counts, scaled = Cell(tensor(np.zeros(shape[0], np.int32), gpu_device)), Cell(tensor(np.ones(shape[0]), gpu_device))

    def step(x: Tensor) -> None:
        counts.value = counts.value + x.sum(1)
        scaled.value = scaled.value + (x.float() * scaled.value.unsqueeze(1)).sum(1) * 0.25

    run, want = capture(state=[counts, scaled], fuse=fuse)(step), np.ones(shape[0])
    for n in range(1, 4):
        run(tensor(x, gpu_device))
        assert counts.value.tolist() == list(n * x.sum(1))
        want = want + want * x.sum(1) * 0.25
        np.testing.assert_allclose(scaled.value.numpy(), want, rtol=1e-5)  # sums of whole numbers, some thousand
