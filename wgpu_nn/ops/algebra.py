"""Primitive methods written once over one abstract ``run``; Tensors and gradient rules both speak it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from wgpu_nn import shape as shapes
from wgpu_nn.errors import KindError, ShapeError
from wgpu_nn.ops.elementwise import Elementwise
from wgpu_nn.shape import Range

Dims = int | Sequence[int] | None


class Algebra(Elementwise):
    """What needs axes: reductions, views and routines, beside the operators and maps of Elementwise."""

    __slots__ = ()

    # --- reductions ------------------------------------------------------------------------------------------------
    def _reduce(self, op: str, dim: Dims, keepdim: bool) -> Self:
        return self.run(op, self, axes=shapes.axes(op, dim, self.rank), keepdim=keepdim)

    def sum(self, dim: Dims = None, keepdim: bool = False) -> Self:
        return self._reduce("sum", dim, keepdim)

    def mean(self, dim: Dims = None, keepdim: bool = False) -> Self:
        return self._reduce("mean", dim, keepdim)

    def prod(self, dim: Dims = None, keepdim: bool = False) -> Self:
        return self._reduce("prod", dim, keepdim)

    def max(self, dim: Dims = None, keepdim: bool = False) -> Self:
        """Largest element; NaN if any is NaN."""
        return self._reduce("max", dim, keepdim)

    def min(self, dim: Dims = None, keepdim: bool = False) -> Self:
        """Smallest element; NaN if any is NaN."""
        return self._reduce("min", dim, keepdim)

    def logsumexp(self, dim: Dims = None, keepdim: bool = False) -> Self:
        """log(sum(exp(x))) without overflow; -inf where all elements are, and inf where one is."""
        return self._reduce("logsumexp", dim, keepdim)

    def moments(self, dim: Dims = None, keepdim: bool = False, correction: int = 0) -> Self:
        """[2, ...]: means, and sums of squared deviations over n - correction, in one walk; accurate far from 0 (Welford
        1962; Chan, Golub and LeVeque 1979)."""
        axes = shapes.axes("moments", dim, self.rank)
        return self.run("moments", self, axes=axes, keepdim=keepdim, correction=correction)

    def any(self, dim: Dims = None, keepdim: bool = False) -> Self:
        return self._reduce("any", dim, keepdim)

    def all(self, dim: Dims = None, keepdim: bool = False) -> Self:
        return self._reduce("all", dim, keepdim)

    def argmax(self, dim: int | None = None, keepdim: bool = False) -> Self:
        """Index of the first largest element along ``dim``, or in the flattened tensor."""
        return self._arg("argmax", dim, keepdim)

    def argmin(self, dim: int | None = None, keepdim: bool = False) -> Self:
        """Index of the first smallest element along ``dim``, or in the flattened tensor."""
        return self._arg("argmin", dim, keepdim)

    def _arg(self, op: str, dim: int | None, keepdim: bool) -> Self:
        if dim is None:
            flat = self.reshape(-1) if self.size else self.reshape(0)
            found = flat.run(op, flat, axes=(0,), keepdim=False)
            return found.reshape((1,) * self.rank) if keepdim else found
        return self._reduce(op, dim, keepdim)

    # --- views -----------------------------------------------------------------------------------------------------
    def reshape(self, *sizes: int | Sequence[int]) -> Self:
        """The same elements in row-major order under another shape; one size may be -1."""
        target = shapes.infer_reshape(self.shape, _sizes(sizes))
        return self if target == self.shape else self.run("reshape", self, shape=target)

    def permute(self, *dims: int | Sequence[int]) -> Self:
        """Axes in another order: axis i of the result is axis ``dims[i]`` of this tensor."""
        axes = tuple(shapes.axis("permute", d, self.rank) for d in _sizes(dims))
        return self if axes == tuple(range(self.rank)) else self.run("permute", self, axes=axes)

    def transpose(self, dim0: int = -2, dim1: int = -1) -> Self:
        """Two axes exchanged; the last two if none are named."""
        a, b = (shapes.axis("transpose", d, self.rank) for d in (dim0, dim1))
        order = list(range(self.rank))
        order[a], order[b] = order[b], order[a]
        return self.permute(order)

    def expand(self, *sizes: int | Sequence[int]) -> Self:
        """A view that repeats axes of size 1, and leading ones; -1 keeps a size."""
        target = _sizes(sizes)
        lead = len(target) - self.rank
        target = tuple(self.shape[i - lead] if n == -1 and i >= lead else n for i, n in enumerate(target))
        return self if target == self.shape else self.run("expand", self, shape=target)

    def slice(self, ranges: Sequence[Range]) -> Self:
        """A view of (start, step, count) along every axis."""
        whole = tuple((0, 1, n) for n in self.shape)
        return self if tuple(ranges) == whole else self.run("slice", self, ranges=tuple(ranges))

    def slice_assign(self, ranges: Sequence[Range], value: Self) -> Self:
        """A copy with the region ``ranges`` replaced by ``value``."""
        return self.run("slice_assign", self, value, ranges=tuple(ranges))

    def narrow(self, dim: int, start: int, length: int) -> Self:
        """``length`` elements from ``start`` along ``dim``."""
        at = shapes.axis("narrow", dim, self.rank)
        if not 0 <= start <= start + length <= self.shape[at]:
            raise ShapeError(f"narrow: expected a range within {self.shape[at]} on axis {at}, got {start} + {length}")
        return self.slice([(start, 1, length) if i == at else (0, 1, n) for i, n in enumerate(self.shape)])

    def flip(self, dim: Dims = None) -> Self:
        """Elements in reverse order along axes."""
        at = shapes.axes("flip", dim, self.rank)
        return self.slice([(n - 1, -1, n) if i in at and n else (0, 1, n) for i, n in enumerate(self.shape)])

    def unsqueeze(self, dim: int) -> Self:
        """A new axis of size 1 before ``dim``."""
        at = shapes.axis("unsqueeze", dim, self.rank + 1)
        return self.reshape(*self.shape[:at], 1, *self.shape[at:])

    def squeeze(self, dim: Dims = None) -> Self:
        """Without the axes ``dim``, which must be of size 1; without all such axes by default."""
        if dim is None:
            return self.reshape([n for n in self.shape if n != 1])
        at = shapes.axes("squeeze", dim, self.rank)
        if any(self.shape[a] != 1 for a in at):
            raise ShapeError(f"squeeze: expected axes of size 1, got axes {at} of {list(self.shape)}")
        return self.reshape([n for i, n in enumerate(self.shape) if i not in at])

    # --- routines --------------------------------------------------------------------------------------------------
    def __matmul__(self, other: Self) -> Self:
        return self.matmul(other)

    def matmul(self, other: Self) -> Self:
        """[..., m, k] @ [..., k, n] -> [..., m, n]; a vector on either side counts as a row or a column."""
        if not isinstance(other, Algebra):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise KindError(f"matmul: expected a tensor on the right, got {type(other).__name__}")
        x = self.reshape(1, -1) if self.rank == 1 else self
        y = other.reshape(-1, 1) if other.rank == 1 else other
        out = self.run("matmul", x, y)
        if self.rank == 1:
            out = out.squeeze(-2)
        return out.squeeze(-1) if other.rank == 1 else out

    def gather(self, dim: int, index: Self) -> Self:
        """out[i, j] = self[index[i, j], j] for dim 0; a Float element whose index is out of range is NaN."""
        return self.run("gather", self, index, axis=shapes.axis("gather", dim, self.rank))

    def scatter_add(self, dim: int, index: Self, source: Self) -> Self:
        """A copy with source[i, j] added at [index[i, j], j] for dim 0.

        Sums are added up in a fixed order, unless ``switches.deterministic`` is off, which is faster for many senders.
        """
        return self.run("scatter_add", self, index, source, axis=shapes.axis("scatter_add", dim, self.rank))

    def index_select(self, dim: int, index: Self) -> Self:
        """The slices of ``dim`` that the rank-1 ``index`` names, in its order."""
        at = shapes.axis("index_select", dim, self.rank)
        if index.rank != 1:
            raise ShapeError(f"index_select: expected an index of rank 1, got {list(index.shape)}")
        spread = (
            index.reshape([-1 if i == at else 1 for i in range(self.rank)])
            if index.size
            else index.reshape([0 if i == at else 1 for i in range(self.rank)])
        )
        return self.gather(at, spread.expand([index.size if i == at else n for i, n in enumerate(self.shape)]))

    def softmax(self, dim: int) -> Self:
        """exp(x) / sum(exp(x)) along ``dim``, shifted by the maximum so that it cannot overflow."""
        return self.run("softmax", self, axis=shapes.axis("softmax", dim, self.rank))

    def log_softmax(self, dim: int) -> Self:
        """x - log(sum(exp(x))) along ``dim``, shifted by the maximum."""
        return self.run("log_softmax", self, axis=shapes.axis("log_softmax", dim, self.rank))

    # --- scans and orders ------------------------------------------------------------------------------------------
    def cumsum(self, dim: int) -> Self:
        """out[i] = x[0] + .. + x[i] along ``dim``, in parts whose order depends on the shape alone."""
        return self.run("cumsum", self, axis=shapes.axis("cumsum", dim, self.rank))

    def cumprod(self, dim: int) -> Self:
        """out[i] = x[0] .. x[i] along ``dim``; its gradients divide by nothing, so that zeros do no harm."""
        return self.run("cumprod", self, axis=shapes.axis("cumprod", dim, self.rank))

    def cummax(self, dim: int) -> Self:
        """out[i] = max(x[0], .., x[i]) along ``dim``; NaN from the first NaN on. The last of equals takes the gradient."""
        return self.run("cummax", self, axis=shapes.axis("cummax", dim, self.rank))

    def cummin(self, dim: int) -> Self:
        """out[i] = min(x[0], .., x[i]) along ``dim``; NaN from the first NaN on. The last of equals takes the gradient."""
        return self.run("cummin", self, axis=shapes.axis("cummin", dim, self.rank))

    def argsort(self, dim: int = -1, descending: bool = False) -> Self:
        """Indices that sort ``dim``: equal elements (-0 and 0 too) keep their order, NaN is larger than all numbers."""
        return self.run("argsort", self, axis=shapes.axis("argsort", dim, self.rank), descending=descending)

    def layer_norm(self, weight: Self | None = None, bias: Self | None = None, epsilon: float = 1e-5) -> Self:
        """(x - mean) / sqrt(var + epsilon) along the last axis, times ``weight``, plus ``bias``."""
        if weight is None and bias is not None:
            raise ShapeError("layer_norm: expected a weight beside the bias, got none; give one of ones")
        more = [w for w in (weight, bias) if w is not None]
        return self.run("layer_norm", self, *more, epsilon=epsilon)

    def rms_norm(self, weight: Self | None = None, epsilon: float = 1e-5) -> Self:
        """x / sqrt(mean(x^2) + epsilon) along the last axis, times ``weight``."""
        return self.run("rms_norm", self, *([] if weight is None else [weight]), epsilon=epsilon)


def _sizes(given: Sequence[int | Sequence[int]]) -> tuple[int, ...]:
    """Return sizes given one by one or as one sequence."""
    if len(given) == 1 and not isinstance(given[0], int):
        return tuple(int(n) for n in given[0])
    return tuple(int(n) for n in given)  # pyright: ignore[reportArgumentType]
