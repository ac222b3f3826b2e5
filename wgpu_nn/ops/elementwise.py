"""Operators and elementwise methods over one abstract ``run``; what needs axes is in algebra.py."""

from __future__ import annotations

import abc
from typing import Any, Self

from wgpu_nn import shape as shapes
from wgpu_nn.dtype import DType, Kind, Scalar, as_scalar
from wgpu_nn.shape import Shape


class Elementwise(abc.ABC):
    """A value with a shape, an element type and a ``run``; everything here is derived from these three."""

    __slots__ = ()
    __array_ufunc__ = None  # NOTE: without this, `array + tensor` would loop over the array's elements.

    @property
    @abc.abstractmethod
    def shape(self) -> Shape:
        """The sizes of all axes."""

    @property
    @abc.abstractmethod
    def dtype(self) -> DType:
        """The element type."""

    @abc.abstractmethod
    def run(self, op: str, *operands: Self | Scalar, **attrs: Any) -> Self:
        """Run the primitive ``op``; ``self`` only says where."""

    @property
    def rank(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def kind(self) -> Kind:
        """Float, Int or Bool."""
        return self.dtype.kind

    @property
    def size(self) -> int:
        """The number of elements."""
        return shapes.size(self.shape)

    def _binary(self, op: str, other: object, swap: bool = False) -> Self:
        # Of one class most are, and isinstance asks an abstract one at length.
        found = other if type(other) is type(self) or isinstance(other, Elementwise) else as_scalar(other)
        if found is None:
            return NotImplemented
        y: Any = found
        return self.run(op, y, self) if swap else self.run(op, self, y)

    # --- operators -------------------------------------------------------------------------------------------------
    def __add__(self, other: object) -> Self:
        return self._binary("add", other)

    def __radd__(self, other: object) -> Self:
        return self._binary("add", other, swap=True)

    def __sub__(self, other: object) -> Self:
        return self._binary("sub", other)

    def __rsub__(self, other: object) -> Self:
        return self._binary("sub", other, swap=True)

    def __mul__(self, other: object) -> Self:
        return self._binary("mul", other)

    def __rmul__(self, other: object) -> Self:
        return self._binary("mul", other, swap=True)

    def __truediv__(self, other: object) -> Self:
        return self._binary("div", other)

    def __rtruediv__(self, other: object) -> Self:
        return self._binary("div", other, swap=True)

    def __floordiv__(self, other: object) -> Self:
        return self._binary("floor_div", other)

    def __rfloordiv__(self, other: object) -> Self:
        return self._binary("floor_div", other, swap=True)

    def __mod__(self, other: object) -> Self:
        return self._binary("remainder", other)

    def __rmod__(self, other: object) -> Self:
        return self._binary("remainder", other, swap=True)

    def __pow__(self, other: object) -> Self:
        return self._binary("pow", other)

    def __rpow__(self, other: object) -> Self:
        return self._binary("pow", other, swap=True)

    def __neg__(self) -> Self:
        return self.run("neg", self)

    def __abs__(self) -> Self:
        return self.run("abs", self)

    def __invert__(self) -> Self:
        return self.run("logical_not", self)

    def __and__(self, other: object) -> Self:
        return self._binary("logical_and", other)

    def __or__(self, other: object) -> Self:
        return self._binary("logical_or", other)

    def __xor__(self, other: object) -> Self:
        return self._binary("logical_xor", other)

    def __eq__(self, other: object) -> Self:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self._binary("eq", other)

    def __ne__(self, other: object) -> Self:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self._binary("ne", other)

    def __lt__(self, other: object) -> Self:
        return self._binary("lt", other)

    def __le__(self, other: object) -> Self:
        return self._binary("le", other)

    def __gt__(self, other: object) -> Self:
        return self._binary("gt", other)

    def __ge__(self, other: object) -> Self:
        return self._binary("ge", other)

    __hash__ = object.__hash__  # tensors are keys by identity, as == compares elements

    # --- maps ------------------------------------------------------------------------------------------------------
    def neg(self) -> Self:
        return self.run("neg", self)

    def abs(self) -> Self:
        return self.run("abs", self)

    def sign(self) -> Self:
        return self.run("sign", self)

    def relu(self) -> Self:
        """max(x, 0); NaN stays NaN."""
        return self.run("relu", self)

    def exp(self) -> Self:
        return self.run("exp", self)

    def expm1(self) -> Self:
        """exp(x) - 1, accurate near 0."""
        return self.run("expm1", self)

    def log(self) -> Self:
        return self.run("log", self)

    def log1p(self) -> Self:
        """log(1 + x), accurate near 0."""
        return self.run("log1p", self)

    def sqrt(self) -> Self:
        return self.run("sqrt", self)

    def rsqrt(self) -> Self:
        """1 / sqrt(x)."""
        return self.run("rsqrt", self)

    def recip(self) -> Self:
        """1 / x."""
        return self.run("recip", self)

    def sin(self) -> Self:
        return self.run("sin", self)

    def cos(self) -> Self:
        return self.run("cos", self)

    def tan(self) -> Self:
        return self.run("tan", self)

    def asin(self) -> Self:
        return self.run("asin", self)

    def acos(self) -> Self:
        return self.run("acos", self)

    def atan(self) -> Self:
        return self.run("atan", self)

    def sinh(self) -> Self:
        return self.run("sinh", self)

    def cosh(self) -> Self:
        return self.run("cosh", self)

    def tanh(self) -> Self:
        return self.run("tanh", self)

    def sigmoid(self) -> Self:
        """1 / (1 + exp(-x))."""
        return self.run("sigmoid", self)

    def erf(self) -> Self:
        return self.run("erf", self)

    def floor(self) -> Self:
        return self.run("floor", self)

    def ceil(self) -> Self:
        return self.run("ceil", self)

    def round(self) -> Self:
        """Nearest integer, halves to even."""
        return self.run("round", self)

    def is_nan(self) -> Self:
        return self.run("is_nan", self)

    def is_inf(self) -> Self:
        return self.run("is_inf", self)

    def atan2(self, other: Self | Scalar) -> Self:
        """The angle of the point (other, self), in radians."""
        return self.run("atan2", self, other)

    def maximum(self, other: Self | Scalar) -> Self:
        """Elementwise larger of two; NaN if either is NaN."""
        return self.run("maximum", self, other)

    def minimum(self, other: Self | Scalar) -> Self:
        """Elementwise smaller of two; NaN if either is NaN."""
        return self.run("minimum", self, other)

    def where(self, x: Self | Scalar, y: Self | Scalar) -> Self:
        """``x`` where this Bool tensor is true, else ``y``; shapes broadcast."""
        return self.run("where", self, x, y)

    def cast(self, dtype: DType) -> Self:
        """Convert elements; Float to Int truncates toward zero, anything to Bool asks whether it is not 0."""
        return self if dtype == self.dtype else self.run("cast", self, dtype=dtype)
