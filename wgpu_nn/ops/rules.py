"""The shape and kind rules of all ops, one function a family; each is written here and nowhere else."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import cast

from wgpu_nn.dtype import Bool as BoolKind
from wgpu_nn.dtype import DType, Float, Int, Kind, kind_of_scalar, promoted
from wgpu_nn.errors import KindError, ShapeError
from wgpu_nn.ops.spec import Attrs, Operand, Rule, Spec, tensor
from wgpu_nn.shape import Range, Shape, broadcast, infer_reshape, reduced, size, window_count

Operands = Sequence[Operand]
DTypes = Mapping[Kind, DType]
NUMBERS = (Float, Int)
ANY = (Float, Int, BoolKind)


def common_dtype(op: str, xs: Operands, dtypes: DTypes) -> DType:
    """Return the one element type of all operands; numbers adapt to the tensors beside them.

    Floats of several widths give the widest, but tensors of rank 0 among them count as numbers beside others.
    """
    found = [x.dtype for x in xs if isinstance(x, Spec)]
    scalars = [kind_of_scalar(x) for x in xs if not isinstance(x, Spec)]
    if not found:
        return dtypes[Float if Float in scalars else scalars[0]]
    first = found[0]
    for other in found[1:]:
        if other.kind is not first.kind or (other != first and first.kind is not Float):
            way = "Float and Int never mix silently: convert one with .float() or .int()"
            raise KindError(
                f"{op}: expected operands of one element type, got {first.kind} ({first}) and {other.kind} ({other}); {way}"
            )
    for kind in scalars:
        if kind is not first.kind and not (first.kind is Float and kind is Int):
            raise KindError(
                f"{op}: expected a {first.kind} number beside a {first.kind} tensor, got a {kind} number; convert one of them"
            )
    if any(other != first for other in found):
        spread = [x.dtype for x in xs if isinstance(x, Spec) and x.shape]
        first = functools.reduce(promoted, spread or found)
    return first


def shapes(xs: Operands) -> list[Shape]:
    """Return the shapes of the operands that are tensors."""
    return [x.shape for x in xs if isinstance(x, Spec)]


def elementwise(*kinds: Kind, result: Kind | None = None) -> Rule:
    """Rule of map ops: shapes broadcast, element types agree, and the result has them or the kind ``result``."""

    def rule(op: str, xs: Operands, attrs: Attrs, dtypes: DTypes) -> Spec:
        dtype = common_dtype(op, xs, dtypes)
        if dtype.kind not in kinds:
            bad = next((x for x in xs if isinstance(x, Spec)), xs[0])
            tensor(op, bad, *kinds)
        return Spec(broadcast(op, *shapes(xs)), dtype if result is None else dtypes[result])

    return rule


def where(op: str, xs: Operands, attrs: Attrs, dtypes: DTypes) -> Spec:
    tensor(op, xs[0], BoolKind)
    return Spec(broadcast(op, *shapes(xs)), common_dtype(op, xs[1:], dtypes))


def cast_to(op: str, xs: Operands, attrs: Attrs, dtypes: DTypes) -> Spec:
    return Spec(tensor(op, xs[0]).shape, cast(DType, attrs["dtype"]))


def source(kind: Kind) -> Rule:
    """Rule of ops that make a tensor of ``attrs["shape"]``."""

    def rule(op: str, xs: Operands, attrs: Attrs, dtypes: DTypes) -> Spec:
        shape = cast(Shape, attrs["shape"])
        if any(n < 0 for n in shape):
            raise ShapeError(f"{op}: expected sizes of 0 or more, got {list(shape)}")
        for x in xs:
            if isinstance(x, Spec):
                tensor(op, x, Int)
        return Spec(shape, dtypes[kind])

    return rule


def full(op: str, xs: Operands, attrs: Attrs, dtypes: DTypes) -> Spec:
    spec = source(Float)(op, (), attrs, dtypes)
    return Spec(spec.shape, cast(DType, attrs["dtype"]))


def reduction(*kinds: Kind, result: Kind | None = None, identity: bool = True) -> Rule:
    """Rule of reductions over ``attrs["axes"]``; without an identity the folded axes must not be empty."""

    def rule(op: str, xs: Operands, attrs: Attrs, dtypes: DTypes) -> Spec:
        x = tensor(op, xs[0], *kinds)
        axes = cast(tuple[int, ...], attrs["axes"])
        if not identity and any(x.shape[a] == 0 for a in axes):
            raise ShapeError(f"{op}: has no value over an axis without elements, got {list(x.shape)} over axes {axes}")
        return Spec(reduced(x.shape, axes, bool(attrs["keepdim"])), x.dtype if result is None else dtypes[result])

    return rule


def reshape(op: str, xs: Operands, attrs: Attrs, dtypes: DTypes) -> Spec:
    x = tensor(op, xs[0])
    return Spec(infer_reshape(x.shape, cast(Shape, attrs["shape"])), x.dtype)


def permute(op: str, xs: Operands, attrs: Attrs, dtypes: DTypes) -> Spec:
    x, axes = tensor(op, xs[0]), cast(tuple[int, ...], attrs["axes"])
    if sorted(axes) != list(range(len(x.shape))):
        raise ShapeError(f"permute: expected each axis of {list(x.shape)} once, got {list(axes)}")
    return Spec(tuple(x.shape[a] for a in axes), x.dtype)


def expand(op: str, xs: Operands, attrs: Attrs, dtypes: DTypes) -> Spec:
    x, target = tensor(op, xs[0]), cast(Shape, attrs["shape"])
    lead = len(target) - len(x.shape)
    if lead < 0 or any(n not in (1, t) for n, t in zip(x.shape, target[lead:], strict=False)):
        raise ShapeError(
            f"expand: expected sizes of 1 or equal ones from the right, got {list(x.shape)} to {list(target)}"
        )
    return Spec(target, x.dtype)


def strided_slice(op: str, xs: Operands, attrs: Attrs, dtypes: DTypes) -> Spec:
    x, ranges = tensor(op, xs[0]), cast(tuple[Range, ...], attrs["ranges"])
    if len(ranges) != len(x.shape):
        raise ShapeError(f"{op}: expected one range for each axis of {list(x.shape)}, got {len(ranges)}")
    for (start, step, count), n in zip(ranges, x.shape, strict=True):
        if count and not (0 <= start < n and 0 <= start + step * (count - 1) < n):
            raise ShapeError(f"{op}: expected indices below {n}, got {count} from {start} by {step}")
    return Spec(tuple(count for _, _, count in ranges), x.dtype)


def slice_assign(op: str, xs: Operands, attrs: Attrs, dtypes: DTypes) -> Spec:
    x, value = tensor(op, xs[0]), tensor(op, xs[1])
    common_dtype(op, xs, dtypes)
    region = strided_slice(op, xs[:1], attrs, dtypes)
    if value.shape != region.shape:
        raise ShapeError(f"{op}: expected a value of the region's shape {list(region.shape)}, got {list(value.shape)}")
    return x


def cat(op: str, xs: Operands, attrs: Attrs, dtypes: DTypes) -> Spec:
    parts, axis = [tensor(op, x) for x in xs], cast(int, attrs["axis"])
    dtype = common_dtype(op, xs, dtypes)
    first = parts[0].shape
    for p in parts[1:]:
        if len(p.shape) != len(first) or any(
            a != b for i, (a, b) in enumerate(zip(p.shape, first, strict=True)) if i != axis
        ):
            raise ShapeError(f"cat: expected shapes equal but on axis {axis}, got {list(first)} and {list(p.shape)}")
    return Spec((*first[:axis], sum(p.shape[axis] for p in parts), *first[axis + 1 :]), dtype)


def matmul(op: str, xs: Operands, attrs: Attrs, dtypes: DTypes) -> Spec:
    x, y = tensor(op, xs[0], Float), tensor(op, xs[1], Float)
    dtype = common_dtype(op, xs, dtypes)
    got = f"got {list(x.shape)} @ {list(y.shape)}"
    if len(x.shape) < 2 or len(y.shape) < 2:
        raise ShapeError(f"matmul: expected ranks of 2 or more, {got}; reshape the vector")
    if x.shape[-1] != y.shape[-2]:
        raise ShapeError(f"matmul: inner sizes differ, {got}; transpose one of them?")
    return Spec((*broadcast(op, x.shape[:-2], y.shape[:-2]), x.shape[-2], y.shape[-1]), dtype)


def rank_of(op: str, name: str, x: Operand, rank: int, layout: str) -> Spec:
    """Return ``x`` if it is a Float tensor of ``rank``, laid out as ``layout`` says."""
    spec = tensor(op, x, Float)
    if len(spec.shape) != rank:
        raise ShapeError(f"{op}: expected {name} of rank {rank} {layout}, got {list(spec.shape)}")
    return spec


def like(index: int, attr: str, rank: int = 4) -> Rule:
    """Rule of gradients: the element type of the operand ``index`` and the shape ``attrs[attr]``."""

    def rule(op: str, xs: Operands, attrs: Attrs, dtypes: DTypes) -> Spec:
        return Spec(
            cast(Shape, attrs[attr]),
            rank_of(op, "a gradient", xs[index], rank, "[batch, channels, height, width]").dtype,
        )

    return rule


def pool2d(result: Kind) -> Rule:
    """Rule of windows of ``attrs["kernel"]`` over the last two axes."""

    def rule(op: str, xs: Operands, attrs: Attrs, dtypes: DTypes) -> Spec:
        x = rank_of(op, "an input", xs[0], 4, "[batch, channels, height, width]")
        (kh, kw), (sh, sw), (ph, pw) = attrs["kernel"], attrs["stride"], attrs["padding"]
        if 2 * max(ph) > kh or 2 * max(pw) > kw:
            raise ShapeError(f"{op}: expected a padding of half the window at most, got {(ph, pw)} for {(kh, kw)}")
        n, c, h, w = x.shape
        shape = (n, c, window_count(op, h, kh, sh, ph), window_count(op, w, kw, sw, pw))
        return Spec(shape, x.dtype if result is Float else dtypes[result])

    return rule


def pool2d_grad(op: str, xs: Operands, attrs: Attrs, dtypes: DTypes) -> Spec:
    """Rule of gradients of pooling to ``attrs["shape"]``, from one number a window, and perhaps its position."""
    g = rank_of(op, "a gradient", xs[0], 4, "[batch, channels, height, width]")
    x = Spec(cast(Shape, attrs["shape"]), g.dtype)
    windows = pool2d(Float)(op, (x,), attrs, dtypes).shape
    for given in xs:
        if tensor(op, given).shape != windows:
            raise ShapeError(f"{op}: expected a number for each of the windows {list(windows)} of {x}, got {given}")
    return x


def adaptive_pool2d(op: str, xs: Operands, attrs: Attrs, dtypes: DTypes) -> Spec:
    x = rank_of(op, "an input", xs[0], 4, "[batch, channels, height, width]")
    out = cast(Shape, attrs["size"])
    if min(out) < 1 or min(x.shape[2:]) < 1:
        raise ShapeError(f"{op}: expected sizes of 1 or more, got {list(x.shape)} to {list(out)}")
    return Spec((*x.shape[:2], *out), x.dtype)


def gather(op: str, xs: Operands, attrs: Attrs, dtypes: DTypes) -> Spec:
    x, index = tensor(op, xs[0]), tensor(op, xs[1], Int)
    indexed(op, x.shape, index.shape, cast(int, attrs["axis"]))
    return Spec(index.shape, x.dtype)


def indexed(op: str, shape: Shape, index: Shape, axis: int) -> None:
    """Check that ``index`` has the rank of ``shape`` and is no larger but on ``axis``."""
    if len(shape) != len(index) or any(i > n for d, (n, i) in enumerate(zip(shape, index, strict=False)) if d != axis):
        raise ShapeError(
            f"{op}: expected an index of rank {len(shape)} within {list(shape)} but on axis {axis}, got {list(index)}"
        )
    if size(index) and not shape[axis]:
        raise ShapeError(f"{op}: cannot index axis {axis} of {list(shape)}, which has no elements")


def scatter_add(op: str, xs: Operands, attrs: Attrs, dtypes: DTypes) -> Spec:
    x, index, source = tensor(op, xs[0], *NUMBERS), tensor(op, xs[1], Int), tensor(op, xs[2], *NUMBERS)
    common_dtype(op, (x, source), dtypes)
    indexed(op, x.shape, index.shape, cast(int, attrs["axis"]))
    if source.shape != index.shape:
        raise ShapeError(f"{op}: expected a source of the index's shape {list(index.shape)}, got {list(source.shape)}")
    return x


def same(op: str, xs: Operands, attrs: Attrs, dtypes: DTypes) -> Spec:
    return tensor(op, xs[0], Float)


def cross_entropy(op: str, xs: Operands, attrs: Attrs, dtypes: DTypes) -> Spec:
    x, targets = tensor(op, xs[0], Float), tensor(op, xs[1], Int)
    if len(x.shape) != 2 or not x.shape[1] or targets.shape != x.shape[:1]:
        raise ShapeError(
            f"{op}: expected logits [batch, classes] and targets [batch], got {list(x.shape)} and {list(targets.shape)}"
        )
    return Spec(targets.shape, x.dtype)


def cross_entropy_grad(op: str, xs: Operands, attrs: Attrs, dtypes: DTypes) -> Spec:
    rows = cross_entropy(op, xs[1:], attrs, dtypes)
    if isinstance(xs[0], Spec) and tensor(op, xs[0], Float).shape != rows.shape:
        raise ShapeError(f"{op}: expected a cotangent for each of {list(rows.shape)} rows, got {xs[0]}")
    return Spec(tensor(op, xs[1]).shape, rows.dtype)
