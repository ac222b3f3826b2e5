"""The gradients of all ops: a table from op to one rule per operand; ops without one stand in NO_GRADIENT.

A rule maps the cotangent ``g`` of ``out`` to that of its operand. Operands are named x, y (or x, w, ...); one that is
a Python number arrives as that number. Sums over broadcast axes are taken by the caller.
"""

# A lambda's parameters cannot be annotated, and these are all Terms.
# pyright: reportUnknownLambdaType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from wgpu_nn.autodiff import attention
from wgpu_nn.autodiff.rules_conv import convolution_rules
from wgpu_nn.autodiff.rules_norm import NORM_RULES
from wgpu_nn.autodiff.rules_order import SCANS
from wgpu_nn.dtype import Scalar
from wgpu_nn.shape import Shape, reduced

if TYPE_CHECKING:
    from wgpu_nn.autodiff.backend import Term

Rule = Callable[..., "Term"]


class Each:
    """The rules of an op with any number of operands: rule i is ``fn`` told that it is for operand i."""

    def __init__(self, fn: Callable[..., Term]) -> None:
        self.fn = fn

    def __getitem__(self, i: int) -> Rule:
        return functools.partial(self.fn, i)


def zeros(g: Term, shape: Shape) -> Term:
    return g.run("full", 0.0, shape=shape, dtype=g.dtype)


def number(mask: Term, g: Term) -> Term:
    """Return a Bool as 0 and 1 in the element type of ``g``."""
    return mask.cast(g.dtype)


def spread(g: Term, x: Term, axes: tuple[int, ...], keepdim: bool) -> Term:
    """Return the cotangent of a reduction, repeated over the axes that it folded."""
    return g.reshape(reduced(x.shape, axes, keepdim=True)).expand(x.shape)


def extreme(g: Term, out: Term, x: Term, axes: tuple[int, ...], keepdim: bool) -> Term:
    """Equal extremes share the cotangent equally."""
    hit = number(x == spread(out, x, axes, keepdim), g)
    return spread(g, x, axes, keepdim) * hit / hit.sum(axes, keepdim=True)


def prod(g: Term, out: Term, x: Term, axes: tuple[int, ...], keepdim: bool) -> Term:
    """The product of the others; exact with zeros: one zero leaves only its own gradient, two leave none."""
    zero = x == 0.0
    count = number(zero, g).sum(axes, keepdim=True)
    rest = zero.where(1.0, x).prod(axes, keepdim=True)
    others = zero.where((count == 1.0).where(rest, 0.0), (count == 0.0).where(rest, 0.0) / zero.where(1.0, x))
    return spread(g, x, axes, keepdim) * others


def pow_base(g: Term, out: Term, x: Term, y: Term | Scalar) -> Term:
    if isinstance(y, bool | int | float):
        return g * 0.0 if y == 0 else g * y * x ** (y - 1)
    return g * (y == 0.0).where(0.0, y * x ** (y - 1.0))


def pow_exponent(g: Term, out: Term, x: Term | Scalar, y: Term) -> Term:
    if isinstance(x, bool | int | float):
        return g * out * math.log(x) if x > 0 else g * 0.0
    return g * out * (x > 0.0).where(x, 1.0).log()


def maximum(g: Term, x: Any, y: Any) -> Term:
    """Equal operands share the cotangent, as in PyTorch."""
    return g * (number(x > y, g) + number(x >= y, g)) * 0.5


def slice_(g: Term, out: Term, x: Term, ranges: Any) -> Term:
    return zeros(g, x.shape).slice_assign(ranges, g)


def cat(i: int, g: Term, out: Term, *xs: Term, axis: int) -> Term:
    return g.narrow(axis, sum(x.shape[axis] for x in xs[:i]), xs[i].shape[axis])


def permute(g: Term, out: Term, x: Term, axes: tuple[int, ...]) -> Term:
    return g.permute([axes.index(i) for i in range(len(axes))])


def softmax(g: Term, out: Term, x: Term, axis: int) -> Term:
    return out * (g - (g * out).sum(axis, keepdim=True))


def row(g: Term | Scalar) -> Any:
    """Return a cotangent of rows as a column; a number stays one."""
    return g if isinstance(g, bool | int | float) else g.unsqueeze(1)


def log_softmax(g: Term, out: Term, x: Term, axis: int) -> Term:
    return g - out.exp() * g.sum(axis, keepdim=True)


def max_pool(g: Term, out: Term, x: Term, **window: Any) -> Term:
    return g.run("max_pool2d_grad", g, g.run("argmax_pool2d", x, **window), shape=x.shape, **window)


def max_pool_again(d: Term, out: Term, g: Term, positions: Term, shape: Shape, **window: Any) -> Term:
    n, c, h, w = shape
    seen = positions.reshape(n, c, g.shape[2] * g.shape[3])  # a -1 has no value in an empty batch
    return d.reshape(n, c, h * w).gather(2, seen).reshape(g.shape)


SQRT_PI = math.sqrt(math.pi)

RULES: dict[str, Sequence[Rule | None] | Each] = {
    "neg": (lambda g, out, x: -g,),
    "abs": (lambda g, out, x: g * x.sign(),),
    # out > 0 where x > 0, and x need not be kept.
    "relu": (lambda g, out, x: (out > 0.0).where(g, 0.0),),
    "exp": (lambda g, out, x: g * out,),
    "expm1": (lambda g, out, x: g * (out + 1.0),),
    "log": (lambda g, out, x: g / x,),
    "log1p": (lambda g, out, x: g / (x + 1.0),),
    "sqrt": (lambda g, out, x: g * 0.5 / out,),
    "rsqrt": (lambda g, out, x: g * -0.5 * out / x,),
    "recip": (lambda g, out, x: -g * out * out,),
    "sin": (lambda g, out, x: g * x.cos(),),
    "cos": (lambda g, out, x: -g * x.sin(),),
    "tan": (lambda g, out, x: g * (out * out + 1.0),),
    "asin": (lambda g, out, x: g * (1.0 - x * x).rsqrt(),),
    "acos": (lambda g, out, x: -g * (1.0 - x * x).rsqrt(),),
    "atan": (lambda g, out, x: g / (x * x + 1.0),),
    "sinh": (lambda g, out, x: g * x.cosh(),),
    "cosh": (lambda g, out, x: g * x.sinh(),),
    "tanh": (lambda g, out, x: g * (1.0 - out * out),),
    "sigmoid": (lambda g, out, x: g * out * (1.0 - out),),
    "erf": (lambda g, out, x: g * (-x * x).exp() * (2.0 / SQRT_PI),),
    "sign": (lambda g, out, x: g * 0.0,),
    "floor": (lambda g, out, x: g * 0.0,),
    "ceil": (lambda g, out, x: g * 0.0,),
    "round": (lambda g, out, x: g * 0.0,),
    "cast": (lambda g, out, x, dtype: g.cast(x.dtype),),
    "add": (lambda g, out, x, y: g, lambda g, out, x, y: g),
    "sub": (lambda g, out, x, y: g, lambda g, out, x, y: -g),
    "mul": (lambda g, out, x, y: g * y, lambda g, out, x, y: g * x),
    "div": (lambda g, out, x, y: g / y, lambda g, out, x, y: -g * out / y),
    "pow": (pow_base, pow_exponent),
    "atan2": (lambda g, out, y, x: g * x / (x * x + y * y), lambda g, out, y, x: -g * y / (x * x + y * y)),
    "maximum": (lambda g, out, x, y: maximum(g, x, y), lambda g, out, x, y: maximum(g, y, x)),
    "minimum": (lambda g, out, x, y: maximum(g, y, x), lambda g, out, x, y: maximum(g, x, y)),
    "remainder": (lambda g, out, x, y: g, lambda g, out, x, y: -g * ((x - out) / y).round()),
    "floor_div": (lambda g, out, x, y: g * 0.0, lambda g, out, x, y: g * 0.0),
    "where": (None, lambda g, out, c, x, y: c.where(g, 0.0), lambda g, out, c, x, y: c.where(0.0, g)),
    "sum": (lambda g, out, x, axes, keepdim: spread(g, x, axes, keepdim),),
    "mean": (lambda g, out, x, axes, keepdim: spread(g * (out.size / max(x.size, 1)), x, axes, keepdim),),
    "prod": (prod,),
    "max": (extreme,),
    "min": (extreme,),
    "reshape": (lambda g, out, x, shape: g.reshape(x.shape),),
    "permute": (permute,),
    "expand": (lambda g, out, x, shape: g,),
    "slice": (slice_,),
    "slice_assign": (
        lambda g, out, x, value, ranges: g.slice_assign(ranges, zeros(g, value.shape)),
        lambda g, out, x, value, ranges: g.slice(ranges),
    ),
    "cat": Each(cat),
    "matmul": (lambda g, out, x, y: g @ y.transpose(), lambda g, out, x, y: x.transpose() @ g),
    **convolution_rules("conv2d", 2),
    **convolution_rules("conv3d", 3),
    "max_pool2d": (max_pool,),
    "max_pool2d_grad": (max_pool_again, None),
    "avg_pool2d": (lambda g, out, x, **win: g.run("avg_pool2d_grad", g, shape=x.shape, **win),),
    "avg_pool2d_grad": (lambda d, out, g, shape, **win: d.run("avg_pool2d", d, **win),),
    "adaptive_avg_pool2d": (lambda g, out, x, size: g.run("adaptive_avg_pool2d_grad", g, shape=x.shape),),
    "adaptive_avg_pool2d_grad": (lambda d, out, g, shape: d.run("adaptive_avg_pool2d", d, size=g.shape[2:]),),
    "gather": (lambda g, out, x, index, axis: zeros(g, x.shape).scatter_add(axis, index, g), None),
    "scatter_add": (lambda g, out, x, index, s, axis: g, None, lambda g, out, x, index, s, axis: g.gather(axis, index)),
    "cross_entropy": (lambda g, out, x, t: g.run("cross_entropy_grad", g, x, t), None),
    "cross_entropy_grad": (
        lambda d, out, g, x, t: (d * d.run("cross_entropy_grad", 1.0, x, t)).sum(1),
        lambda d, out, g, x, t: row(g) * softmax(d, x.softmax(1), x, 1),
        None,
    ),
    "softmax": (softmax,),
    "log_softmax": (log_softmax,),
    **SCANS,
    **attention.RULES,
    **NORM_RULES,
}

# These give a result that no gradient flows through: numbers from nowhere, truths, and positions.
NO_GRADIENT = frozenset(
    [
        "full",
        "arange",
        "uniform",
        "normal",
        "is_nan",
        "is_inf",
        "logical_not",
        "eq",
        "ne",
        "lt",
        "le",
        "gt",
        "ge",
        "logical_and",
        "logical_or",
        "logical_xor",
        "any",
        "all",
        "argmax",
        "argmin",
        "argmax_pool2d",
        "argsort",
        "argtopk",
        "tallies",
        "places",
    ]
)
