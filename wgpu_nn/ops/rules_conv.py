"""The shape rules of convolutions and their gradients, in any number of spatial axes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import cast

from wgpu_nn.dtype import DType, Kind
from wgpu_nn.errors import ShapeError
from wgpu_nn.ops.rules import common_dtype, rank_of
from wgpu_nn.ops.spec import Attrs, Operand, Rule, Spec
from wgpu_nn.shape import Shape, window_count

_SIDES = {2: "height, width", 3: "depth, height, width"}


def _windows(op: str, sizes: Shape, kernel: Shape, attrs: Attrs) -> Shape:
    """Return how many windows fit along each axis."""
    given = zip(sizes, kernel, attrs["stride"], attrs["padding"], attrs["dilation"], strict=True)
    return tuple(window_count(op, n, k, s, p, d) for n, k, s, p, d in given)


def convolution(axes: int) -> Rule:
    """Rule of x, weight and perhaps bias to their convolution over the last ``axes`` axes."""

    def rule(op: str, xs: Sequence[Operand], attrs: Attrs, dtypes: Mapping[Kind, DType]) -> Spec:
        x = rank_of(op, "an input", xs[0], axes + 2, f"[batch, channels, {_SIDES[axes]}]")
        w = rank_of(op, "a weight", xs[1], axes + 2, f"[out, in / groups, {_SIDES[axes]}]")
        dtype, groups = common_dtype(op, xs, dtypes), int(attrs["groups"])
        (n, c, *sizes), (o, into, *kernel) = x.shape, w.shape
        if c != into * groups or o % groups:
            raise ShapeError(
                f"{op}: expected {into} x {groups} groups = {into * groups} input channels and out channels divisible "
                f"by the groups, got input {list(x.shape)} and weight {list(w.shape)}"
            )
        if len(xs) == 3 and rank_of(op, "a bias", xs[2], 1, "[out]").shape != (o,):
            raise ShapeError(f"{op}: expected a bias of shape [{o}], got {xs[2]}")
        return Spec((n, o, *_windows(op, tuple(sizes), tuple(kernel), attrs)), dtype)

    return rule


def input_grad(axes: int) -> Rule:
    """Rule of g and weight to a gradient of ``attrs["shape"]``, which may have elements behind the last window."""

    def rule(op: str, xs: Sequence[Operand], attrs: Attrs, dtypes: Mapping[Kind, DType]) -> Spec:
        g = rank_of(op, "a gradient", xs[0], axes + 2, f"[batch, channels, {_SIDES[axes]}]")
        w = rank_of(op, "a weight", xs[1], axes + 2, f"[out, in / groups, {_SIDES[axes]}]")
        dtype, shape = common_dtype(op, xs, dtypes), cast(Shape, attrs["shape"])
        _check(op, g.shape, w.shape, shape, attrs)
        return Spec(shape, dtype)

    return rule


def weight_grad(axes: int) -> Rule:
    """Rule of x and g to a gradient of ``attrs["shape"]``; x may have elements behind the last window."""

    def rule(op: str, xs: Sequence[Operand], attrs: Attrs, dtypes: Mapping[Kind, DType]) -> Spec:
        x = rank_of(op, "an input", xs[0], axes + 2, f"[batch, channels, {_SIDES[axes]}]")
        g = rank_of(op, "a gradient", xs[1], axes + 2, f"[batch, channels, {_SIDES[axes]}]")
        dtype, shape = common_dtype(op, xs, dtypes), cast(Shape, attrs["shape"])
        _check(op, g.shape, shape, x.shape, attrs)
        return Spec(shape, dtype)

    return rule


def _check(op: str, g: Shape, w: Shape, x: Shape, attrs: Attrs) -> None:
    """Raise unless windows of ``w`` over ``x`` give ``g``, or more than it along some axis."""
    groups = int(attrs["groups"])
    fits = len(g) == len(w) == len(x) and x[:2] == (g[0], w[1] * groups) and g[1] == w[0] and w[0] % groups == 0
    if fits and math.prod(x[2:]) and math.prod(w[2:]):  # in an empty batch too
        fits = all(m <= n for m, n in zip(g[2:], _windows(op, x[2:], w[2:], attrs), strict=True))
    if not fits:
        raise ShapeError(
            f"{op}: expected an input [batch, {w[1]} x {groups} groups, ...] and a gradient [batch, {w[0]}, ...] of no "
            f"more than its windows, got {list(x)} and {list(g)} for a weight {list(w)}"
        )
