"""The routines of the reference backend in NumPy: pooling, indexing, softmax; written to be read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from wgpu_nn.backends import numpy_attention
from wgpu_nn.backends.numpy_windows import Pads, convolution, input_grad, weight_grad, windows
from wgpu_nn.errors import IndexRangeError
from wgpu_nn.shape import Shape

Array = np.ndarray
Pair = tuple[int, int]


def _max_windows(x: Array, kernel: Pair, stride: Pair, padding: Pads) -> Array:
    wins = windows(x, kernel, stride, padding, fill=-np.inf)
    return wins.reshape(*wins.shape[:4], kernel[0] * kernel[1])  # a -1 has no value in an empty batch


def max_pool2d(x: Array, *, kernel: Pair, stride: Pair, padding: Pads) -> Array:
    return _max_windows(x, kernel, stride, padding).max(axis=-1)


def argmax_pool2d(x: Array, *, kernel: Pair, stride: Pair, padding: Pads) -> Array:
    """Return row * width + column of each window's first maximum (the first NaN if there is one)."""
    first = _max_windows(x, kernel, stride, padding).argmax(axis=-1)
    rows = np.arange(first.shape[2])[:, None] * stride[0] - padding[0][0] + first // kernel[1]
    cols = np.arange(first.shape[3])[None, :] * stride[1] - padding[1][0] + first % kernel[1]
    # A window of -inf alone has its first maximum in the padding; the nearest pixel inside stands for it.
    return np.clip(rows, 0, x.shape[2] - 1) * x.shape[3] + np.clip(cols, 0, x.shape[3] - 1)


def max_pool2d_grad(g: Array, positions: Array, *, shape: Shape, kernel: Pair, stride: Pair, padding: Pads) -> Array:
    n, c, h, w = shape
    out = np.zeros((n, c, h * w), g.dtype)
    each = (n, c, g.shape[2] * g.shape[3])
    flat = positions.reshape(each)
    np.add.at(out, (np.arange(n)[:, None, None], np.arange(c)[None, :, None], flat), g.reshape(each))
    return out.reshape(shape)


def _counts(n: int, out: int, k: int, s: int, pad: Pair, include_pad: bool) -> Array:
    """Return the number of elements that each window along one axis averages."""
    if include_pad:
        return np.full(out, k)
    first = np.arange(out) * s - pad[0]
    return np.minimum(first + k, n) - np.maximum(first, 0)


def avg_pool2d(x: Array, *, kernel: Pair, stride: Pair, padding: Pads, include_pad: bool) -> Array:
    total = windows(x, kernel, stride, padding).sum(axis=(-2, -1))
    rows = _counts(x.shape[2], total.shape[2], kernel[0], stride[0], padding[0], include_pad)
    cols = _counts(x.shape[3], total.shape[3], kernel[1], stride[1], padding[1], include_pad)
    return total / np.outer(rows, cols).astype(x.dtype)


def avg_pool2d_grad(g: Array, *, shape: Shape, kernel: Pair, stride: Pair, padding: Pads, include_pad: bool) -> Array:
    (pt, pb), (pl, pr) = padding
    rows = _counts(shape[2], g.shape[2], kernel[0], stride[0], padding[0], include_pad)
    cols = _counts(shape[3], g.shape[3], kernel[1], stride[1], padding[1], include_pad)
    share = g / np.outer(rows, cols).astype(g.dtype)
    out = np.zeros((shape[0], shape[1], shape[2] + pt + pb, shape[3] + pl + pr), g.dtype)
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            out[
                :,
                :,
                i : i + stride[0] * (g.shape[2] - 1) + 1 : stride[0],
                j : j + stride[1] * (g.shape[3] - 1) + 1 : stride[1],
            ] += share
    return out[:, :, pt : pt + shape[2], pl : pl + shape[3]]


def _bins(n: int, out: int, dtype: np.dtype[Any]) -> Array:
    """[out, n] weights of adaptive pooling: bin i averages floor(i n / out) .. ceil((i + 1) n / out)."""
    weights = np.zeros((out, n), dtype)
    for i in range(out):
        start, stop = i * n // out, -((-(i + 1) * n) // out)
        weights[i, start:stop] = 1 / (stop - start)
    return weights


def adaptive_avg_pool2d(x: Array, *, size: Pair) -> Array:
    rows, cols = _bins(x.shape[2], size[0], x.dtype), _bins(x.shape[3], size[1], x.dtype)
    return rows @ x @ cols.T


def adaptive_avg_pool2d_grad(g: Array, *, shape: Shape) -> Array:
    rows, cols = _bins(shape[2], g.shape[2], g.dtype), _bins(shape[3], g.shape[3], g.dtype)
    return rows.T @ g @ cols


def _checked(op: str, index: Array, n: int) -> Array:
    if index.size and not (-n <= index.min() and index.max() < n):
        bad = index[(index < -n) | (index >= n)].flat[0]
        raise IndexRangeError(f"{op}: expected indices from {-n} to {n - 1}, got {bad}")
    return np.where(index < 0, index + n, index)


def gather(x: Array, index: Array, *, axis: int) -> Array:
    within = tuple(slice(None) if d == axis else slice(0, n) for d, n in enumerate(index.shape))
    return np.take_along_axis(x[within], _checked("gather", index, x.shape[axis]), axis=axis)


def scatter_add(x: Array, index: Array, source: Array, *, axis: int) -> Array:
    out = x.copy()
    place: list[Array] = list(np.indices(index.shape, sparse=True))
    place[axis] = _checked("scatter_add", index, x.shape[axis])
    np.add.at(out, tuple(place), source)
    return out


def softmax(x: Array, *, axis: int) -> Array:
    if not x.size:
        return x
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def log_softmax(x: Array, *, axis: int) -> Array:
    if not x.size:
        return x
    y = x - x.max(axis=axis, keepdims=True)
    return y - np.log(np.exp(y).sum(axis=axis, keepdims=True))


def cross_entropy(x: Array, targets: Array) -> Array:
    """The loss of each row; NaN where a target is out of range."""
    known = (targets >= 0) & (targets < x.shape[1])
    picked = np.take_along_axis(log_softmax(x, axis=1), np.where(known, targets, 0)[:, None], axis=1)[:, 0]
    return np.where(known, -picked, np.nan)


def cross_entropy_grad(g: Array, x: Array, targets: Array) -> Array:
    known = (targets >= 0) & (targets < x.shape[1])
    hit = np.arange(x.shape[1]) == targets[:, None]
    return (softmax(x, axis=1) - hit) * np.where(known, g, np.nan)[:, None]


ROUTINES: dict[str, Callable[..., Array]] = {
    "matmul": np.matmul,
    **dict.fromkeys(("conv2d", "conv3d"), convolution),
    **dict.fromkeys(("conv2d_input_grad", "conv3d_input_grad"), input_grad),
    **dict.fromkeys(("conv2d_weight_grad", "conv3d_weight_grad"), weight_grad),
    "max_pool2d": max_pool2d,
    "argmax_pool2d": argmax_pool2d,
    "max_pool2d_grad": max_pool2d_grad,
    "avg_pool2d": avg_pool2d,
    "avg_pool2d_grad": avg_pool2d_grad,
    "adaptive_avg_pool2d": adaptive_avg_pool2d,
    "adaptive_avg_pool2d_grad": adaptive_avg_pool2d_grad,
    "gather": gather,
    "scatter_add": scatter_add,
    "cross_entropy": cross_entropy,
    "cross_entropy_grad": cross_entropy_grad,
    "softmax": softmax,
    "log_softmax": log_softmax,
    **numpy_attention.ROUTINES,
}
