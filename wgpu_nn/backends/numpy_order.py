"""Scans, sorts and selections of the reference backend in NumPy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from wgpu_nn.ops.rules_order import SPAN
from wgpu_nn.shape import Shape

Array = np.ndarray


def argsort(x: Array, *, axis: int, descending: bool) -> Array:
    """Stable both ways: a descending order is the ascending one of the reversed row, read backwards."""
    if not descending:
        return np.argsort(x, axis=axis, kind="stable")
    return x.shape[axis] - 1 - np.flip(np.argsort(np.flip(x, axis), axis=axis, kind="stable"), axis)


def argtopk(x: Array, *, axis: int, k: int, largest: bool) -> Array:
    return np.take(argsort(x, axis=axis, descending=largest), range(k), axis=axis)


def tallies(x: Array) -> Array:
    return np.cumsum(
        np.add.reduceat(x != 0, np.arange(0, len(x), SPAN), dtype=np.int32) if len(x) else x, dtype=np.int32
    )


def places(x: Array, tallies: Array, *, shape: Shape, count: int) -> Array:
    return np.argwhere(x.reshape(shape))[:count]


ORDERS: dict[str, Callable[..., Array]] = {
    # NumPy adds Ints up in the platform's long; the result keeps the element type, wrapping like the GPU's.
    "cumsum": lambda x, axis: np.cumsum(x, axis=axis, dtype=x.dtype),
    "cumprod": lambda x, axis: np.cumprod(x, axis=axis, dtype=x.dtype),
    "cummax": lambda x, axis: np.maximum.accumulate(x, axis=axis),
    "cummin": lambda x, axis: np.minimum.accumulate(x, axis=axis),
    "argsort": argsort,
    "argtopk": argtopk,
    "tallies": tallies,
    "places": places,
}
