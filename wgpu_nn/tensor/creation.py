"""Makes tensors: from data, filled, counted, random; and joins them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from wgpu_nn import shape as shapes
from wgpu_nn.dtype import F16, F32, DType, Float, Kind, Scalar, check_range, kind_of_numpy, kind_of_scalar
from wgpu_nn.errors import KindError, ShapeError
from wgpu_nn.shape import Shape
from wgpu_nn.tensor.device import Device, default_device
from wgpu_nn.tensor.tensor import Tensor

Sizes = int | Sequence[int]


def _on(device: Device | None) -> Device:
    return default_device() if device is None else device


def _shape(sizes: Sizes) -> Shape:
    return (sizes,) if isinstance(sizes, int) else tuple(int(n) for n in sizes)


def _element(where: Device, kind: Kind, dtype: DType | None) -> DType:
    """Return the element type named, or else the device's for the kind."""
    if dtype is None or dtype in (F16, where.backend.dtypes[dtype.kind]):
        return dtype or where.dtype(kind)
    raise KindError(f"tensor: expected {where.backend.dtypes[dtype.kind]} or f16 on {where}, got {dtype}")


def tensor(data: Any, device: Device | None = None, kind: Kind | None = None, dtype: DType | None = None) -> Tensor:
    """Return a tensor of numbers, nested lists or an array; its kind is that of the data unless one is named.

    The device decides the element type, f32 and i32 on GPUs, unless ``dtype`` names float16 or the data are an array of
    it. Elements that are no numbers, Ints beyond the device's, and element types that it has not raise KindError.
    """
    if isinstance(data, Tensor):
        moved = data.to(_on(device))
        if kind is None and dtype is None:
            return moved
        return moved.cast(_element(moved.device, kind or moved.kind, dtype))
    array = np.asarray(data)
    found = kind_of_numpy(array.dtype)
    if array.size == 0 and not isinstance(data, np.ndarray):
        found = Float  # an empty list says nothing of a kind; NumPy takes it for Floats as well
    if found is None:
        raise KindError(f"tensor: expected numbers or truths, got elements of {array.dtype}")
    where = _on(device)
    if dtype is None and kind in (None, Float) and array.dtype == F16.numpy and where.backend.dtypes[Float] == F32:
        dtype = F16
    dtype = _element(where, kind or found, dtype)
    check_range("tensor", array, dtype)
    return Tensor(where, where.backend.upload(array, dtype))


def full(
    sizes: Sizes, value: Scalar, device: Device | None = None, kind: Kind | None = None, dtype: DType | None = None
) -> Tensor:
    """[*sizes] of the kind of ``value``, or of ``kind``, or of ``dtype``: every element ``value``."""
    where = _on(device)
    element = _element(where, kind or kind_of_scalar(value), dtype)
    return Tensor(where, where.backend.run("full", value, shape=_shape(sizes), dtype=element))


def zeros(sizes: Sizes, device: Device | None = None, kind: Kind = Float, dtype: DType | None = None) -> Tensor:
    """[*sizes]: zeros (false for Bool)."""
    return full(sizes, False if kind is Kind.BOOL else 0, device, kind, dtype)


def ones(sizes: Sizes, device: Device | None = None, kind: Kind = Float, dtype: DType | None = None) -> Tensor:
    """[*sizes]: ones (true for Bool)."""
    return full(sizes, True if kind is Kind.BOOL else 1, device, kind, dtype)


def zeros_like(x: Tensor) -> Tensor:
    """Return zeros of the shape, element type and device of ``x``."""
    return zeros(x.shape, x.device, x.kind, x.dtype)


def ones_like(x: Tensor) -> Tensor:
    """Return ones of the shape, element type and device of ``x``."""
    return ones(x.shape, x.device, x.kind, x.dtype)


def arange(start: int, stop: int | None = None, step: int = 1, device: Device | None = None) -> Tensor:
    """[n] Int: from ``start`` (or 0) up to but without ``stop``, ``step`` apart; a step of 0 raises ShapeError."""
    first, last = (0, start) if stop is None else (start, stop)
    if step == 0:
        raise ShapeError("arange: expected a step other than 0")
    where = _on(device)
    return Tensor(where, where.backend.run("arange", first, step, shape=(len(range(first, last, step)),)))


def eye(n: int, device: Device | None = None) -> Tensor:
    """[n, n] Float: ones on the diagonal."""
    places = arange(n, device=device)
    return (places.unsqueeze(1) == places.unsqueeze(0)).float()


def _random(op: str, sizes: Sizes, device: Device | None) -> Tensor:
    where = _on(device)
    seed, stream = where.backend.host(where.rng.next)
    return Tensor(where, where.backend.run(op, seed, stream, shape=_shape(sizes)))


def rand(sizes: Sizes, device: Device | None = None, dtype: DType | None = None) -> Tensor:
    """[*sizes] Float: uniform in [0, 1), multiples of 2^-24 (2^-11 in f16), from the device's generator."""
    found = _random("uniform", sizes, device)
    dtype = _element(found.device, Float, dtype)
    if dtype == F16:  # which has no number between 1 - 2^-11 and 1, to which it would round
        found = (found * 2.0**11).floor() * 2.0**-11
    return found.cast(dtype)


def randn(sizes: Sizes, device: Device | None = None, dtype: DType | None = None) -> Tensor:
    """[*sizes] Float: standard normal, from the device's generator."""
    found = _random("normal", sizes, device)
    return found.cast(_element(found.device, Float, dtype))


def bernoulli(sizes: Sizes, probability: float, device: Device | None = None) -> Tensor:
    """[*sizes] Bool: each true with ``probability``, from the device's generator."""
    return _random("uniform", sizes, device) < probability


def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Tensors of one kind joined along axis ``dim``: [.., a, ..], [.., b, ..] -> [.., a + b, ..].

    Floats of several widths give the widest. Raises ShapeError for none, or where other axes differ, and KindError
    where kinds do.
    """
    if not tensors:
        raise ShapeError("cat: expected at least one tensor, got none; give it some")
    first = tensors[0]
    return first.run("cat", *tensors, axis=shapes.axis("cat", dim, first.rank))


def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """n tensors of one shape [..] joined along a new axis ``dim``: [.., n, ..]. Raises as ``cat`` does."""
    if not tensors:
        raise ShapeError("stack: expected at least one tensor, got none; give it some")
    return cat([t.unsqueeze(dim) for t in tensors], dim if dim >= 0 else dim + tensors[0].rank + 1)


def where(condition: Tensor, x: Tensor | Scalar, y: Tensor | Scalar) -> Tensor:
    """``x`` where the Bool ``condition`` is true, else ``y``; shapes broadcast. Other conditions raise KindError."""
    return condition.where(x, y)
