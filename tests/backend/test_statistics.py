"""Variances and normalised rows where f32 is short: far from 0, with outliers, with NaN and infinities, and very long."""

from __future__ import annotations

import numpy as np
import pytest

from tests.backend.test_reductions import LAYOUTS, WAYS, axes_of
from wgpu_nn import Device, Tensor, tensor
from wgpu_nn.backends import numpy_norm

SHAPES = [(4, 5), (3, 64), (5, 127), (2, 512), (3, 1030), (2, 4096), (2, 7001), (1, 8192), (2, 9001), (1, 33_000)]


def far(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return (1e6 + rng.standard_normal(shape)).astype(np.float32)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("shape", "axes"), WAYS, ids=str)
def test_a_variance_far_from_zero(
    shape: tuple[int, ...],
    axes: tuple[int, ...],
    layout: str,
    each_way: Device,
    rng: np.random.Generator,
) -> None:
    x = LAYOUTS[layout](tensor(far(rng, shape), each_way))
    at = axes_of(x, axes, layout)
    want = x.numpy().astype(np.float64)
    var, mean = x.var_mean(at, correction=0)
    np.testing.assert_allclose(var.numpy(), want.var(at), rtol=1e-4)
    np.testing.assert_allclose(mean.numpy(), want.mean(at), rtol=1.2e-7)  # two roundings


@pytest.mark.parametrize("shape", [(70_000,), (3, 40_000), (40_000, 3), (5000, 8)], ids=str)
def test_an_outlier_in_front_does_not_spoil_the_variance_of_the_rest(
    shape: tuple[int, ...],
    each_way: Device,
    rng: np.random.Generator,
) -> None:
    axis = int(np.argmax(shape))
    given = rng.standard_normal(shape).astype(np.float32)
    np.moveaxis(given, axis, 0)[0] = 1000
    got = tensor(given, each_way).std(axis).numpy()
    np.testing.assert_allclose(got, given.astype(np.float64).std(axis, ddof=1), rtol=1e-4)


@pytest.mark.unwatched("makes NaN on purpose", "nan", "inf")
def test_variances_of_few_elements(each_way: Device) -> None:
    x = tensor([[3.0], [5.0]], each_way)
    assert np.isnan(x.var(1).numpy()).all()
    np.testing.assert_array_equal(x.var(1, correction=0).numpy(), [0, 0])
    np.testing.assert_array_equal(x.var(0).numpy(), [2])
    assert np.isnan(tensor(np.zeros((2, 0), np.float32), each_way).var(1).numpy()).all()


# Far from 0 the gradient of an RMS norm is a difference of nearly equal numbers, in any arithmetic.
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("op", "offset"), [("layer_norm", 0.0), ("layer_norm", 1e6), ("rms_norm", 0.0)])
def test_normalised_rows_and_their_gradients(
    op: str,
    shape: tuple[int, int],
    offset: float,
    each_way: Device,
    rng: np.random.Generator,
) -> None:
    x = (offset + rng.standard_normal(shape)).astype(np.float32)
    w, b, g = (rng.standard_normal(n).astype(np.float32) for n in (shape[1:], shape[1:], shape))
    weights = [w, b] if op == "layer_norm" else [w]
    wide = [v.astype(np.float64) for v in weights]
    backend = each_way.backend
    placed = [backend.upload(v, backend.dtypes[tensor(0.0).kind]) for v in (x, *weights, g)]
    got = backend.download(backend.run(op, *placed[:-1], epsilon=1e-5))
    want = numpy_norm.NORMS[op](x.astype(np.float64), *wide, epsilon=1e-5)
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=1e-4 if offset else 1e-5)
    got = backend.download(backend.run(f"{op}_grad", placed[-1], *placed[:2], epsilon=1e-5))
    want = numpy_norm.NORMS[f"{op}_grad"](g.astype(np.float64), x.astype(np.float64), wide[0], epsilon=1e-5)
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-4 if offset else 1e-5)


@pytest.mark.unwatched("makes NaN on purpose", "nan", "inf")
@pytest.mark.parametrize("length", [5, 130, 2000, 20_000])
def test_special_values_stay_in_their_row(length: int, each_way: Device, cpu: Device) -> None:
    rows = np.random.default_rng(0).standard_normal((6, length)).astype(np.float32)
    rows[1, 3], rows[2, 0], rows[3, 2], rows[4] = np.nan, np.inf, -np.inf, -np.inf
    x = tensor(rows, each_way)
    got = x.logsumexp(1).numpy()
    np.testing.assert_allclose(got, tensor(rows, cpu).logsumexp(1).numpy(), rtol=1e-5)
    assert np.isnan(got[1]) and got[2] == np.inf and got[4] == -np.inf
    var = x.var(1).numpy()
    assert np.isnan(var[1:5]).all() and np.isfinite(var[[0, 5]]).all()
    for op in ("layer_norm", "rms_norm"):
        out = x.run(op, x, epsilon=1e-5).numpy()
        want = tensor(rows, cpu).run(op, tensor(rows, cpu), epsilon=1e-5).numpy()
        np.testing.assert_array_equal(np.isnan(out).all(1), np.isnan(want).all(1))
        np.testing.assert_allclose(out[[0, 5]], want[[0, 5]], rtol=1e-5, atol=1e-5)


def test_logsumexp_neither_overflows_nor_vanishes(each_way: Device) -> None:
    x = tensor([[1000.0, 1000.0], [-1000.0, -1000.0], [3e38, -3e38]], each_way)
    np.testing.assert_allclose(x.logsumexp(1).numpy(), [1000 + np.log(2), -1000 + np.log(2), 3e38], rtol=1e-6)


@pytest.mark.unwatched("makes NaN on purpose", "nan", "inf")
def test_the_gradient_of_logsumexp_is_0_where_all_is_minus_infinity(each_way: Device) -> None:
    x: Tensor = tensor([[-np.inf, -np.inf], [0.0, -np.inf]], each_way.autodiff()).require_grad()
    grads = x.logsumexp(1).sum().backward()[x].numpy()
    np.testing.assert_array_equal(grads, [[0, 0], [1, 0]])
