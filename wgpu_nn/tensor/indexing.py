"""Turns NumPy's indexing keys into ranges, removed axes, new axes, and at most one index tensor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from wgpu_nn.dtype import Int
from wgpu_nn.errors import IndexRangeError, KindError, ShapeError
from wgpu_nn.shape import Range, normalize_range

if TYPE_CHECKING:
    from wgpu_nn.tensor.tensor import Tensor

Key = Any  # an int, slice, None, Ellipsis, Int tensor or list of ints; or a tuple of them


@dataclass(slots=True)
class Place:
    """Where a key points: a range per axis, the axes that integers remove, the places of new axes, an index tensor.

    ``apart`` is the first of the index tensor's axes in the result, if NumPy moves these to the front: it does where
    integers and the index tensor are not neighbours in the key.
    """

    ranges: list[Range]
    dropped: list[int]
    added: list[int]
    select: tuple[int, Tensor] | None
    apart: int | None = None


def locate(x: Tensor, key: Key) -> Place:
    """Return what ``key`` means for ``x``; raise as NumPy does where it does not fit."""
    parts: list[Any] = list(cast(tuple[Any, ...], key)) if isinstance(key, tuple) else [key]
    consumed = sum(1 for p in parts if p is not None and p is not Ellipsis)
    if consumed > x.rank:
        raise ShapeError(f"index: expected at most {x.rank} indices for shape {list(x.shape)}, got {consumed}")
    if sum(1 for p in parts if p is Ellipsis) > 1:
        raise ShapeError("index: expected at most one ellipsis")
    points = [i for i, p in enumerate(parts) if p is not None and p is not Ellipsis and not isinstance(p, slice)]
    scattered = bool(points) and points[-1] - points[0] >= len(points)
    if not any(p is Ellipsis for p in parts):
        parts.append(Ellipsis)
    at = next(i for i, p in enumerate(parts) if p is Ellipsis)
    parts[at : at + 1] = [slice(None)] * (x.rank - consumed)
    place = Place([], [], [], None)
    axis = 0
    written = 0
    for part in parts:
        if part is None:
            place.added.append(written)
            written += 1
            continue
        n = x.shape[axis]
        if isinstance(part, slice):
            place.ranges.append(normalize_range("index", axis, n, cast("slice[Any, Any, Any]", part)))
            written += 1
        elif isinstance(part, bool | np.bool_):
            raise KindError("index: expected integers, slices or an Int tensor, got a truth value")
        elif isinstance(part, int | np.integer):
            i = int(cast(int, part))
            if not -n <= i < n:
                raise IndexRangeError(f"index: expected {-n} to {n - 1} on axis {axis}, got {i}")
            place.ranges.append((i % n, 1, 1))
            place.dropped.append(axis)
        else:
            if place.select is not None:
                raise ShapeError("index: expected at most one index tensor; use gather for more")
            index = _index_tensor(x, part)
            place.ranges.append((0, 1, n))
            place.select = (axis, index)
            place.apart = written if scattered else None
            written += index.rank
        axis += 1
    return place


def _index_tensor(x: Tensor, part: Any) -> Tensor:
    from wgpu_nn.tensor.creation import tensor
    from wgpu_nn.tensor.tensor import Tensor

    if not isinstance(part, Tensor | np.ndarray):
        part = np.asarray(part, None if np.size(part) else np.int64)  # NumPy takes an empty list for Floats
    index = part if isinstance(part, Tensor) else tensor(part, device=x.device)
    if index.kind is not Int:
        raise KindError(f"index: expected an Int tensor, got {index.kind}; for a mask use mask.where(x, other)")
    return index
