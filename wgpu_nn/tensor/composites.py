"""Functions composed of primitive ops, as methods; capture fuses them, so none of them needs a kernel of its own."""

from __future__ import annotations

import math
from typing import Self

from wgpu_nn import shape as shapes
from wgpu_nn.dtype import Float
from wgpu_nn.errors import KindError, ShapeError
from wgpu_nn.ops.algebra import Algebra, Dims


class Composites(Algebra):
    """What a Tensor can do beyond the primitives."""

    __slots__ = ()

    # --- views -----------------------------------------------------------------------------------------------------
    def flatten(self, start: int = 0, end: int = -1) -> Self:
        """The axes from ``start`` to ``end``, both included, as one."""
        if not self.rank:
            return self.reshape(1)
        a, b = shapes.axis("flatten", start, self.rank), shapes.axis("flatten", end, self.rank)
        if a > b:
            raise ShapeError(f"flatten: expected start <= end, got {start} and {end}")
        return self.reshape(*self.shape[:a], shapes.size(self.shape[a : b + 1]), *self.shape[b + 1 :])

    def t(self) -> Self:
        """The last two axes exchanged."""
        return self.transpose()

    def movedim(self, source: int, target: int) -> Self:
        """One axis moved to another place, the others in order."""
        a, b = shapes.axis("movedim", source, self.rank), shapes.axis("movedim", target, self.rank)
        order = [d for d in range(self.rank) if d != a]
        order.insert(b, a)
        return self.permute(order)

    def broadcast_to(self, *sizes: int) -> Self:
        """The same as ``expand``."""
        return self.expand(*sizes)

    # --- elementwise -----------------------------------------------------------------------------------------------
    def square(self) -> Self:
        """x * x."""
        return self * self

    def clamp(self, low: float | None = None, high: float | None = None) -> Self:
        """Elements limited to [low, high]; NaN stays NaN."""
        out = self if low is None else self.maximum(low)
        return out if high is None else out.minimum(high)

    def is_finite(self) -> Self:
        """Which elements are neither NaN nor infinite."""
        return ~(self.is_nan() | self.is_inf())

    def softplus(self, beta: float = 1.0) -> Self:
        """log(1 + exp(beta x)) / beta, without overflow for large x."""
        x = self * beta if beta != 1.0 else self
        out = x.maximum(0.0) + (-x.abs()).exp().log1p()
        return out / beta if beta != 1.0 else out

    def log_sigmoid(self) -> Self:
        """log(1 / (1 + exp(-x))), accurate for large |x|."""
        return -(-self).softplus()

    def silu(self) -> Self:
        """x sigmoid(x)."""
        return self * self.sigmoid()

    def gelu(self) -> Self:
        """x times the standard normal's distribution function at x (Hendrycks and Gimpel 2016)."""
        return self * 0.5 * ((self * math.sqrt(0.5)).erf() + 1.0)

    def leaky_relu(self, slope: float = 0.01) -> Self:
        """x where it is positive, else slope x."""
        return (self > 0.0).where(self, self * slope)

    def elu(self, alpha: float = 1.0) -> Self:
        """x where it is positive, else alpha (exp(x) - 1)."""
        return (self > 0.0).where(self, self.minimum(0.0).expm1() * alpha)

    def mish(self) -> Self:
        """x tanh(softplus(x)) (Misra 2019)."""
        return self * self.softplus().tanh()

    # --- reductions ------------------------------------------------------------------------------------------------
    def var(self, dim: Dims = None, keepdim: bool = False, correction: int = 1) -> Self:
        """Sum of squared deviations from the mean over n - correction; NaN if that is 0 or less."""
        return self.var_mean(dim, keepdim, correction)[0]

    def var_mean(self, dim: Dims = None, keepdim: bool = False, correction: int = 1) -> tuple[Self, Self]:
        """Variance and mean, from one walk over the elements."""
        both = self.moments(dim, keepdim, correction)
        mean, var = (both.narrow(0, k, 1).reshape(*both.shape[1:]) for k in (0, 1))
        return var, mean

    def std(self, dim: Dims = None, keepdim: bool = False, correction: int = 1) -> Self:
        """Standard deviation, the root of ``var``."""
        return self.var(dim, keepdim, correction).sqrt()

    def norm(self, dim: Dims = None, keepdim: bool = False) -> Self:
        """Euclidean norm."""
        return (self * self).sum(dim, keepdim).sqrt()

    # --- others ----------------------------------------------------------------------------------------------------
    def one_hot(self, classes: int) -> Self:
        """[...] Int -> [..., classes] Int: 1 where the last index equals the element; nowhere if it is out of range."""
        if self.kind is Float:
            raise KindError("one_hot: expected an Int tensor, got a Float one; convert it with .int()")
        places = self.run("arange", 0, 1, shape=(classes,))
        return (self.unsqueeze(-1) == places).cast(self.dtype)

    def dot(self, other: Self) -> Self:
        """[n], [n] -> []: the sum of products."""
        if self.rank != 1 or other.rank != 1:
            raise ShapeError(f"dot: expected vectors, got {list(self.shape)} and {list(other.shape)}")
        return self.matmul(other)

    def outer(self, other: Self) -> Self:
        """[m], [n] -> [m, n]: all products."""
        return self.unsqueeze(1) * other.unsqueeze(0)
