"""The shape and kind rules of scans, sorts and selections."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from wgpu_nn.dtype import Int
from wgpu_nn.errors import ShapeError
from wgpu_nn.ops.rules import NUMBERS, DTypes
from wgpu_nn.ops.spec import Attrs, Operand, Spec, tensor


def scan(op: str, xs: Sequence[Operand], attrs: Attrs, dtypes: DTypes) -> Spec:
    return tensor(op, xs[0], *NUMBERS)


def argsort(op: str, xs: Sequence[Operand], attrs: Attrs, dtypes: DTypes) -> Spec:
    return Spec(tensor(op, xs[0], *NUMBERS).shape, dtypes[Int])


def argtopk(op: str, xs: Sequence[Operand], attrs: Attrs, dtypes: DTypes) -> Spec:
    x, axis, k = tensor(op, xs[0], *NUMBERS), cast(int, attrs["axis"]), cast(int, attrs["k"])
    if not 0 <= k <= x.shape[axis]:
        raise ShapeError(f"topk: expected k from 0 to {x.shape[axis]}, the size of axis {axis}, got {k}")
    return Spec((*x.shape[:axis], k, *x.shape[axis + 1 :]), dtypes[Int])


def places(op: str, xs: Sequence[Operand], attrs: Attrs, dtypes: DTypes) -> Spec:
    counts, count = tensor(op, xs[0], Int), cast(int, attrs["count"])
    if len(counts.shape) != 1 or not 0 <= count <= counts.shape[0]:
        raise ShapeError(f"{op}: expected running counts of rank 1, up to {count}, got {counts}")
    return Spec((count,), dtypes[Int])
