"""Routines on tensors larger than a kernel may see at once: along which axes each may be cut, each part like the whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from wgpu_nn.kernels.map import copy, placed
from wgpu_nn.kernels.plan import Site, View
from wgpu_nn.kernels.windows import Axes, alike, none_of, parts, window

Planner = Callable[[Site, str, Sequence[Any], Mapping[str, Any], View], None]
# The axes of each operand that are cut with those of the result.
Rule = Callable[[Sequence[View], Mapping[str, Any], View], list[Axes]]


def _only(rank: int, *axes: int) -> Axes:
    """Return the axes of an operand that is cut along some of the result's, where it has the same."""
    return tuple(d if d in axes else None for d in range(rank))


def _matmul(xs: Sequence[View], attrs: Mapping[str, Any], out: View) -> list[Axes]:
    found: list[Axes] = []
    for v, mine in zip(xs, (-2, -1), strict=True):
        ahead = len(out.shape) - len(v.shape)
        batch = [d - ahead if d >= ahead and v.shape[d - ahead] > 1 else None for d in range(len(out.shape) - 2)]
        last = [len(v.shape) + k if k == mine else None for k in (-2, -1)]
        found.append((*batch, *last))
    return found


def _batch(xs: Sequence[View], attrs: Mapping[str, Any], out: View) -> list[Axes]:
    """Images by themselves; weights and biases are the same for all."""
    rank = len(out.shape)
    return [_only(rank, 0), *[none_of(rank)] * (len(xs) - 1)]


def _planes(xs: Sequence[View], attrs: Mapping[str, Any], out: View) -> list[Axes]:
    return [_only(4, 0, 1)] * len(xs)


def _rows(xs: Sequence[View], attrs: Mapping[str, Any], out: View) -> list[Axes]:
    """Rows by themselves; what has one axis are weights, the same for all."""
    rank = len(out.shape)
    return [alike(rank, rank - 1) if len(v.shape) == rank and rank > 1 else none_of(rank) for v in xs]


def _along(xs: Sequence[View], attrs: Mapping[str, Any], out: View) -> list[Axes]:
    """All but one axis."""
    return [alike(len(out.shape), attrs["axis"])] * len(xs)


def _scatter(xs: Sequence[View], attrs: Mapping[str, Any], out: View) -> list[Axes]:
    """Axes that the senders have as many of as the result; but the one along which they are sent."""
    axes = [d for d, n in enumerate(out.shape) if d != attrs["axis"] and xs[1].shape[d] == n]
    return [_only(len(out.shape), *axes)] * len(xs)


RULES: dict[str, Rule] = {
    "matmul": _matmul,
    **dict.fromkeys(("conv2d", "conv2d_input_grad", "conv3d", "conv3d_input_grad"), _batch),
    **dict.fromkeys(
        (
            *("max_pool2d", "argmax_pool2d", "max_pool2d_grad", "avg_pool2d", "avg_pool2d_grad"),
            *("adaptive_avg_pool2d", "adaptive_avg_pool2d_grad"),
        ),
        _planes,
    ),
    **dict.fromkeys(("layer_norm", "layer_norm_grad", "rms_norm", "rms_norm_grad"), _rows),
    **dict.fromkeys(("softmax", "log_softmax", "argsort", "argtopk"), _along),
    **dict.fromkeys(("cumsum", "cumprod", "cummax", "cummin"), _along),
    "scatter_add": _scatter,
}


def run_in_parts(
    site: Site, planner: Planner, op: str, operands: Sequence[Any], attrs: Mapping[str, Any], out: View
) -> None:
    """Plan an op whose operands or result lie in memory that cannot be seen as a whole; what cannot be cut raises."""
    xs = [v for v in operands if isinstance(v, View)]
    rank, rule = len(out.shape), RULES.get(op)
    axes = [none_of(rank)] * len(xs) if rule is None else rule(xs, attrs, out)
    mine = tuple(d if any(a[d] is not None for a in axes) else None for d in range(rank))
    for part in list(parts(site, op, out.shape, [*xs, out], [*axes, mine])):  # all, so that nothing is launched in vain
        *some, target = part.views
        given = iter([v if window(site, v) is v else copy(site, v) for v in some])
        these = [next(given) if isinstance(v, View) else v for v in operands]
        # Gradients know the shape of their result.
        own = {k: part.shape if k == "shape" and v == out.shape else v for k, v in attrs.items()}
        placed(site, target, partial(planner, site, op, these, own))
