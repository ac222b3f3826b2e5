"""Integer arithmetic on shapes, strides and axes; raises ShapeError, knows neither ops nor devices."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

from wgpu_nn.errors import ShapeError

Shape = tuple[int, ...]
# One axis of a slice: first index, step (never 0, may be negative), number of elements.
Range = tuple[int, int, int]

MAX_RANK = 8


def size(shape: Shape) -> int:
    """Return the number of elements of ``shape`` (1 for rank 0)."""
    return math.prod(shape)


@functools.lru_cache(4096)
def row_major(shape: Shape) -> Shape:
    """Return the strides, in elements, of a contiguous array of ``shape``."""
    strides: list[int] = []
    step = 1
    for n in reversed(shape):
        strides.append(step)
        step *= n
    return tuple(reversed(strides))


def is_row_major(shape: Shape, strides: Shape) -> bool:
    """Say whether ``strides`` walk ``shape`` contiguously (strides of axes of size 1 do not matter)."""
    step = 1
    for n, s in zip(reversed(shape), reversed(strides), strict=True):
        if n == 0:
            return True
        if n != 1 and s != step:
            return False
        step *= n
    return True


def broadcast(op: str, *shapes: Shape) -> Shape:
    """Return the shape that ``shapes`` broadcast to by NumPy's rule."""
    rank = max((len(s) for s in shapes), default=0)
    out = [1] * rank
    for s in shapes:
        for i, n in enumerate(s, rank - len(s)):
            if n != 1 and out[i] != n:
                if out[i] != 1:
                    got = " and ".join(str(list(s)) for s in shapes)
                    raise ShapeError(
                        f"{op}: shapes do not broadcast, got {got}; sizes must be equal or 1, from the right"
                    )
                out[i] = n
    return tuple(out)


def axis(op: str, dim: int, rank: int) -> int:
    """Return ``dim`` counted from the front; negative ones count from the end."""
    if not -rank <= dim < rank:
        raise ShapeError(f"{op}: expected an axis of a rank-{rank} tensor ({-rank} to {rank - 1}), got {dim}")
    return dim % rank


def axes(op: str, dims: int | Sequence[int] | None, rank: int) -> tuple[int, ...]:
    """Return sorted axes counted from the front; None means all of them."""
    if dims is None:
        return tuple(range(rank))
    given = (dims,) if isinstance(dims, int) else tuple(dims)
    found = sorted(axis(op, d, rank) for d in given)
    if len(set(found)) != len(found):
        raise ShapeError(f"{op}: expected distinct axes, got {given}")
    return tuple(found)


def reduced(shape: Shape, dims: tuple[int, ...], keepdim: bool) -> Shape:
    """Return ``shape`` with the axes ``dims`` removed, or of size 1 with ``keepdim``."""
    if keepdim:
        return tuple(1 if i in dims else n for i, n in enumerate(shape))
    return tuple(n for i, n in enumerate(shape) if i not in dims)


def infer_reshape(shape: Shape, target: Sequence[int]) -> Shape:
    """Return ``target`` with its one -1 filled in from the size of ``shape``."""
    wanted = tuple(int(n) for n in target)
    known = math.prod(n for n in wanted if n != -1)
    free = wanted.count(-1)
    if free > 1 or any(n < -1 for n in wanted):
        raise ShapeError(f"reshape: expected sizes of 0 or more and at most one -1, got {list(wanted)}")
    if free:
        if known == 0 or size(shape) % known:
            raise ShapeError(f"reshape: cannot fill -1 in {list(wanted)} from {list(shape)} ({size(shape)} elements)")
        wanted = tuple(size(shape) // known if n == -1 else n for n in wanted)
    if size(wanted) != size(shape):
        raise ShapeError(
            f"reshape: expected a shape of {size(shape)} elements like {list(shape)}, "
            f"got {list(wanted)} with {size(wanted)}; -1 lets one size be inferred"
        )
    return wanted


def view_strides(shape: Shape, strides: Shape, target: Shape) -> Shape | None:
    """Return the strides that show ``shape``/``strides`` as ``target`` without a copy, or None if none do.

    Adjacent axes that walk memory as one are merged, and each merged run must be a product of target axes.
    """
    if size(shape) == 0 or is_row_major(shape, strides):
        return row_major(target)
    runs: list[list[int]] = []  # [size, stride of the innermost axis]
    for n, s in zip(shape, strides, strict=True):
        if n == 1:
            continue
        if runs and runs[-1][1] == n * s:
            runs[-1] = [runs[-1][0] * n, s]
        else:
            runs.append([n, s])
    out = [0] * len(target)
    at = len(target) - 1
    for n, s in reversed(runs):
        while n > 1:
            if at < 0:
                return None
            t = target[at]
            if t != 1:
                if n % t:
                    return None
                out[at] = s
                n, s = n // t, s * t
            at -= 1
    return tuple(out)


def collapse(shape: Shape, operands: Sequence[Shape], keep_ones: bool = False) -> tuple[Shape, list[Shape]]:
    """Merge adjacent axes that every operand walks as one; drop axes of size 1, unless they are to be kept.

    ``operands`` are strides over ``shape``. Fewer axes mean fewer divisions per element in a kernel.
    """
    sizes: list[int] = []
    merged: list[list[int]] = [[] for _ in operands]
    for i, n in enumerate(shape):
        if n == 1 and not keep_ones:
            continue
        if sizes and all(m[-1] == n * s[i] for m, s in zip(merged, operands, strict=True)):
            sizes[-1] *= n
            for m, s in zip(merged, operands, strict=True):
                m[-1] = s[i]
        else:
            sizes.append(n)
            for m, s in zip(merged, operands, strict=True):
                m.append(s[i])
    return tuple(sizes), [tuple(m) for m in merged]


def broadcast_strides(shape: Shape, strides: Shape, target: Shape) -> Shape:
    """Return the strides of an array of ``shape`` seen as ``target``: 0 along every axis that is repeated."""
    lead = len(target) - len(shape)
    return (0,) * lead + tuple(0 if n == 1 else s for n, s in zip(shape, strides, strict=True))


def normalize_range(op: str, dim: int, n: int, key: slice) -> Range:
    """Return (start, step, count) of a Python slice over an axis of ``n`` elements, clamped as NumPy clamps."""
    step = 1 if key.step is None else int(key.step)
    if step == 0:
        raise ShapeError(f"{op}: expected a step other than 0 on axis {dim}")
    start, stop, step = key.indices(n)
    return start, step, len(range(start, stop, step))


def window_count(op: str, n: int, window: int, stride: int, pad: tuple[int, int], dilation: int = 1) -> int:
    """Return how many windows fit: floor((n + pads - dilation * (window - 1) - 1) / stride) + 1."""
    count = (n + pad[0] + pad[1] - dilation * (window - 1) - 1) // stride + 1
    if count < 1:
        raise ShapeError(f"{op}: window of {dilation * (window - 1) + 1} does not fit in {n} elements padded by {pad}")
    return count
