"""The shape and kind rules of scans, sorts and selections."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from wgpu_nn.dtype import Int
from wgpu_nn.errors import ShapeError
from wgpu_nn.ops.rules import ANY, NUMBERS, DTypes
from wgpu_nn.ops.spec import Attrs, Operand, Spec, tensor
from wgpu_nn.shape import Shape, size

SPAN = 2048  # elements of a slice, of which tallies and places are made


def scan(op: str, xs: Sequence[Operand], attrs: Attrs, dtypes: DTypes) -> Spec:
    return tensor(op, xs[0], *NUMBERS)


def argsort(op: str, xs: Sequence[Operand], attrs: Attrs, dtypes: DTypes) -> Spec:
    return Spec(tensor(op, xs[0], *NUMBERS).shape, dtypes[Int])


def argtopk(op: str, xs: Sequence[Operand], attrs: Attrs, dtypes: DTypes) -> Spec:
    x, axis, k = tensor(op, xs[0], *NUMBERS), cast(int, attrs["axis"]), cast(int, attrs["k"])
    if not 0 <= k <= x.shape[axis]:
        raise ShapeError(f"topk: expected k from 0 to {x.shape[axis]}, the size of axis {axis}, got {k}")
    return Spec((*x.shape[:axis], k, *x.shape[axis + 1 :]), dtypes[Int])


def tallies(op: str, xs: Sequence[Operand], attrs: Attrs, dtypes: DTypes) -> Spec:
    x = tensor(op, xs[0], *ANY)
    if len(x.shape) != 1:
        raise ShapeError(f"{op}: expected a tensor of rank 1, got {x}; reshape it")
    return Spec((-(-x.shape[0] // SPAN),), dtypes[Int])


def places(op: str, xs: Sequence[Operand], attrs: Attrs, dtypes: DTypes) -> Spec:
    x, ends = tensor(op, xs[0], *ANY), tensor(op, xs[1], Int)
    shape, count = cast(Shape, attrs["shape"]), cast(int, attrs["count"])
    if x.shape != (size(shape),) or ends.shape != (-(-x.shape[0] // SPAN),) or not 0 <= count <= x.shape[0]:
        raise ShapeError(
            f"{op}: expected the {size(shape)} elements of {list(shape)} in rank 1, the tallies of these, and a count of "
            f"them, got {x}, {ends} and {count}"
        )
    return Spec((count, len(shape)), dtypes[Int])
