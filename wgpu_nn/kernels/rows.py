"""Plans softmax and log-softmax along any axis: a row in one invocation, in registers of several, or in two walks."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from wgpu_nn.dtype import DTYPES
from wgpu_nn.gpu import Kernel
from wgpu_nn.kernels.fused import Chain, Finish, finish_header
from wgpu_nn.kernels.map import plan_map
from wgpu_nn.kernels.norm import SHARED, held_by, shares
from wgpu_nn.kernels.parts import run_in_parts
from wgpu_nn.kernels.plan import MOST_TURNS, Site, Task, View, Words, chosen, grid, workgroups
from wgpu_nn.kernels.reduce import run_reduce
from wgpu_nn.kernels.source import assemble, bindings, words
from wgpu_nn.kernels.windows import large
from wgpu_nn.shape import collapse, reduced, size

SHORT = 16  # elements of a row that one invocation computes as fast as several
MANY = 4096  # rows side by side in memory that are walked as well by one invocation each


class RowsKey(NamedTuple):
    """What distinguishes row kernels. ``four`` says that rows are contiguous and all their vectors aligned."""

    op: str
    rank: int
    body: str
    four: bool
    lanes: int
    held: int
    finish: Chain | None  # what is done to each result before it is stored
    workgroup: int


class _Way(NamedTuple):
    """A variant: the body, the invocations that share a row, the vectors that each holds, and the workgroup."""

    body: str
    lanes: int
    held: int
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
    more, finish, result = finish_header(key.finish, "f32")
    lines += ["fn outside() -> vec4f { return vec4f(-infinity()); }", finish]
    places = [f"4u * q + {k}u" for k in range(4)]
    if key.four:
        element, kind = "vec4f", f"vec4<{DTYPES[result].wgsl}>"
        row = "source[in_start(row) / 4u + q]"
        stores = f"out[at / 4u + q] = vec4({', '.join(f'finish(at + {p}, v[{k}])' for k, p in enumerate(places))});"
    else:
        element, kind = "f32", DTYPES[result].wgsl
        parts = [f"source[at + min({p}, length() - 1u) * in_stride()]" for p in places]
        guarded = ", ".join(f"select(-infinity(), {v}, {p} < length())" for v, p in zip(parts, places, strict=True))
        row = f"vec4f({guarded})"
        stores = "\n    ".join(
            f"if ({p} < length()) {{ out[at + ({p}) * out_stride()] = finish(at + ({p}) * out_stride(), v[{k}]); }}"
            for k, p in enumerate(places)
        )
    lines += ["fn fetch(row: u32, q: u32) -> vec4f {", "    if (4u * q >= length()) { return outside(); }"]
    lines += ["    let at = in_start(row);", f"    return {row.replace('in_start(row)', 'at')};", "}"]
    lines += ["fn put(row: u32, q: u32, v: vec4f) {", "    if (4u * q >= length()) { return; }"]
    lines += ["    let at = out_start(row);", f"    {stores}", "}"]
    bound = (("source", "r", element), *more, ("out", "w", kind))
    header = "\n".join(
        [
            bindings(bound, values is None),
            f"const WORKGROUP = {key.workgroup}u;",
            f"const LANES = {key.lanes}u;",
            f"const HELD = {key.held}u;",
            f"const LOG = {'true' if key.op == 'log_softmax' else 'false'};",
            words(tuple(names), values),
            *lines,
        ]
    )
    return assemble(key.op, key.body, header, "".join(a for _, a, _ in bound), values is None)


def run_rows(site: Site, op: str, x: View, axis: int, out: View, end: Finish | None = None) -> None:
    """Plan a softmax of ``x`` along ``axis`` into the contiguous ``out``; ``end`` is applied to each result."""
    if out.size == 0:
        return
    others = [i for i in range(len(x.shape)) if i != axis]
    sizes, (steps, out_steps) = collapse(
        tuple(x.shape[i] for i in others), [tuple(v.strides[i] for i in others) for v in (x, out)]
    )
    rows, length = size(sizes), x.shape[axis]
    if (site.target.software and 3 * length > 4 * MOST_TURNS) or x.dtype.nbytes * length > site.target.binding:
        _in_parts(site, op, x, axis, out, end)
        return
    if large(site, x, out):
        run_in_parts(site, _planner, op, [x], {"axis": axis}, out)
        return
    strides = (x.strides[axis], out.strides[axis])
    places = (x.offset, out.offset, length, *steps, *out_steps)
    four = strides == (1, 1) and all(n % 4 == 0 for n in places)
    body, lanes, held = "softmax", 1, 1
    shared = not site.target.software and site.target.invocations >= SHARED and length > SHORT
    if shared and not (strides[0] != 1 and site.tuned and rows >= MANY):
        body, (lanes, held) = "softmax_held", held_by(length) or (0, 0)
        if not lanes:
            body, lanes, held = "softmax_stream", SHARED, 1

    def launch(way: _Way, site: Site, views: Sequence[View], end: Finish | None = None) -> None:
        body, lanes, held, workgroup = way
        key = RowsKey(op, len(sizes), body, four, lanes, held, end.chain if end else None, workgroup)
        values = (rows, length, x.offset, out.offset, *strides, *sizes, *steps, *out_steps)
        operands = [views[0], *(end.views if end else ()), views[1]]
        site.launch(rows_kernel, key, values, operands, grid(-(-rows * lanes // workgroup)))

    if body == "softmax":
        found = {name: _Way(body, 1, 1, workgroup) for name, workgroup in workgroups(site).items()}
    else:
        first = _Way(body, lanes, held, SHARED)
        others = {name: _Way("softmax_held", *way, SHARED) for name, way in shares(length).items()}
        others["in two walks"] = _Way("softmax_stream", SHARED, 1, SHARED)
        found = dict(sorted(others.items(), key=lambda item: item[1] != first))
    traits = f"{op}, {'in fours' if four else 'side by side' if strides[0] == 1 else 'apart'}"
    way = chosen(site, Task("rows", traits, (rows, length), (x,), (out,), length), found, launch)
    launch(way, site, [x, out], end)


def _planner(site: Site, op: str, xs: Sequence[View], attrs: Mapping[str, Any], out: View) -> None:
    run_rows(site, op, xs[0], attrs["axis"], out)


def _in_parts(site: Site, op: str, x: View, axis: int, out: View, end: Finish | None) -> None:
    """Plan a softmax as maximum, exponential, sum and result, each a launch of its own: rows of any length."""
    kept = reduced(x.shape, (axis,), keepdim=True)
    top, total = (site.empty(kept, x.dtype.wide) for _ in range(2))
    run_reduce(site, "max", x, (axis,), top)
    scaled = site.empty(x.shape, x.dtype.wide)
    plan_map(site, "exp_nan(x - y)", [x.dtype] * 2, [x, top], scaled)
    run_reduce(site, "sum", scaled, (axis,), total)
    result = out if end is None else site.empty(out.shape, x.dtype.wide)
    if op == "softmax":
        plan_map(site, "x / y", [x.dtype] * 2, [scaled, total], result)
    else:
        plan_map(site, "x - y - log(z)", [x.dtype] * 3, [x, top, total], result)
    if end is not None:
        run_reduce(site, "max", result, (), out, None, end)
