"""NaN, infinities, zeros and the ends of the integers: Wgpu answers as NumPy does."""

from __future__ import annotations

import numpy as np
import pytest

from tests.case import f32, i32
from wgpu_nn import Device, tensor
from wgpu_nn.dtype import Float
from wgpu_nn.errors import KindError
from wgpu_nn.ops import DEFAULT_DTYPES, OPS, Category, infer
from wgpu_nn.ops.spec import Spec

pytestmark = pytest.mark.unwatched("makes NaN on purpose", "nan", "inf")

SPECIAL = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 0.5, -2.5, 3.0, 1e30, -1e30], np.float32)
INTS = np.array([0, 1, -1, 2, -2, 7, -7, 2**31 - 1, -(2**31), 2**30, 65536, 46341], np.int32)
DTYPE = {DEFAULT_DTYPES[kind].numpy: DEFAULT_DTYPES[kind] for kind in DEFAULT_DTYPES}


def takes(op: str, dtype: object) -> bool:
    row = OPS[op]
    if row.category is not Category.MAP or op in ("cast", "where"):
        return False
    try:
        infer(op, [Spec((2,), dtype)] * row.arity[0], {}, DEFAULT_DTYPES)  # pyright: ignore[reportArgumentType]
    except KindError:
        return False
    return True


def maps(arity: int, dtype: object) -> list[str]:
    return sorted(op for op, row in OPS.items() if row.arity == (arity, arity) and takes(op, dtype))


def agree(got: np.ndarray, want: np.ndarray, relative: float = 0.0) -> None:
    """NaN where NaN is wanted (of any bits), the same infinities, and numbers within ``relative``."""
    np.testing.assert_allclose(got, want, rtol=relative, atol=relative)


def outcome(name: str, device: Device, *arrays: np.ndarray, **attrs: object) -> np.ndarray:
    backend = device.backend
    handles = [backend.upload(a, DTYPE[a.dtype]) for a in arrays]
    return backend.download(backend.run(name, *handles, **attrs))


@pytest.mark.parametrize("op", maps(1, DEFAULT_DTYPES[Float]))
def test_a_map_of_one_operand_answers_special_values_as_numpy(
    op: str, gpu_device: Device, cpu: Device, trust: str
) -> None:
    agree(outcome(op, gpu_device, SPECIAL), outcome(op, cpu, SPECIAL), 5e-6)


@pytest.mark.parametrize("op", maps(2, DEFAULT_DTYPES[Float]))
def test_a_map_of_two_operands_answers_special_values_as_numpy(
    op: str, gpu_device: Device, cpu: Device, trust: str
) -> None:
    x, y = (a.reshape(-1).copy() for a in np.meshgrid(SPECIAL, SPECIAL))
    if op in ("remainder", "floor_div"):
        # x - y trunc(x / y) is within 2^-24 |x|, which says nothing where |x| is that far beyond |y|.
        near = ~(np.isfinite(x) & (np.abs(x) > 1e20) & np.isfinite(y) & (np.abs(y) < 1e20))
        x, y = x[near], y[near]
    agree(outcome(op, gpu_device, x, y), outcome(op, cpu, x, y), 5e-6)


@pytest.mark.parametrize("op", maps(2, DEFAULT_DTYPES[DTYPE[np.dtype(np.int32)].kind]))
def test_ints_wrap_around_and_divide_as_numpys(op: str, gpu_device: Device, cpu: Device, trust: str) -> None:
    x, y = (a.reshape(-1).copy() for a in np.meshgrid(INTS, INTS))
    np.testing.assert_array_equal(outcome(op, gpu_device, x, y), outcome(op, cpu, x, y))


@pytest.mark.parametrize("op", maps(1, DEFAULT_DTYPES[DTYPE[np.dtype(np.int32)].kind]))
def test_the_least_int_has_no_opposite(op: str, gpu_device: Device, cpu: Device) -> None:
    np.testing.assert_array_equal(outcome(op, gpu_device, INTS), outcome(op, cpu, INTS))


def test_division_of_ints_is_pythons(gpu_device: Device) -> None:
    x = tensor([7, -7, 7, -7, 0, 6], gpu_device)
    y = tensor([2, 2, -2, -2, 5, 3], gpu_device)
    pairs = list(zip(x.tolist(), y.tolist(), strict=True))
    assert (x // y).tolist() == [a // b for a, b in pairs]
    assert (x % y).tolist() == [a % b for a, b in pairs]


@pytest.mark.parametrize("target", ["Int", "Bool"])
def test_floats_saturate_when_they_become_ints(target: str, gpu_device: Device, cpu: Device, trust: str) -> None:
    dtype = next(d for d in DEFAULT_DTYPES.values() if d.kind.value == target)
    x = np.concatenate([SPECIAL, f32([2**31, -(2.0**31), 2147483520, -0.99, 1e-40])])
    np.testing.assert_array_equal(outcome("cast", gpu_device, x, dtype=dtype), outcome("cast", cpu, x, dtype=dtype))


WITH_NAN = {
    "nan first": [np.nan, 1.0, 2.0],
    "nan last": [1.0, 2.0, np.nan],
    "two nans": [1.0, np.nan, np.nan],
    "infinities": [np.inf, -np.inf, 0.0],
    "only -inf": [-np.inf, -np.inf, -np.inf],
    "only inf": [np.inf, np.inf, 5.0],
    "zeros": [0.0, -0.0, 0.0],
}


@pytest.mark.parametrize("long", [False, True], ids=["short", "long"])
@pytest.mark.parametrize("row", WITH_NAN)
@pytest.mark.parametrize("op", ["sum", "mean", "prod", "max", "min", "argmax", "argmin"])
def test_a_reduction_answers_special_values_as_numpy(
    op: str, row: str, long: bool, gpu_variants: dict[str, Device], cpu: Device
) -> None:
    x = f32(WITH_NAN[row])
    if long:  # in the middle of a row that is folded in slices, or by a workgroup
        x = np.concatenate([np.zeros(1500, np.float32), x, np.ones(1500, np.float32)])
    for axes, shape in (((0,), (-1,)), ((1,), (1, -1))):
        given = x.reshape(shape)
        want = outcome(op, cpu, given, axes=axes, keepdim=False)
        for device in gpu_variants.values():
            agree(outcome(op, device, given, axes=axes, keepdim=False), want, 1e-5)


@pytest.mark.parametrize("long", [False, True], ids=["short", "long"])
@pytest.mark.parametrize("row", [*WITH_NAN, "far apart", "large"])
@pytest.mark.parametrize("op", ["softmax", "log_softmax"])
def test_a_softmax_answers_special_values_as_numpy(
    op: str, row: str, long: bool, gpu_variants: dict[str, Device], cpu: Device
) -> None:
    x = f32({**WITH_NAN, "far apart": [-1e4, 0.0, 1e4], "large": [1e30, 1e30, -1e30]}[row])
    if long:
        x = np.concatenate([np.full(100, -3, np.float32), x])
    want = outcome(op, cpu, x, axis=0)
    for device in gpu_variants.values():
        agree(outcome(op, device, x, axis=0), want, 1e-5)


@pytest.mark.parametrize("op", ["max_pool2d", "argmax_pool2d"])
def test_a_pool_of_maxima_carries_nan_and_never_picks_padding(op: str, any_device: Device, cpu: Device) -> None:
    x = f32([[-1, -2, -3, -4], [np.nan, -5, -np.inf, -np.inf], [-6, np.nan, -np.inf, -np.inf], [-7, -7, 3, np.inf]])
    window = {"kernel": (2, 2), "stride": (1, 1), "padding": ((1, 1), (1, 1))}
    given = x[None, None]
    np.testing.assert_array_equal(outcome(op, any_device, given, **window), outcome(op, cpu, given, **window))


def test_matmul_carries_nan_and_infinities(any_device: Device, cpu: Device) -> None:
    x = f32([[1, np.nan, 2, 3], [np.inf, 1, 0, 1], [1, 1, 1, 1]])
    y = f32([[1, 0], [0, 1], [1, -np.inf], [1, 1]])
    agree(outcome("matmul", any_device, x, y), outcome("matmul", cpu, x, y))


def test_clamp_keeps_nan_and_limits_infinities(gpu_device: Device) -> None:
    out = tensor(SPECIAL, gpu_device).clamp(-1.0, 2.0).numpy()
    np.testing.assert_array_equal(out, np.clip(SPECIAL, -1.0, 2.0))


def test_an_index_out_of_range_raises_on_numpy_and_gives_nan_on_a_gpu(any_device: Device, cpu: Device) -> None:
    from wgpu_nn.errors import IndexRangeError

    x, index = f32([1, 2, 3]), i32([0, 3, -1, -4, 2**31 - 1, -(2**31)])
    with pytest.raises(IndexRangeError, match="gather: expected indices from -3 to 2, got 3"):
        outcome("gather", cpu, x, index, axis=0)
    agree(outcome("gather", any_device, x, index, axis=0), f32([1, np.nan, 3, np.nan, np.nan, np.nan]))
    rows = outcome("gather", any_device, np.tile(x, (8, 1)).T.copy(), np.tile(index, (8, 1)).T.copy(), axis=0)
    agree(rows, np.tile(f32([1, np.nan, 3, np.nan, np.nan, np.nan]), (8, 1)).T)
    spread = tensor(np.arange(24.0).reshape(3, 8), any_device).index_select(0, tensor(index, any_device))
    agree(spread.numpy()[:, ::7], f32([[0, 7], *[[np.nan] * 2], [16, 23], *[[np.nan] * 2] * 3]))
    added = outcome("scatter_add", any_device, x, index, np.full(6, 10, np.float32), axis=0)
    agree(added, f32([11, 2, 13]))
