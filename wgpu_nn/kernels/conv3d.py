"""Plans 3-d convolution and its two gradients: direct, 8 channels an invocation, as the 2-d ones are."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from wgpu_nn.gpu import Kernel
from wgpu_nn.kernels.fused import Chain, Finish, finish_header
from wgpu_nn.kernels.map import dense, run_map
from wgpu_nn.kernels.plan import MOST_TURNS, Input, Site, View, Words, check_turns, grid
from wgpu_nn.kernels.reduce import run_empty, run_reduce
from wgpu_nn.kernels.source import assemble, bindings, words
from wgpu_nn.shape import size

Triple = tuple[int, int, int]


class Volume(NamedTuple):
    """The constants of a 3-d convolution; sizes are not among them, so that a new batch or volume compiles nothing."""

    kernel: Triple
    stride: Triple
    dilation: Triple
    padded: bool
    workgroup: int


def _constants(v: Volume) -> str:
    triples = {"KERNEL": v.kernel, "STRIDE": v.stride, "DILATION": v.dilation}
    lines = [
        f"const {name}_{side} = {value}u;"
        for name, triple in triples.items()
        for side, value in zip("DHW", triple, strict=True)
    ]
    return "\n".join([*lines, f"const PADDED = {str(v.padded).lower()};", f"const WORKGROUP = {v.workgroup}u;"])


def tap_steps(ways: str, stride: Sequence[int], dilation: Sequence[int]) -> str:
    """Return the constants that say how far apart the weights are that one pixel of an input gradient meets."""
    rows = zip(ways, stride, dilation, strict=True)
    return "\n".join(f"const STEP_{way} = {s // math.gcd(s, d)}u;" for way, s, d in rows)


class VolumeKey(NamedTuple):
    """What distinguishes forward kernels. ``flipped``: the weight is read as the input gradient needs it."""

    volume: Volume
    bias: bool
    flipped: bool
    finish: Chain | None


_CONV_WORDS = (
    *("pixels", "blocks", "out_w", "out_h", "out_dhw", "depth", "height", "width", "pad_front", "pad_top", "pad_left"),
    *("in_channels", "out_channels", "group_in", "group_out", "group_blocks"),
)
_WEIGHT = """fn weight_row(o: u32) -> u32 { return o * group_in() * KERNEL_D * KERNEL_H * KERNEL_W; }
fn weight_tap(c: u32, kz: u32, ky: u32, kx: u32) -> u32 { return ((c * KERNEL_D + kz) * KERNEL_H + ky) * KERNEL_W + kx; }"""
# The roles of channels are exchanged and the window is turned around.
_FLIPPED = """fn weight_row(o: u32) -> u32 {
    return (o / group_out() * group_in() * group_out() + o % group_out()) * KERNEL_D * KERNEL_H * KERNEL_W;
}
fn weight_tap(c: u32, kz: u32, ky: u32, kx: u32) -> u32 {
    return (((c * group_out() + 1u) * KERNEL_D - 1u - kz) * KERNEL_H + KERNEL_H - 1u - ky) * KERNEL_W + KERNEL_W - 1u - kx;
}"""


@functools.cache
def conv3d_kernel(key: VolumeKey, values: Words | None) -> Kernel:
    """Return the kernel of a direct 3-d convolution."""
    more, finish, _ = finish_header(key.finish, "f32")
    bias = [("bias", "r", "f32")] if key.bias else []
    stored = (("source", "r", "f32"), ("weight", "r", "f32"), *bias, *more, ("out", "w", "f32"))
    header = "\n".join(
        [
            bindings(stored, values is None),
            finish,
            _constants(key.volume),
            words(_CONV_WORDS, values),
            _FLIPPED if key.flipped else _WEIGHT,
            f"fn initial(o: u32) -> f32 {{ return {'bias[o]' if key.bias else '0.0'}; }}",
        ]
    )
    return assemble("conv3d", "conv3d", header, "r" * (len(stored) - 1) + "w", values is None)


def run_conv3d(
    site: Site, op: str, inputs: Sequence[Input], attrs: dict[str, Any], out: View, finish: Finish | None = None
) -> None:
    """Plan a 3-d convolution with an optional bias; ``finish`` is applied to each result."""
    if out.size == 0:
        return
    x, w, *bias = (dense(site, v) for v in inputs if isinstance(v, View))
    if x.size == 0 or w.size == 0:
        run_empty(site, out, finish, bias[0].seen((1, *out.shape), (0, 0, 1, 0, 0, 0)) if bias else None)
        return
    _forward(site, x, w, bias, out, attrs, flipped=False, finish=finish)


def _forward(
    site: Site,
    x: View,
    w: View,
    bias: list[View],
    out: View,
    attrs: dict[str, Any],
    *,
    flipped: bool,
    finish: Finish | None,
) -> None:
    padding, groups = attrs["padding"], attrs["groups"]
    kernel: Triple = w.shape[2:]  # pyright: ignore[reportAssignmentType]
    # Every loop's head counts as a turn.
    check_turns(site, "conv3d", x.shape[1] // groups * (1 + kernel[0] * (1 + kernel[1] * (kernel[2] + 1))))
    (n, c, *sizes), (o, *counts) = x.shape, out.shape[1:]
    pixels, group_out = n * size(tuple(counts)), o // groups
    group_blocks = -(-group_out // 8)
    blocks = group_blocks * groups
    workgroup = min(64, site.target.invocations)
    volume = Volume(kernel, attrs["stride"], attrs["dilation"], any(map(any, padding)), workgroup)
    values = (
        *(pixels, blocks, counts[2], counts[1], size(tuple(counts)), *sizes, *(before for before, _ in padding)),
        *(c, o, c // groups, group_out, group_blocks),
    )
    key = VolumeKey(volume, bool(bias), flipped, finish.chain if finish else None)
    views = [x, w, *bias, *(finish.views if finish else ()), out]
    site.launch(conv3d_kernel, key, values, views, grid(-(-pixels // (workgroup * 8)) * blocks))


def as_volume(x: View) -> View:
    """Return a plane's tensor as one of volumes of a single slice."""
    return x.seen((*x.shape[:2], 1, *x.shape[2:]), (*x.strides[:2], 0, *x.strides[2:]))


def deep(site: Site, out: View, groups: int) -> bool:
    """Whether the gradient ``out`` of a plane is worth an invocation's 8 channels: enough channels for it, and on a GPU
    enough invocations as well, where they may depend on every size."""
    channels = out.shape[1] // groups
    blocks = out.size // out.shape[1] * groups * -(-channels // 8)
    return channels > 2 and (site.target.software or not site.tuned or blocks >= 1 << 15)


_INPUT_WORDS = (
    *("items", "blocks", "depth", "height", "width", "in_channels", "out_d", "out_h", "out_w", "out_channels"),
    *("pad_front", "pad_top", "pad_left", "group_in", "group_out", "group_blocks"),
)


class VolumeInputKey(NamedTuple):
    """What distinguishes kernels of the input gradient."""

    volume: Volume
    finish: Chain | None


@functools.cache
def input_grad3d_kernel(key: VolumeInputKey, values: Words | None) -> Kernel:
    """Return the kernel of the input gradient for any stride."""
    more, finish, _ = finish_header(key.finish, "f32")
    stored = (("source", "r", "f32"), ("weight", "r", "f32"), *more, ("out", "w", "f32"))
    header = "\n".join(
        [
            bindings(stored, values is None),
            finish,
            _constants(key.volume),
            tap_steps("DHW", key.volume.stride, key.volume.dilation),
            words(_INPUT_WORDS, values),
        ]
    )
    access = "".join(a for _, a, _ in stored)
    return assemble("conv3d_input_grad", "conv3d_input_grad", header, access, values is None)


def run_input_grad3d(
    site: Site, op: str, inputs: Sequence[Input], attrs: dict[str, Any], out: View, finish: Finish | None = None
) -> None:
    """Plan the gradient of a 3-d convolution's input from that of its output; ``finish`` is applied to each result.

    With stride 1 it is itself a convolution, of the padded gradient with the turned weight.
    """
    if out.size == 0:
        return
    g, w = (dense(site, v) for v in inputs if isinstance(v, View))
    if g.size == 0 or w.size == 0:
        run_empty(site, out, finish)
        return
    stride, padding, dilation, groups = attrs["stride"], attrs["padding"], attrs["dilation"], attrs["groups"]
    kernel: Triple = w.shape[2:]  # pyright: ignore[reportAssignmentType]
    if stride == (1, 1, 1):
        spans = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        before = [span - pad for span, (pad, _) in zip(spans, padding, strict=True)]
        after = [out.shape[2 + i] - g.shape[2 + i] + spans[i] - before[i] for i in range(3)]
        if min(before + after) >= 0:
            turned = {**attrs, "padding": tuple(zip(before, after, strict=True))}
            _forward(site, g, w, [], out, turned, flipped=True, finish=finish)
            return
    (n, c, *sizes), (o, *counts) = out.shape, g.shape[1:]
    check_turns(site, op, (o // groups + 1) * (1 + kernel[0] * (1 + kernel[1] * (kernel[2] + 1))))
    volume = Volume(kernel, stride, dilation, True, site.target.workgroup)
    group_blocks = -(-(c // groups) // 8)
    blocks = group_blocks * groups
    items = n * blocks * size(tuple(sizes))
    values = (
        *(items, blocks, *sizes, c, *counts, o, *(before for before, _ in padding)),
        *(c // groups, o // groups, group_blocks),
    )
    key = VolumeInputKey(volume, finish.chain if finish else None)
    views = [g, w, *(finish.views if finish else ()), out]
    site.launch(input_grad3d_kernel, key, values, views, grid(-(-items // volume.workgroup)))


_WEIGHT_WORDS = (
    *(
        "items",
        "rows_per_slice",
        "slice_size",
        "sums_start",
        "rows",
        "depth",
        "height",
        "width",
        "out_d",
        "out_h",
        "out_w",
    ),
    *("pad_front", "pad_top", "pad_left", "in_channels", "out_channels", "group_in", "group_out", "group_blocks"),
    *("columns", "column_blocks"),
)


class VolumeWeightKey(NamedTuple):
    """What distinguishes kernels of the weight gradient; ``sums`` adds that of the bias."""

    volume: Volume
    sums: bool


@functools.cache
def weight_grad3d_kernel(key: VolumeWeightKey, values: Words | None) -> Kernel:
    """Return the kernel of the weight gradient over one slice of rows."""
    stored = (("source", "r", "f32"), ("grad", "r", "f32"), ("out", "w", "f32"))
    sums = f"const SUMS = {str(key.sums).lower()};"
    header = "\n".join([bindings(stored, values is None), _constants(key.volume), sums, words(_WEIGHT_WORDS, values)])
    return assemble("conv3d_weight_grad", "conv3d_weight_grad", header, "rrw", values is None)


# Invocations that a weight gradient is spread over: on a software adapter, and on a GPU.
SLICED, SPREAD = 1024, 1 << 15


def run_weight_grad3d(
    site: Site,
    op: str,
    inputs: Sequence[Input],
    attrs: dict[str, Any],
    out: View,
    both: View | None = None,
    sums_start: int = 0,
) -> None:
    """Plan the gradient of a 3-d convolution's weight: slices of the batch's rows, then their sum in a fixed order.

    ``both`` is memory that begins with ``out`` and receives the bias gradient from ``sums_start`` on.
    """
    if out.size == 0:
        return
    x, g = (dense(site, v) for v in inputs if isinstance(v, View))
    if x.size == 0 or g.size == 0:
        run_map(site, "full", [0.0], out if both is None else both)
        return
    padding, groups = attrs["padding"], attrs["groups"]
    kernel: Triple = out.shape[2:]  # pyright: ignore[reportAssignmentType]
    volume = Volume(
        kernel, attrs["stride"], attrs["dilation"], any(map(any, padding)), min(64, site.target.invocations)
    )
    (_, c, *sizes), (n, o, *counts) = x.shape, g.shape
    columns, group_out = size(out.shape[1:]), o // groups
    column_blocks, group_blocks = -(-columns // 8), -(-group_out // 8)
    tiles = column_blocks * group_blocks * groups
    rows = n * counts[0] * counts[1]
    wanted = min(rows, -(-(SLICED if site.target.software else SPREAD) // tiles))
    per_slice = -(-rows // wanted)
    if site.target.software:
        check_turns(site, op, counts[2] + 1)
        per_slice = min(per_slice, max(1, MOST_TURNS // (counts[2] + 1)))
    slices = -(-rows // per_slice)
    whole = out if both is None else both
    partial = whole if slices == 1 else site.empty((slices, *whole.shape), out.dtype.wide)
    items = slices * tiles
    values = (
        *(items, per_slice, whole.size, sums_start, rows, *sizes, *counts, *(before for before, _ in padding)),
        *(c, o, c // groups, group_out, group_blocks, columns, column_blocks),
    )
    key = VolumeWeightKey(volume, both is not None)
    site.launch(weight_grad3d_kernel, key, values, [x, g, partial], grid(-(-items // volume.workgroup)))
    if slices > 1:
        run_reduce(site, "sum", partial, (0,), whole)
