"""The routines of the reference backend in NumPy: convolution, pooling, indexing, softmax; written to be read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from wgpu_nn.backends import numpy_attention
from wgpu_nn.errors import IndexRangeError
from wgpu_nn.shape import Shape

Array = np.ndarray
Pair = tuple[int, int]
Pads = tuple[Pair, Pair]


def _padded(x: Array, padding: Pads, value: float = 0.0) -> Array:
    return np.pad(x, ((0, 0), (0, 0), *padding), constant_values=value) if padding != ((0, 0), (0, 0)) else x


def _windows(x: Array, kernel: Pair, stride: Pair, padding: Pads, dilation: Pair = (1, 1), fill: float = 0.0) -> Array:
    """[n, c, h, w] -> [n, c, oh, ow, kh, kw], a view of the padded input."""
    span = tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True))
    found = sliding_window_view(_padded(x, padding, fill), span, axis=(2, 3))  # pyright: ignore[reportArgumentType, reportCallIssue]
    return found[:, :, :: stride[0], :: stride[1], :: dilation[0], :: dilation[1]]


def conv2d(
    x: Array, w: Array, bias: Array | None = None, *, stride: Pair, padding: Pads, dilation: Pair, groups: int
) -> Array:
    """Sum over channels and window, as one matmul per group on the unfolded input."""
    n, o = x.shape[0], w.shape[0]
    wins = _windows(x, (w.shape[2], w.shape[3]), stride, padding, dilation)
    oh, ow = wins.shape[2:4]
    outs: list[Array] = []
    for g, wg in enumerate(np.split(w, groups)):
        ci = w.shape[1]
        cols = wins[:, g * ci : (g + 1) * ci].transpose(0, 2, 3, 1, 4, 5).reshape(n * oh * ow, wg[0].size)
        outs.append((cols @ wg.reshape(o // groups, -1).T).reshape(n, oh, ow, o // groups))
    out = np.concatenate(outs, axis=3).transpose(0, 3, 1, 2)
    return out if bias is None else out + bias[:, None, None]


def conv2d_input_grad(
    g: Array, w: Array, *, shape: Shape, stride: Pair, padding: Pads, dilation: Pair, groups: int
) -> Array:
    """Each window position adds the gradient times its weight to the input pixels it saw."""
    n, _, oh, ow = g.shape
    ci, (kh, kw) = w.shape[1], w.shape[2:]
    (pt, pb), (pl, pr) = padding
    out = np.zeros((n, shape[1], shape[2] + pt + pb, shape[3] + pl + pr), g.dtype)
    for k, (gg, wg) in enumerate(zip(np.split(g, groups, axis=1), np.split(w, groups), strict=True)):
        cols = (gg.transpose(0, 2, 3, 1).reshape(n * oh * ow, wg.shape[0]) @ wg.reshape(wg.shape[0], -1)).reshape(
            n, oh, ow, ci, kh, kw
        )
        for i in range(kh):
            for j in range(kw):
                y, x = i * dilation[0], j * dilation[1]
                out[
                    :,
                    k * ci : (k + 1) * ci,
                    y : y + stride[0] * (oh - 1) + 1 : stride[0],
                    x : x + stride[1] * (ow - 1) + 1 : stride[1],
                ] += cols[..., i, j].transpose(0, 3, 1, 2)
    return out[:, :, pt : pt + shape[2], pl : pl + shape[3]]


def conv2d_weight_grad(
    x: Array, g: Array, *, shape: Shape, stride: Pair, padding: Pads, dilation: Pair, groups: int
) -> Array:
    """For each weight, the sum over batch and positions of its input pixel times the gradient."""
    wins = _windows(x, (shape[2], shape[3]), stride, padding, dilation)[:, :, : g.shape[2], : g.shape[3]]
    ci = shape[1]
    outs: list[Array] = []
    for k, gg in enumerate(np.split(g, groups, axis=1)):
        cols = (
            wins[:, k * ci : (k + 1) * ci].transpose(1, 4, 5, 0, 2, 3).reshape(ci * shape[2] * shape[3], gg[:, 0].size)
        )
        outs.append((cols @ gg.transpose(0, 2, 3, 1).reshape(gg[:, 0].size, gg.shape[1])).T.reshape(-1, *shape[1:]))
    return np.concatenate(outs)


def _max_windows(x: Array, kernel: Pair, stride: Pair, padding: Pads) -> Array:
    wins = _windows(x, kernel, stride, padding, fill=-np.inf)
    return wins.reshape(*wins.shape[:4], -1)


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
    flat = positions.reshape(n, c, -1)
    np.add.at(out, (np.arange(n)[:, None, None], np.arange(c)[None, :, None], flat), g.reshape(n, c, -1))
    return out.reshape(shape)


def _counts(n: int, out: int, k: int, s: int, pad: Pair, include_pad: bool) -> Array:
    """Return the number of elements that each window along one axis averages."""
    if include_pad:
        return np.full(out, k)
    first = np.arange(out) * s - pad[0]
    return np.minimum(first + k, n) - np.maximum(first, 0)


def avg_pool2d(x: Array, *, kernel: Pair, stride: Pair, padding: Pads, include_pad: bool) -> Array:
    total = _windows(x, kernel, stride, padding).sum(axis=(-2, -1))
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
    "conv2d": conv2d,
    "conv2d_input_grad": conv2d_input_grad,
    "conv2d_weight_grad": conv2d_weight_grad,
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
