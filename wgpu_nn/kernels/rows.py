"""Plans softmax and log-softmax along any axis, one row per invocation or per workgroup."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

from wgpu_nn.gpu import Kernel
from wgpu_nn.kernels.map import plan_map
from wgpu_nn.kernels.plan import MOST_TURNS, Site, View, Words, grid
from wgpu_nn.kernels.reduce import run_reduce
from wgpu_nn.kernels.source import assemble, bindings, words
from wgpu_nn.shape import collapse, reduced, size

_FINISH = {"softmax": "exp_nan(x) / total", "log_softmax": "x - log(total)"}
WIDE = 64  # elements from which a row is worth a workgroup


class RowsKey(NamedTuple):
    """What distinguishes row kernels."""

    op: str
    rank: int
    wide: bool
    workgroup: int


def row_starts(sides: Sequence[str], rank: int) -> list[str]:
    """Return the WGSL of ``<side>_start(row)``: where a row begins, from its coordinates over ``rank`` axes."""
    lines: list[str] = []
    for side in sides:
        lines += [f"fn {side}_start(row: u32) -> u32 {{", "    var rest = row;", f"    var at = {side}_offset();"]
        for d in reversed(range(rank)):
            lines.append(f"    at += {'rest' if d == 0 else f'(rest % size{d}())'} * {side}_step{d}();")
            if d:
                lines.append(f"    rest /= size{d}();")
        lines += ["    return at;", "}"]
    return lines


@functools.cache
def rows_kernel(key: RowsKey, values: Words | None) -> Kernel:
    """Return the kernel that computes rows addressed over ``rank`` axes."""
    names = ["rows", "length", "in_offset", "out_offset", "in_stride", "out_stride"]
    names += [f"{part}{d}" for part in ("size", "in_step", "out_step") for d in range(key.rank)]
    lines = row_starts(("in", "out"), key.rank)
    lines.append(f"fn finish(x: f32, total: f32) -> f32 {{ return {_FINISH[key.op]}; }}")
    header = "\n".join(
        [
            bindings((("source", "r", "f32"), ("out", "w", "f32")), values is None),
            f"const WORKGROUP = {key.workgroup}u;",
            words(tuple(names), values),
            *lines,
        ]
    )
    return assemble(key.op, "softmax_rows" if key.wide else "softmax", header, "rw", values is None)


def run_rows(site: Site, op: str, x: View, axis: int, out: View) -> None:
    """Plan a softmax of ``x`` along ``axis`` into the contiguous ``out``."""
    if out.size == 0:
        return
    others = [i for i in range(len(x.shape)) if i != axis]
    sizes, (steps, out_steps) = collapse(
        tuple(x.shape[i] for i in others), [tuple(v.strides[i] for i in others) for v in (x, out)]
    )
    rows, length = size(sizes), x.shape[axis]
    if site.target.software and 3 * length > MOST_TURNS:
        _in_parts(site, op, x, axis, out)
        return
    wide = not site.target.software and length >= WIDE
    workgroup = min(256 if length >= 1024 else 64, site.target.invocations) if wide else site.target.workgroup
    key = RowsKey(op, len(sizes), wide, workgroup)
    values = (rows, length, x.offset, out.offset, x.strides[axis], out.strides[axis], *sizes, *steps, *out_steps)
    site.launch(rows_kernel, key, values, [x, out], grid(rows if wide else -(-rows // workgroup)))


def _in_parts(site: Site, op: str, x: View, axis: int, out: View) -> None:
    """Plan a softmax as maximum, exponential, sum and result, each a launch of its own: rows of any length."""
    kept = reduced(x.shape, (axis,), keepdim=True)
    top, total = site.empty(kept, x.dtype), site.empty(kept, x.dtype)
    run_reduce(site, "max", x, (axis,), top)
    scaled = site.empty(x.shape, x.dtype)
    plan_map(site, "exp_nan(x - y)", [x.dtype] * 2, [x, top], scaled)
    run_reduce(site, "sum", scaled, (axis,), total)
    if op == "softmax":
        plan_map(site, "x / y", [x.dtype] * 2, [scaled, total], out)
    else:
        plan_map(site, "x - y - log(z)", [x.dtype] * 3, [x, top, total], out)
