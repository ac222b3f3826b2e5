"""Windows over the last axes of an array, and convolutions as sums over them, in any number of spatial axes."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from wgpu_nn.shape import Shape

Array = np.ndarray
Pads = tuple[tuple[int, int], ...]


def windows(
    x: Array, kernel: Shape, stride: Shape, padding: Pads, dilation: Shape | None = None, fill: float = 0.0
) -> Array:
    """[n, c, *sizes] -> [n, c, *counts, *kernel], a view of the padded input."""
    axes = range(2, x.ndim)
    steps = dilation or (1,) * len(kernel)
    span = tuple(d * (k - 1) + 1 for k, d in zip(kernel, steps, strict=True))
    if any(map(any, padding)):
        x = np.pad(x, ((0, 0), (0, 0), *padding), constant_values=fill)
    found = sliding_window_view(x, span, axis=tuple(axes))  # pyright: ignore[reportArgumentType, reportCallIssue]
    every = (slice(None, None, s) for s in (*stride, *steps))
    return found[(slice(None), slice(None), *every)]


def convolution(
    x: Array, w: Array, bias: Array | None = None, *, stride: Shape, padding: Pads, dilation: Shape, groups: int
) -> Array:
    """Sum over channels and window, as one matmul per group on the unfolded input."""
    n, into = x.shape[0], w.shape[1]
    seen = np.moveaxis(windows(x, w.shape[2:], stride, padding, dilation), 1, x.ndim - 1)  # [n, *counts, c, *kernel]
    counts = seen.shape[1 : x.ndim - 1]
    outs: list[Array] = []
    for k, wg in enumerate(np.split(w, groups)):
        part = seen[(..., slice(k * into, (k + 1) * into), *(slice(None),) * (x.ndim - 2))]
        columns = part.reshape(n * math.prod(counts), math.prod(w.shape[1:]))
        outs.append((columns @ wg.reshape(len(wg), -1).T).reshape(n, *counts, len(wg)))
    out = np.moveaxis(np.concatenate(outs, axis=-1), -1, 1)
    return out if bias is None else out + bias.reshape(-1, *(1,) * (x.ndim - 2))


def input_grad(
    g: Array, w: Array, *, shape: Shape, stride: Shape, padding: Pads, dilation: Shape, groups: int
) -> Array:
    """Each window position adds the gradient times its weight to the input pixels it saw."""
    n, counts, into = g.shape[0], g.shape[2:], w.shape[1]
    out = np.zeros((n, shape[1], *(size + sum(p) for size, p in zip(shape[2:], padding, strict=True))), g.dtype)
    for k, (gg, wg) in enumerate(zip(np.split(g, groups, axis=1), np.split(w, groups), strict=True)):
        rows = np.moveaxis(gg, 1, -1).reshape(-1, wg.shape[0])
        for tap in product(*(range(size) for size in w.shape[2:])):
            part = (rows @ wg[(slice(None), slice(None), *tap)]).reshape(n, *counts, into)
            place = [
                slice(i * d, i * d + s * (count - 1) + 1, s)
                for i, d, s, count in zip(tap, dilation, stride, counts, strict=True)
            ]
            if math.prod(counts):
                out[(slice(None), slice(k * into, (k + 1) * into), *place)] += np.moveaxis(part, -1, 1)
    inside = (slice(before, before + size) for (before, _), size in zip(padding, shape[2:], strict=True))
    return out[(slice(None), slice(None), *inside)]


def weight_grad(
    x: Array, g: Array, *, shape: Shape, stride: Shape, padding: Pads, dilation: Shape, groups: int
) -> Array:
    """For each weight, the sum over batch and positions of its input pixel times the gradient."""
    seen = windows(x, shape[2:], stride, padding, dilation)
    # Windows behind the last one that g knows saw nothing of it.
    seen = seen[(slice(None), slice(None), *(slice(n) for n in g.shape[2:]))]
    kernel = tuple(range(x.ndim, seen.ndim))
    seen = seen.transpose(1, *kernel, 0, *range(2, x.ndim))  # [c, *kernel, n, *counts]
    outs: list[Array] = []
    for gg, part in zip(np.split(g, groups, axis=1), np.split(seen, groups), strict=True):
        rows = np.moveaxis(gg, 1, 0).reshape(gg.shape[1], gg[:, 0].size)
        outs.append((rows @ part.reshape(math.prod(shape[1:]), gg[:, 0].size).T).reshape(-1, *shape[1:]))
    return np.concatenate(outs)
