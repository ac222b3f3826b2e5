"""What benchmarked ops must give, at sampled places: values in double precision, and what their errors are divided by."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

Sizes = tuple[int, ...]
Arrays = list[np.ndarray]
Places = tuple[np.ndarray, ...]  # one array of indices per axis of the result
Exact = tuple[np.ndarray, np.ndarray]  # values in double precision, and the magnitudes that their errors scale with
Reference = Callable[[Sizes, Arrays, Places], Exact]

EPSILON = 1e-5  # of layer_norm and rms_norm
BEST = 100  # elements that topk finds
STRIDE = 2  # of conv_transpose2d


# --- products ----------------------------------------------------------------------------------------------------------
def matmul(sizes: Sizes, arrays: Arrays, at: Places) -> Exact:
    a, b = (x.astype(np.float64) for x in (arrays[0][at[:-1]], np.swapaxes(arrays[1], -1, -2)[(*at[:-2], at[-1])]))
    return (a * b).sum(-1), (np.abs(a) * np.abs(b)).sum(-1)


def conv_sizes(sizes: Sizes) -> Sizes:
    """Return batch, channels, height, width, filters, kernel, pad and groups; one group unless said."""
    return (*sizes, 1)[:8]


def conv_out(sizes: Sizes) -> Sizes:
    n, _, h, w, o, k, p, _ = conv_sizes(sizes)
    return (n, o, h + 2 * p - k + 1, w + 2 * p - k + 1)


def transposed_out(sizes: Sizes) -> Sizes:
    n, _, h, w, o, k, p, _ = conv_sizes(sizes)
    return (n, o, (h - 1) * STRIDE - 2 * p + k, (w - 1) * STRIDE - 2 * p + k)


def _windows(x: np.ndarray, k: int, pad: int) -> np.ndarray:
    padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    return sliding_window_view(padded, (k, k), axis=(2, 3))  # pyright: ignore[reportCallIssue, reportArgumentType]


def _products(a: np.ndarray, b: np.ndarray) -> Exact:
    a, b = a.astype(np.float64), b.astype(np.float64)
    axes = tuple(range(1, a.ndim))
    return (a * b).sum(axes), (np.abs(a) * np.abs(b)).sum(axes)


def _neighbours(channel: np.ndarray, channels: int, others: int, groups: int) -> np.ndarray:
    """Return which of ``others`` are in the group of each of some of ``channels``."""
    return (channel // (channels // groups))[:, None] * (others // groups) + np.arange(others // groups)


def conv(sizes: Sizes, arrays: Arrays, at: Places) -> Exact:
    _, c, _, _, o, k, p, groups = conv_sizes(sizes)
    n, filters, y, x = at
    near = _neighbours(filters, o, c, groups)
    return _products(_windows(arrays[0], k, p)[n[:, None], near, y[:, None], x[:, None]], arrays[1][filters])


def _gathered(g: np.ndarray, w: np.ndarray, k: int, pad: int, groups: int, at: Places) -> Exact:
    """Return the samples of a convolution's transpose: windows of ``g`` with filters turned around."""
    n, channels, y, x = at
    inner = w.shape[1]
    near = _neighbours(channels, inner * groups, g.shape[1], groups)
    turned = w[near, (channels % inner)[:, None], ::-1, ::-1]
    return _products(_windows(g, k, k - 1 - pad)[n[:, None], near, y[:, None], x[:, None]], turned)


def conv_input(sizes: Sizes, arrays: Arrays, at: Places) -> Exact:
    k, p, groups = conv_sizes(sizes)[5:]
    return _gathered(arrays[0], arrays[1], k, p, groups, at)


def conv_transpose(sizes: Sizes, arrays: Arrays, at: Places) -> Exact:
    n, c, h, w, _, k, p, groups = conv_sizes(sizes)
    apart = np.zeros((n, c, (h - 1) * STRIDE + 1, (w - 1) * STRIDE + 1), np.float32)
    apart[:, :, ::STRIDE, ::STRIDE] = arrays[0]
    return _gathered(apart, arrays[1], k, p, groups, at)


def conv_weight(sizes: Sizes, arrays: Arrays, at: Places) -> Exact:
    _, c, _, _, filters, _, p, groups = conv_sizes(sizes)
    x, g = np.pad(arrays[0], ((0, 0), (0, 0), (p, p), (p, p))), arrays[1]
    h, w = g.shape[2:]
    near = _neighbours(at[0], filters, c, groups)
    found = [
        _products(x[None, :, near[m, n], i : i + h, j : j + w], g[None, :, o])
        for m, (o, n, i, j) in enumerate(zip(*at))
    ]
    return np.concatenate([v for v, _ in found]), np.concatenate([m for _, m in found])


# --- maps, sums and rows -----------------------------------------------------------------------------------------------
def mapped(f: Callable[..., np.ndarray]) -> Reference:
    def exact(sizes: Sizes, arrays: Arrays, at: Places) -> Exact:
        given = [a[at].astype(np.float64) for a in arrays]
        return f(*given), 1.0 + f(*map(np.abs, given))

    return exact


def summed(axes: tuple[int, ...]) -> Reference:
    def exact(sizes: Sizes, arrays: Arrays, at: Places) -> Exact:
        total = arrays[0].sum(axes, dtype=np.float64)
        return total[at], np.abs(total[at])

    return exact


def by_rows(f: Callable[..., np.ndarray]) -> Reference:
    """Return the reference of what ``f`` makes of whole rows; its errors scale with 1 and more."""

    def exact(sizes: Sizes, arrays: Arrays, at: Places) -> Exact:
        found = f(*(a[at[0]].astype(np.float64) for a in arrays))[np.arange(len(at[0])), at[1]]
        return found, 1.0 + np.abs(found)

    return exact


def _softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def softmax(sizes: Sizes, arrays: Arrays, at: Places) -> Exact:
    found = _softmax(arrays[0][at[0]].astype(np.float64))[np.arange(len(at[0])), at[1]]
    return found, found


def softmax_grad(sizes: Sizes, arrays: Arrays, at: Places) -> Exact:
    g, x = (a[at[0]].astype(np.float64) for a in arrays)
    y, here = _softmax(x), (np.arange(len(at[0])), at[1])
    mean = lambda g: (g * y).sum(1)
    return y[here] * (g[here] - mean(g)), y[here] * (np.abs(g[here]) + mean(np.abs(g)))


def log_softmax(x: np.ndarray) -> np.ndarray:
    shifted = x - x.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def layer_norm(x: np.ndarray) -> np.ndarray:
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + EPSILON)


def rms_norm(x: np.ndarray) -> np.ndarray:
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + EPSILON)


# --- attention ---------------------------------------------------------------------------------------------------------
def attention(sizes: Sizes, arrays: Arrays, at: Places) -> Exact:
    q, k, v = arrays
    values: list[float] = []
    scale: list[float] = []
    for b, h, i, d in zip(*at):
        scores = k[b, h].astype(np.float64) @ q[b, h, i] / math.sqrt(sizes[-1])
        weights = np.exp(scores - scores.max())
        weights /= weights.sum()
        values.append(float(weights @ v[b, h, :, d]))
        scale.append(float(weights @ np.abs(v[b, h, :, d])))
    return np.array(values), np.array(scale)


def attention_grad(sizes: Sizes, arrays: Arrays, at: Places) -> Exact:
    """The sum of the gradients of queries, keys and values: one head after another, as each needs all its scores."""
    values, scale = np.zeros((2, len(at[0])))
    root = 1 / math.sqrt(sizes[-1])
    heads, of = np.unique(np.stack(at[:2]), axis=1, return_inverse=True)
    for n, (b, h) in enumerate(heads.T):
        g, q, k, v = (x[b, h].astype(np.float64) for x in arrays)
        weights = _softmax(q @ k.T * root)
        change, size = (x @ y.T for x, y in ((g, v), (np.abs(g), np.abs(v))))
        change = weights * (change - (weights * change).sum(1, keepdims=True)) * root
        size = weights * (size + (weights * size).sum(1, keepdims=True)) * root
        for m in np.flatnonzero(of.ravel() == n):
            i, d = at[2][m], at[3][m]
            values[m] = change[i] @ k[:, d] + change[:, i] @ q[:, d] + weights[:, i] @ g[:, d]
            scale[m] = size[i] @ np.abs(k[:, d]) + size[:, i] @ np.abs(q[:, d]) + weights[:, i] @ np.abs(g[:, d])
    return values, scale


# --- order -------------------------------------------------------------------------------------------------------------
def ordered(f: Callable[[np.ndarray], np.ndarray]) -> Reference:
    """Return the reference of what has no rounding: any difference is an error."""

    def exact(sizes: Sizes, arrays: Arrays, at: Places) -> Exact:
        found = f(arrays[0])[at].astype(np.float64)
        return found, np.ones_like(found)

    return exact


def cumsum(sizes: Sizes, arrays: Arrays, at: Places) -> Exact:
    found = np.cumsum(arrays[0], dtype=np.float64)[at]
    return found, found


# --- chains ------------------------------------------------------------------------------------------------------------
def chain(sizes: Sizes, arrays: Arrays, at: Places) -> Exact:
    found = arrays[0][at].astype(np.float64) + sizes[0]
    return found, found
