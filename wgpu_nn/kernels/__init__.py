"""From ops to launches: WGSL bodies with their headers, one planner a family, and the table from op to planner."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from wgpu_nn.kernels.attention import OPERANDS as ATTENTION
from wgpu_nn.kernels.attention import run_attention
from wgpu_nn.kernels.conv import run_conv2d, run_input_grad
from wgpu_nn.kernels.conv3d import run_conv3d, run_input_grad3d, run_weight_grad3d
from wgpu_nn.kernels.conv_weight import run_weight_grad
from wgpu_nn.kernels.index import run_gather
from wgpu_nn.kernels.loss import run_loss
from wgpu_nn.kernels.map import contiguous, copy, run_map
from wgpu_nn.kernels.matmul import run_matmul
from wgpu_nn.kernels.norm import run_norm
from wgpu_nn.kernels.parts import run_in_parts
from wgpu_nn.kernels.plan import Grid, Input, Site, Target, Template, View, Words, whole
from wgpu_nn.kernels.pool import run_pool
from wgpu_nn.kernels.reduce import run_reduce
from wgpu_nn.kernels.rows import run_rows
from wgpu_nn.kernels.scan import FOLDS, run_scan
from wgpu_nn.kernels.scatter import run_scatter_add
from wgpu_nn.kernels.select import run_places, run_tallies
from wgpu_nn.kernels.sort import run_sort
from wgpu_nn.kernels.views import strided_slice
from wgpu_nn.kernels.windows import large
from wgpu_nn.ops import OPS, Category

Planner = Callable[[Site, str, Sequence[Any], Mapping[str, Any], View], None]


def _cat(site: Site, op: str, xs: Sequence[Any], attrs: Mapping[str, Any], out: View) -> None:
    start, axis = 0, attrs["axis"]
    for x in xs:
        region = [(start, 1, x.shape[axis]) if i == axis else (0, 1, n) for i, n in enumerate(out.shape)]
        copy(site, x, strided_slice(site, out, ranges=tuple(region)))
        start += x.shape[axis]


def _slice_assign(site: Site, op: str, xs: Sequence[Any], attrs: Mapping[str, Any], out: View) -> None:
    copy(site, xs[0], out)
    copy(site, xs[1], strided_slice(site, out, ranges=attrs["ranges"]), part=True)


PLANNERS: dict[str, Planner] = {
    **{
        name: (lambda site, op, xs, attrs, out: run_map(site, op, xs, out))
        for name, row in OPS.items()
        if row.category in (Category.MAP, Category.SOURCE)
    },
    **{
        name: (
            lambda site, op, xs, attrs, out: run_reduce(
                site, op, xs[0], attrs["axes"], out, correction=attrs.get("correction", 0)
            )
        )
        for name, row in OPS.items()
        if row.category is Category.REDUCE
    },
    "slice_assign": _slice_assign,
    "cat": _cat,
    "matmul": lambda site, op, xs, attrs, out: run_matmul(site, xs[0], xs[1], out),
    "conv2d": run_conv2d,  # pyright: ignore[reportAssignmentType]
    "conv2d_input_grad": run_input_grad,
    "conv2d_weight_grad": run_weight_grad,
    "conv3d": run_conv3d,
    "conv3d_input_grad": run_input_grad3d,
    "conv3d_weight_grad": run_weight_grad3d,
    **dict.fromkeys(
        (
            *("max_pool2d", "argmax_pool2d", "max_pool2d_grad", "avg_pool2d", "avg_pool2d_grad"),
            *("adaptive_avg_pool2d", "adaptive_avg_pool2d_grad"),
        ),
        run_pool,
    ),
    "cross_entropy": lambda site, op, xs, attrs, out: run_loss(site, xs[0], xs[1], out),
    "cross_entropy_grad": lambda site, op, xs, attrs, out: run_loss(site, xs[1], xs[2], out, xs[0]),
    **dict.fromkeys(ATTENTION, run_attention),
    "gather": lambda site, op, xs, attrs, out: run_gather(site, xs[0], xs[1], attrs["axis"], out),
    "scatter_add": lambda site, op, xs, attrs, out: run_scatter_add(site, xs[0], xs[1], xs[2], attrs["axis"], out),
    **dict.fromkeys(FOLDS, lambda site, op, xs, attrs, out: run_scan(site, op, xs[0], attrs["axis"], out)),
    "tallies": lambda site, op, xs, attrs, out: run_tallies(site, xs[0], out),
    "places": lambda site, op, xs, attrs, out: run_places(site, xs[0], xs[1], attrs["shape"], out),
    "argsort": lambda site, op, xs, attrs, out: run_sort(site, xs[0], attrs["axis"], attrs["descending"], out),
    "argtopk": lambda site, op, xs, attrs, out: run_sort(site, xs[0], attrs["axis"], attrs["largest"], out),
    **dict.fromkeys(("layer_norm", "layer_norm_grad", "rms_norm", "rms_norm_grad"), run_norm),
    **dict.fromkeys(
        ("softmax", "log_softmax"), lambda site, op, xs, attrs, out: run_rows(site, op, xs[0], attrs["axis"], out)
    ),
}

# What plans in parts by itself where it has to.
_IN_PARTS = frozenset(
    ("gather", "cat", "slice_assign", "softmax", "log_softmax")
    + tuple(name for name, row in OPS.items() if row.category in (Category.MAP, Category.SOURCE, Category.REDUCE))
)


def plan_op(site: Site, op: str, operands: Sequence[Any], attrs: Mapping[str, Any], out: View) -> None:
    """Plan one op into ``out``, in parts if a kernel cannot see all of it or of an operand at once."""
    planner = PLANNERS[op]
    if op in _IN_PARTS or not large(site, out, *(v for v in operands if isinstance(v, View))):
        planner(site, op, operands, attrs, out)
    else:
        run_in_parts(site, planner, op, operands, attrs, out)


__all__ = [
    "PLANNERS",
    "Grid",
    "Input",
    "Site",
    "Target",
    "Template",
    "View",
    "Words",
    "contiguous",
    "copy",
    "plan_op",
    "whole",
]
