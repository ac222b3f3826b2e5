"""Plans 2-d pooling and its gradients, one output an invocation."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

from wgpu_nn.gpu import Kernel
from wgpu_nn.kernels.fused import Chain, Finish, finish_header
from wgpu_nn.kernels.map import dense, plan_map, run_map
from wgpu_nn.kernels.plan import Input, Site, View, Words, check_turns, grid
from wgpu_nn.kernels.reduce import run_reduce
from wgpu_nn.kernels.source import assemble, bindings, words
from wgpu_nn.shape import row_major

Pair = tuple[int, int]
_WORDS = ("items", "height", "width", "out_h", "out_w", "pad_top", "pad_left")


class PoolKey(NamedTuple):
    """What distinguishes pooling kernels; adaptive ones have no window."""

    op: str
    kernel: Pair
    stride: Pair
    include_pad: bool
    workgroup: int
    finish: Chain | None = None


_STORES = {"max_pool2d": "out[i] = best;", "argmax_pool2d": "out[i] = i32(place);"}


@functools.cache
def pool_kernel(key: PoolKey, values: Words | None) -> Kernel:
    """Return the kernel of one pooling op."""
    body = "max_pool2d" if key.op == "argmax_pool2d" else key.op
    positions = [("positions", "r", "i32")] if key.op == "max_pool2d_grad" else []
    out = "i32" if key.op == "argmax_pool2d" else "f32"
    more, finish, _ = finish_header(key.finish, "f32")
    stored = (("source", "r", "f32"), *positions, *more, ("out", "w", out))
    lines = [bindings(stored, values is None), f"const WORKGROUP = {key.workgroup}u;", words(_WORDS, values)]
    if not key.op.startswith("adaptive"):
        lines += [
            f"const KERNEL_{a} = {k}u; const STRIDE_{a} = {s}u;"
            for a, k, s in zip("HW", key.kernel, key.stride, strict=True)
        ]
        lines.append(f"const INCLUDE_PAD = {str(key.include_pad).lower()};")
    if body == "adaptive_avg_pool2d":
        lines.append(finish)
    if body == "max_pool2d":
        lines.append(f"fn store(i: u32, best: f32, place: u32) {{ {_STORES[key.op]} }}")
    return assemble(key.op, body, "\n".join(lines), "r" * (len(stored) - 1) + "w", values is None)


def run_pool(
    site: Site, op: str, inputs: Sequence[Input], attrs: dict[str, Any], out: View, finish: Finish | None = None
) -> None:
    """Plan a pooling op, or the gradient of one: there ``out`` is the input's side.

    ``finish`` is applied to each result of an adaptive average.
    """
    if out.size == 0:
        return
    views = [dense(site, v) for v in inputs if isinstance(v, View)]
    if views[0].size == 0:
        run_map(site, "full", [0.0], out)
        return
    grad = op.endswith("_grad")
    (height, width), (oh, ow) = (v.shape[2:] for v in ((out, views[0]) if grad else (views[0], out)))
    if op == "adaptive_avg_pool2d" and (oh, ow) == (1, 1):
        run_reduce(site, "mean", views[0], (2, 3), out, finish=finish)
        return
    if op == "adaptive_avg_pool2d_grad" and height % oh == 0 and width % ow == 0:
        _share_bins(site, views[0], out)
        return
    kernel = attrs.get("kernel", (-(-height // oh) + 1, -(-width // ow) + 1))
    check_turns(site, op, kernel[0] * (kernel[1] + 1))
    (top, _), (left, _) = attrs.get("padding", ((0, 0), (0, 0)))
    key = PoolKey(
        op,
        kernel if "kernel" in attrs else (1, 1),
        attrs.get("stride", (1, 1)),
        attrs.get("include_pad", False),
        site.target.workgroup,
    )
    values = (out.size, height, width, oh, ow, top, left)
    key = key._replace(finish=finish.chain if finish else None)
    site.launch(
        pool_kernel, key, values, [*views, *(finish.views if finish else ()), out], grid(-(-out.size // key.workgroup))
    )


def _share_bins(site: Site, g: View, out: View) -> None:
    """Plan the gradient of bins of equal size: each pixel gets the same share of its bin."""
    (n, c, height, width), (oh, ow) = out.shape, g.shape[2:]
    rows, columns = height // oh, width // ow
    bins = g.seen((n, c, oh, 1, ow, 1), (*g.strides[:3], 0, g.strides[3], 0))
    apart = (n, c, oh, rows, ow, columns)
    plan_map(site, "x / y", [g.dtype] * 2, [bins, float(rows * columns)], out.seen(apart, row_major(apart)))
