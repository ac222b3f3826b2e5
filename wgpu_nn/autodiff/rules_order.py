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
    """The product of those before, times the sum over i, i + 1, .. of g times the product of those between.

    No division: exact with zeros, at every order. The sums follow s[i] = g[i] + x[i + 1] s[i + 1], solved by doubling:
    ``s`` holds the terms of the next ``step`` places, ``between`` the products over as many.
    """
    n = x.shape[axis]
    if n < 2:
        return g
    one = g.run("full", 1.0, shape=tuple(1 if i == axis else m for i, m in enumerate(x.shape)), dtype=g.dtype)
    s, between, step = g, x.narrow(axis, 1, n - 1), 1
    while step < n:
        reached = s.narrow(axis, 0, n - step) + between * s.narrow(axis, step, n - step)
        s = g.run("cat", reached, s.narrow(axis, n - step, step), axis=axis)
        if 2 * step < n:
            left = n - 2 * step
            between = between.narrow(axis, 0, left) * between.narrow(axis, step, left)
        step *= 2
    return s * g.run("cat", one, out.narrow(axis, 0, n - 1), axis=axis)


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
