"""Reductions of tensors larger than a kernel may see at once: halves are folded by themselves, and then together."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

from wgpu_nn.dtype import DTYPES, Float
from wgpu_nn.kernels.fold import ARGS, fold_of
from wgpu_nn.kernels.map import placed, plan_map
from wgpu_nn.kernels.plan import Site, View
from wgpu_nn.kernels.windows import narrow, window
from wgpu_nn.shape import reduced, row_major, size

# Plans a reduction of a tensor over axes into a result.
Reduce = Callable[..., None]
_LETTER = re.compile(r"\b[ab]\b")
# How the results of two halves become one; others fold as their accumulators do.
_TOGETHER = {"logsumexp": "log_add_exp(x, y)", "any": "x || y", "all": "x && y"}
# Of two places and their elements: which comes first, the second half's being behind the first's.
_AHEAD = {
    "argmax": "select(x, y, (is_nan(w) && !is_nan(z)) || (!is_nan(z) && w > z))",
    "argmin": "select(x, y, (is_nan(w) && !is_nan(z)) || (!is_nan(z) && w < z))",
}


def reduce_in_parts(
    reduce: Reduce, site: Site, op: str, x: View, axes: tuple[int, ...], out: View, correction: int
) -> None:
    """Plan what ``reduce`` plans, in halves along the axis whose elements lie furthest apart, until it can."""
    seen = window(site, x)
    if seen is not None and window(site, out) is not None:
        placed(site, out, partial(reduce, site, op, seen, axes, correction=correction))
        return
    steps = [(abs(s), i) for i, (n, s) in enumerate(zip(x.shape, x.strides, strict=True)) if n > 1]
    folded = [i for i in axes if x.shape[i] > 1]
    if seen is not None:  # the result is what is too large
        steps = [step for step in steps if step[1] not in axes]
    axis = max(steps)[1]
    if axis in axes and op == "moments":
        _moments(reduce, site, x, axes, out, correction)
        return
    if axis in axes and op == "mean":
        total = site.empty(out.shape, out.dtype.wide)
        reduce(site, "sum", x, axes, total)
        plan_map(site, "x / y", [out.dtype.wide] * 2, [total, size(tuple(x.shape[i] for i in axes))], out)
        return
    if axis in axes and op in ARGS:
        axis = folded[0]  # places count the later axes within the earlier ones
    n = x.shape[axis]
    spans = ((0, n // 2), (n // 2, n - n // 2))
    halves = [narrow(x, axis, start, count) for start, count in spans]
    if axis not in axes:
        at = _kept_axis(x, axes, out, axis)
        for half, (start, count) in zip(halves, spans, strict=True):
            plan = partial(reduce, site, op, half, axes, correction=correction)
            placed(site, narrow(out, at, start, count), plan)
        return
    found = [site.empty(out.shape, out.dtype.wide) for _ in halves]
    for half, to in zip(halves, found, strict=True):
        reduce(site, op, half, axes, to)
    if op in ARGS:
        _first(reduce, site, op, halves, axes, found, out)
    else:
        text = _TOGETHER.get(op) or _LETTER.sub(lambda m: "xy"["ab".index(m[0])], fold_of(op, x.dtype.kind)[0])
        plan_map(site, text, [out.dtype.wide] * 2, found, out)


def _kept_axis(x: View, axes: tuple[int, ...], out: View, axis: int) -> int:
    """Return the axis of the result that is one of ``x``; folded axes are gone from it, or have one element."""
    keeps = out.shape[-len(x.shape) :] == reduced(x.shape, axes, keepdim=True)
    behind = [i for i in range(axis + 1, len(x.shape)) if keeps or i not in axes]
    return len(out.shape) - 1 - len(behind)


def _first(
    reduce: Reduce, site: Site, op: str, halves: list[View], axes: tuple[int, ...], found: list[View], out: View
) -> None:
    """Plan which of two halves has the extreme, and its place in both together."""
    x, i32 = halves[0], DTYPES["i32"]
    before = size(tuple(x.shape[i] for i in axes))
    later = site.empty(out.shape, i32)
    plan_map(site, "x + y", [i32] * 2, [found[1], before], later)
    best = [site.empty(out.shape, x.dtype) for _ in halves]
    for half, to in zip(halves, best, strict=True):
        reduce(site, op.removeprefix("arg"), half, axes, to)
    text = _AHEAD[op] if x.dtype.kind is Float else f"select(x, y, w {'>' if op == 'argmax' else '<'} z)"
    plan_map(site, text, [i32, i32, x.dtype, x.dtype], [found[0], later, *best], out)


def _moments(reduce: Reduce, site: Site, x: View, axes: tuple[int, ...], out: View, correction: int) -> None:
    """Plan the mean, and then the squares of what is left without it: halves have no pivot in common."""
    kept = reduced(x.shape, axes, keepdim=True)
    mean, squares = (site.empty(kept, x.dtype.wide) for _ in range(2))
    reduce(site, "mean", x, axes, mean)
    apart = site.empty(x.shape, x.dtype.wide)
    plan_map(site, "(x - y) * (x - y)", [x.dtype, x.dtype.wide], [x, mean], apart)
    reduce(site, "sum", apart, axes, squares)
    count = max(size(tuple(x.shape[i] for i in axes)) - correction, 0)
    each: list[tuple[str, list[Any]]] = [("x", [mean]), ("x / y", [squares, count])]
    for n, (text, inputs) in enumerate(each):
        target = out.seen(kept, row_major(kept), n * size(kept))
        plan_map(site, text, [x.dtype.wide] * len(inputs), inputs, target, part=True)
