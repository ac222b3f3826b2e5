"""Moments, log-sum-exp and normalised rows of the reference backend in NumPy; means are taken in double precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from wgpu_nn.shape import size

Array = np.ndarray


def moments(x: Array, axes: tuple[int, ...], keepdim: bool, correction: int) -> Array:
    n = size(tuple(x.shape[a] for a in axes))
    mean = x.sum(axis=axes, keepdims=True, dtype=np.float64) / n
    squares = ((x - mean) ** 2).sum(axis=axes, keepdims=keepdim)
    found = mean if keepdim else mean.reshape(squares.shape)
    return np.stack([found, squares / (n - correction) if n > correction else np.full_like(squares, np.nan)])


def logsumexp(x: Array, axes: tuple[int, ...], keepdim: bool) -> Array:
    top = x.max(axis=axes, keepdims=True, initial=-np.inf)
    shift = np.where(np.isinf(top), 0, top)
    total = np.log(np.exp(x - shift).sum(axis=axes, keepdims=True)) + shift
    return total if keepdim else total.reshape([n for i, n in enumerate(x.shape) if i not in axes])


def _normalised(x: Array, centred: bool, epsilon: float) -> tuple[Array, Array]:
    """Return the rows normalised, and what they were multiplied by."""
    y = x.astype(np.float64)
    if not x.size:
        return y, y
    y = y - y.mean(axis=-1, keepdims=True) if centred else y
    r = 1 / np.sqrt((y * y).mean(axis=-1, keepdims=True) + epsilon)
    return y * r, r


def _norm(centred: bool) -> Callable[..., Array]:
    def norm(x: Array, weight: Array | None = None, bias: Array | None = None, *, epsilon: float) -> Array:
        z, _ = _normalised(x, centred, epsilon)
        z = z if weight is None else z * weight
        return z if bias is None else z + bias

    return norm


def _norm_grad(centred: bool) -> Callable[..., Array]:
    def grad(g: Array, x: Array, weight: Array | None = None, *, epsilon: float) -> Array:
        if not x.size:
            return x
        z, r = _normalised(x, centred, epsilon)
        u = g if weight is None else g * weight.astype(np.float64)
        turned = u - z * (u * z).mean(axis=-1, keepdims=True)
        return r * (turned - u.mean(axis=-1, keepdims=True) if centred else turned)

    return grad


NORMS: dict[str, Callable[..., Any]] = {
    "moments": moments,
    "logsumexp": logsumexp,
    "layer_norm": _norm(True),
    "layer_norm_grad": _norm_grad(True),
    "rms_norm": _norm(False),
    "rms_norm_grad": _norm_grad(False),
}
