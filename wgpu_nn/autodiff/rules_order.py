"""The gradients of scans; sorts and selections give places, and what is gathered by these has the gradient of a gather."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wgpu_nn.autodiff.backend import Term


def cumsum(g: Term, out: Term, x: Term, axis: int) -> Term:
    """An element is part of the sums at its place and at all later ones."""
    return g.flip(axis).cumsum(axis).flip(axis)


def cumprod(g: Term, out: Term, x: Term, axis: int) -> Term:
    """The sum over later products of the others, exact with zeros.

    Before the first zero that is the product over the element. At the first zero it is the products with it left out;
    behind it every product of the others still has that zero.
    """
    zero = x == 0.0
    zeros = zero.where(1, 0).cumsum(axis)
    clear = zeros == 0
    first = zero & (zeros == 1)
    before = cumsum(g * out, out, x, axis) / clear.where(x, 1.0)
    rest = clear.where(0.0, g * first.where(1.0, x).cumprod(axis))
    return clear.where(before, first.where(cumsum(rest, out, x, axis), 0.0))


def extreme(g: Term, out: Term, x: Term, axis: int) -> Term:
    """Each result's cotangent goes to the last element so far that equals it; a NaN takes those up to the next NaN."""
    n = x.shape[axis]
    if n == 0:
        return g
    hit = (x == out) | x.is_nan()
    along = g.run("arange", 0, 1, shape=(n,)).reshape([n if i == axis else 1 for i in range(x.rank)]).expand(x.shape)
    source = hit.where(along, 0).cummax(axis)
    return g.run("full", 0.0, shape=x.shape, dtype=g.dtype).scatter_add(axis, source, g)


SCANS: dict[str, Sequence[Callable[..., Term] | None]] = {
    "cumsum": (cumsum,),
    "cumprod": (cumprod,),
    "cummax": (extreme,),
    "cummin": (extreme,),
}
