"""Plans 2-d convolutions of few output channels a group, as depthwise ones are, and their weight gradients.

Blocks of 8 output channels would be mostly idle there: an invocation takes a line of pixels, or a row of weights, instead.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

from wgpu_nn.gpu import Kernel
from wgpu_nn.kernels.fused import Chain, Finish, finish_header
from wgpu_nn.kernels.plan import MOST_TURNS, Site, View, Words, check_turns, grid
from wgpu_nn.kernels.reduce import run_reduce
from wgpu_nn.kernels.source import assemble, bindings, words

Pair = tuple[int, int]
PART = 1024  # pixels of a row that a weight gradient walks at a time: one long row is work for many
FEW = 2  # output channels of a group for which this is faster than blocks of 8


def few(site: Site, into: int, out: int) -> bool:
    """Whether strips suit a group of ``into`` input and ``out`` output channels: a GPU also wants many short sums."""
    return out <= FEW and (site.target.software or into <= 8)


class StripKey(NamedTuple):
    """What distinguishes kernels of strips. Pairs are (along a strip, across it); ``flipped``: the weight is read as the
    input gradient needs it, and ``upright``: strips go down the columns of the image, not along its rows."""

    kernel: Pair
    stride: Pair
    dilation: Pair
    upright: bool
    bias: bool
    flipped: bool
    workgroup: int
    finish: Chain | None


_STRIP_WORDS = (
    *("items", "strips", "out_along", "out_across", "out_step_along", "out_step_across", "along", "across"),
    *("step_along", "step_across", "pad_along", "pad_across", "in_channels", "out_channels", "group_in", "group_out"),
)


@functools.cache
def strip_kernel(key: StripKey, values: Words | None) -> Kernel:
    """Return the kernel of a convolution by strips."""
    more, finish, _ = finish_header(key.finish, "f32")
    bias = [("bias", "r", "f32")] if key.bias else []
    stored = (("source", "r", "f32"), ("weight", "r", "f32"), *bias, *more, ("out", "w", "f32"))
    taps = key.kernel[0] * key.kernel[1]
    # Weights of a filter lie row by row.
    k, j = (key.kernel[1], 1) if key.upright else (1, key.kernel[0])
    tap = f"k * {k}u + j * {j}u"
    if key.flipped:
        row = f"(o / group_out() * group_in() * group_out() + o % group_out()) * {taps}u"
        tap = f"(c * group_out() + 1u) * {taps}u - 1u - ({tap})"
    else:
        row, tap = f"o * group_in() * {taps}u", f"c * {taps}u + {tap}"
    lines = [
        f"const {name}_{way} = {value}u;"
        for name, pair in (("KERNEL", key.kernel), ("STRIDE", key.stride), ("DILATION", key.dilation))
        for way, value in zip(("ALONG", "ACROSS"), pair, strict=True)
    ]
    header = "\n".join(
        [
            bindings(stored, values is None),
            finish,
            f"const WORKGROUP = {key.workgroup}u;",
            *lines,
            words(_STRIP_WORDS, values),
            f"fn weight_row(o: u32) -> u32 {{ return {row}; }}",
            f"fn weight_tap(c: u32, k: u32, j: u32) -> u32 {{ return {tap}; }}",
            f"fn initial(o: u32) -> f32 {{ return {'bias[o]' if key.bias else '0.0'}; }}",
        ]
    )
    return assemble("conv2d strips", "conv2d_strip", header, "r" * (len(stored) - 1) + "w", values is None)


def run_strips(
    site: Site,
    x: View,
    w: View,
    bias: Sequence[View],
    out: View,
    attrs: dict[str, Any],
    *,
    flipped: bool,
    finish: Finish | None,
) -> None:
    """Plan a convolution by strips of 8 pixels; operands are contiguous, and none is empty."""
    groups, pads = attrs["groups"], attrs["padding"]
    (n, c, *sizes), (o, *counts) = x.shape, out.shape[1:]
    check_turns(site, "conv2d", c // groups * (1 + w.shape[2] * w.shape[3] + max(w.shape[2:])))
    # Pixels computed, those beyond the image's edge included. Upright, neighbours read side by side: that is worth some.
    spent = [-(-counts[0] // 8) * 8 * counts[1], -(-counts[1] // 8) * 8 * counts[0]]
    upright = spent[0] <= spent[1] * (1 if site.target.software else 2)
    a, b = (0, 1) if upright else (1, 0)
    steps, out_steps = (sizes[1], 1), (counts[1], 1)
    strips = -(-counts[a] // 8)
    items = n * o * strips * counts[b]
    values = (
        *(items, strips, counts[a], counts[b], out_steps[a], out_steps[b], sizes[a], sizes[b], steps[a], steps[b]),
        *(pads[a][0], pads[b][0], c, o, c // groups, o // groups),
    )
    kernel, stride, dilation = ((p[a], p[b]) for p in (w.shape[2:], attrs["stride"], attrs["dilation"]))
    chain = finish.chain if finish else None
    key = StripKey(kernel, stride, dilation, upright, bool(bias), flipped, site.target.workgroup, chain)
    views = [x, w, *bias, *(finish.views if finish else ()), out]
    site.launch(strip_kernel, key, values, views, grid(-(-items // key.workgroup)))


class FilterKey(NamedTuple):
    """What distinguishes kernels of filters' gradients; ``sums`` adds that of the bias."""

    kernel: Pair
    stride: Pair
    dilation: Pair
    padded: bool
    sums: bool
    shared: bool  # a workgroup's pixels are added up in its memory
    workgroup: int


_FILTER_WORDS = (
    *("items", "parts_per_slice", "slice_size", "sums_start", "parts", "height", "width", "out_h", "out_w"),
    *("pad_top", "pad_left", "in_channels", "out_channels", "group_in", "group_out", "parts_per_row", "part_size"),
)


@functools.cache
def filter_kernel(key: FilterKey, values: Words | None) -> Kernel:
    """Return the kernel of filters' gradients over one slice of rows, or of pixels."""
    stored = (("source", "r", "f32"), ("grad", "r", "f32"), ("out", "w", "f32"))
    names = [n.replace("parts", "pixels") if key.shared else n for n in _FILTER_WORDS]
    lines = [
        f"const {name}_{way} = {value}u;"
        for name, pair in (("KERNEL", key.kernel), ("STRIDE", key.stride), ("DILATION", key.dilation))
        for way, value in zip("HW", pair, strict=True)
    ]
    header = "\n".join(
        [
            bindings(stored, values is None),
            *lines,
            f"const PADDED = {str(key.padded).lower()};",
            f"const SUMS = {str(key.sums).lower()};",
            f"const WORKGROUP = {key.workgroup}u;",
            words((*names, "columns", "column_blocks"), values),
        ]
    )
    body = "conv2d_filter_grad_shared" if key.shared else "conv2d_filter_grad"
    return assemble("conv2d filter gradients", body, header, "rrw", values is None)


# Invocations that filters' gradients are spread over on a software adapter, and workgroups on a GPU.
SLICED, GROUPS = 1024, 2048


def run_filter_grad(
    site: Site, x: View, g: View, out: View, attrs: dict[str, Any], both: View | None, sums_start: int
) -> None:
    """Plan the gradient of a weight: slices of the batch's rows, then their sum in a fixed order; operands are contiguous,
    and none is empty.

    ``both`` is memory that begins with ``out`` and receives the bias gradient from ``sums_start`` on.
    """
    pads, groups = attrs["padding"], attrs["groups"]
    (n, c, height, width), (o, oh, ow) = x.shape, g.shape[1:]
    into, kernel = out.shape[1], (out.shape[2], out.shape[3])
    columns = into * kernel[0] * kernel[1]
    shared = not site.target.software and site.target.invocations >= 64
    column_blocks = -(-columns // 12)
    # A tile is what one workgroup, or one invocation, computes of the weight.
    tiles = o * (column_blocks if shared else into * kernel[0] * -(-kernel[1] // 8))
    per_row = -(-ow // PART)
    part = -(-ow // per_row)
    lines = n * oh * (ow if shared else per_row)
    wanted = min(-(-lines // (64 * 4)), -(-GROUPS // tiles)) if shared else min(lines, -(-SLICED // tiles))
    per_slice = -(-lines // max(wanted, 1))
    if site.target.software:
        per_slice = min(per_slice, MOST_TURNS // (part + 1))
    slices = -(-lines // per_slice)
    whole = out if both is None else both
    partial = whole if slices == 1 else site.empty((slices, *whole.shape), out.dtype.wide)
    items = slices * tiles
    values = (
        *(items, per_slice, whole.size, sums_start, lines, height, width, oh, ow, pads[0][0], pads[1][0]),
        *(c, o, into, o // groups, per_row, part, columns, column_blocks),
    )
    workgroup = 64 if shared else site.target.workgroup
    padded = any(map(any, pads))
    key = FilterKey(kernel, attrs["stride"], attrs["dilation"], padded, both is not None, shared, workgroup)
    site.launch(filter_kernel, key, values, [x, g, partial], grid(items if shared else -(-items // workgroup)))
    if slices > 1:
        run_reduce(site, "sum", partial, (0,), whole)
