"""Tensors larger than a kernel may see at once: windows on them, and the parts that ops on them are done in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from wgpu_nn.gpu import beyond_binding
from wgpu_nn.kernels.plan import BINDING, Site, View, layout
from wgpu_nn.shape import Shape

ALIGNED = BINDING // 2  # elements of any size, after which a binding may start
Axes = tuple[int | None, ...]  # for each axis of a result the axis of an operand that is cut with it


class Part(NamedTuple):
    """Part of an op: what it starts at and has along the axes of the result, and its share of each view."""

    starts: tuple[int, ...]
    shape: Shape
    views: tuple[View, ...]


def large(site: Site, *views: View) -> bool:
    """Say whether any of the views lies in memory that a kernel cannot see as a whole."""
    return any(v.buffer.nbytes > site.target.binding for v in views)


def window(site: Site, v: View) -> View | None:
    """Return the view on just the part of its memory that it reaches; None if that is too much as well."""
    if v.buffer.nbytes <= site.target.binding or v.size == 0:
        return v
    steps = [(n - 1) * s for n, s in zip(v.shape, v.strides, strict=True)]
    unit = v.dtype.nbytes
    low = (v.offset + sum(s for s in steps if s < 0)) * unit // BINDING * BINDING
    nbytes = unit * (v.offset + sum(s for s in steps if s > 0) + 1) - low
    if -(-nbytes // 16) * 16 > site.target.binding:
        return None
    seen = layout(v.shape, v.strides, v.offset - low // unit, v.dtype)
    return View(v.buffer.window(low, nbytes), seen)


def parts(site: Site, op: str, shape: Shape, views: Sequence[View], axes: Sequence[Axes]) -> Iterator[Part]:
    """Cut an op along the axes of its result, in halves, until every view's part can be seen; in memory's order.

    A view none of whose axes can be cut any further, but whose elements are few enough, is left as it is: whoever plans
    the part copies it.
    """
    yield from _halves(site, op, Part((0,) * len(shape), shape, tuple(views)), axes)


def _halves(site: Site, op: str, part: Part, axes: Sequence[Axes]) -> Iterator[Part]:
    seen = [window(site, v) for v in part.views]
    if all(v is not None for v in seen):
        yield part._replace(views=tuple(v for v in seen if v is not None))
        return
    cut = None
    for v, w, along in zip(part.views, seen, axes, strict=True):
        if w is not None:
            continue
        fits = v.nbytes <= site.target.binding
        steps = [(abs(s), along.index(a) if a in along else -1) for a, s in enumerate(v.strides) if v.shape[a] > 1]
        if not fits:
            steps = [step for step in steps if step[1] >= 0] or steps
        if max(steps)[1] >= 0:  # else cutting it does not bring its elements closer together
            cut = max(steps)[1]
            break
        if not fits:
            raise beyond_binding(op, site.target.binding, v.nbytes)
    if cut is None:
        yield part._replace(views=tuple(v if w is None else w for v, w in zip(part.views, seen, strict=True)))
        return
    n = part.shape[cut]
    half = (n + 1) // 2
    if n >= 2 * ALIGNED:  # so that windows start with the part, and four elements at once stay four
        half = -(-half // ALIGNED) * ALIGNED
    for start, count in ((0, half), (half, n - half)):
        yield from _halves(
            site,
            op,
            Part(
                tuple(s + start if d == cut else s for d, s in enumerate(part.starts)),
                tuple(count if d == cut else m for d, m in enumerate(part.shape)),
                tuple(
                    v if along[cut] is None else narrow(v, along[cut] or 0, start, count)
                    for v, along in zip(part.views, axes, strict=True)
                ),
            ),
            axes,
        )


def narrow(v: View, axis: int, start: int, count: int) -> View:
    """Return ``count`` elements of an axis, from ``start`` on; of an axis of one element, that one."""
    if v.shape[axis] == 1:
        return v
    shape = tuple(count if i == axis else n for i, n in enumerate(v.shape))
    return v.seen(shape, v.strides, start * v.strides[axis])


def alike(rank: int, *without: int) -> Axes:
    """Return the axes of an operand of the result's shape, all of which are cut with it but ``without``."""
    return tuple(None if d in without else d for d in range(rank))


def none_of(rank: int) -> Axes:
    """Return the axes of an operand that all parts see as it is."""
    return (None,) * rank


def runs(site: Site, n: int) -> Iterator[tuple[int, int]]:
    """Yield start and count of runs of ``n`` elements in a row that can be seen from wherever they begin."""
    step = max(site.target.binding // (4 * ALIGNED) - 1, 1) * ALIGNED
    for start in range(0, n, step):
        yield start, min(step, n - start)
