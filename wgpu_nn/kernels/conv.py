"""Plans 2-d convolution and its two gradients: direct, 8 pixels x 8 channels an invocation."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

from wgpu_nn.gpu import Kernel
from wgpu_nn.kernels.conv3d import as_volume, deep, run_input_grad3d, tap_steps
from wgpu_nn.kernels.conv_few import FEW, PART, few, run_filter_grad, run_strips
from wgpu_nn.kernels.conv_runs import run_runs
from wgpu_nn.kernels.fused import Chain, Finish, finish_header
from wgpu_nn.kernels.implicit import Convolution, run_forward, run_weight, weight_slices
from wgpu_nn.kernels.map import dense, run_map
from wgpu_nn.kernels.plan import MOST_TURNS, Input, Site, View, Words, check_turns, grid
from wgpu_nn.kernels.reduce import run_reduce
from wgpu_nn.kernels.source import assemble, bindings, words
from wgpu_nn.kernels.weight_tile import fits, run_weight_tiles
from wgpu_nn.shape import Shape, size

Pair = tuple[int, int]


class Window(NamedTuple):
    """The constants of a convolution; sizes are not among them, so that a new batch or image size compiles nothing."""

    kernel: Pair
    stride: Pair
    dilation: Pair
    padded: bool
    workgroup: int


def _constants(w: Window) -> str:
    pairs = {"KERNEL": w.kernel, "STRIDE": w.stride, "DILATION": w.dilation}
    lines = [
        f"const {name}_{side} = {value}u;"
        for name, pair in pairs.items()
        for side, value in zip("HW", pair, strict=True)
    ]
    return "\n".join([*lines, f"const PADDED = {str(w.padded).lower()};", f"const WORKGROUP = {w.workgroup}u;"])


class ConvKey(NamedTuple):
    """What distinguishes forward kernels. ``flipped``: the weight is read as the input gradient needs it."""

    window: Window
    bias: bool
    flipped: bool
    single: bool  # one pixel an invocation, not eight
    finish: Chain | None


_CONV_WORDS = [
    "pixels",
    "blocks",
    "out_w",
    "out_hw",
    "height",
    "width",
    "pad_top",
    "pad_left",
    "in_channels",
    "out_channels",
    "group_in",
    "group_out",
    "group_blocks",
]
_WEIGHT = """fn weight_row(o: u32) -> u32 { return o * group_in() * KERNEL_H * KERNEL_W; }
fn weight_tap(c: u32, ky: u32, kx: u32) -> u32 { return (c * KERNEL_H + ky) * KERNEL_W + kx; }"""
# The roles of channels are exchanged and the window is turned around.
_FLIPPED = """fn weight_row(o: u32) -> u32 {
    return (o / group_out() * group_in() * group_out() + o % group_out()) * KERNEL_H * KERNEL_W;
}
fn weight_tap(c: u32, ky: u32, kx: u32) -> u32 {
    return ((c * group_out() + 1u) * KERNEL_H - 1u - ky) * KERNEL_W + KERNEL_W - 1u - kx;
}"""


@functools.cache
def conv_kernel(key: ConvKey, values: Words | None) -> Kernel:
    """Return the kernel of a direct convolution."""
    stored = [
        ("source", "r", "f32"),
        ("weight", "r", "f32"),
        *([("bias", "r", "f32")] if key.bias else []),
        ("out", "w", "f32"),
    ]
    more, finish, _ = finish_header(key.finish, "f32")
    stored[-1:-1] = more
    header = "\n".join(
        [
            bindings(tuple(stored), values is None),
            finish,
            _constants(key.window),
            words(tuple(_CONV_WORDS), values),
            _FLIPPED if key.flipped else _WEIGHT,
            f"fn initial(o: u32) -> f32 {{ return {'bias[o]' if key.bias else '0.0'}; }}",
        ]
    )
    body = "conv2d_pixel" if key.single else "conv2d"
    return assemble("conv2d", body, header, "r" * (len(stored) - 1) + "w", values is None)


def _dense(site: Site, inputs: Sequence[Input]) -> list[View]:
    """Return the operands that are tensors, each contiguous at the start of its buffer."""
    return [dense(site, x) for x in inputs if isinstance(x, View)]


def run_conv2d(
    site: Site, op: str, inputs: Sequence[Input], attrs: dict[str, Any], out: View, finish: Finish | None = None
) -> None:
    """Plan a convolution with an optional bias; ``finish`` is applied to each result."""
    if out.size == 0:
        return
    x, w, *bias = _dense(site, inputs)
    if x.size == 0 or w.size == 0:
        run_map(site, "cast", [bias[0].seen(out.shape, (0, 1, 0, 0))], out) if bias else run_map(
            site, "full", [0.0], out
        )
        return
    _forward(site, x, w, bias, out, attrs, flipped=False, finish=finish)


def _zeros(site: Site, out: View) -> View:
    """Return one row of zeros like ``out``."""
    zeros = site.empty((1, *out.shape), out.dtype)
    run_map(site, "full", [0.0], zeros)
    return zeros


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
    stride, padding, dilation, groups = attrs["stride"], attrs["padding"], attrs["dilation"], attrs["groups"]
    if few(site, x.shape[1] // groups, out.shape[1] // groups):
        run_strips(site, x, w, bias, out, attrs, flipped=flipped, finish=finish)
        return
    check_turns(site, "conv2d", x.shape[1] // groups * w.shape[2] * (w.shape[3] + 1))
    (n, c, height, width), (o, oh, ow) = x.shape, out.shape[1:]
    (top, bottom), (left, right) = padding
    padded = max(top, bottom, left, right) > 0
    kernel = (w.shape[2], w.shape[3])
    constants = _constants(Window(kernel, stride, dilation, padded, 1))
    texts = (constants, _FLIPPED if flipped else _WEIGHT)
    if run_runs(site, x, w, bias, out, (kernel, stride, dilation, padding), groups, texts, finish):
        return
    role = "flipped" if flipped else "forward"
    if run_forward(
        site, Convolution(role, constants, x, (o, oh, ow), kernel, (top, left), groups), w, bias, out, finish
    ):
        return
    pixels, group_out = n * oh * ow, o // groups
    group_blocks = -(-group_out // 8)
    blocks = group_blocks * groups
    # Invocations enough to fill a large GPU come first, then the reuse of weights.
    single = site.tuned and not site.target.software and pixels * blocks < 1 << 19
    workgroup = site.target.workgroup if site.target.software else min(64, site.target.invocations)
    window = Window(kernel, stride, dilation, padded, workgroup)
    values = (pixels, blocks, ow, oh * ow, height, width, top, left, c, o, c // groups, group_out, group_blocks)
    groups_of_pixels = -(-pixels // (workgroup * (1 if single else 8)))
    key = ConvKey(window, bool(bias), flipped, single, finish.chain if finish else None)
    views = [x, w, *bias, *(finish.views if finish else ()), out]
    site.launch(conv_kernel, key, values, views, grid(groups_of_pixels * blocks))


_INPUT_WORDS = [
    "items",
    "height",
    "width",
    "in_channels",
    "out_h",
    "out_w",
    "out_channels",
    "pad_top",
    "pad_left",
    "group_in",
    "group_out",
]


class InputGradKey(NamedTuple):
    """What distinguishes kernels of the input gradient."""

    window: Window
    finish: Chain | None


@functools.cache
def input_grad_kernel(key: InputGradKey, values: Words | None) -> Kernel:
    """Return the kernel of the input gradient for any stride."""
    window = key.window
    more, finish, _ = finish_header(key.finish, "f32")
    stored = (("source", "r", "f32"), ("weight", "r", "f32"), *more, ("out", "w", "f32"))
    header = "\n".join(
        [
            bindings(stored, values is None),
            finish,
            _constants(window),
            tap_steps("HW", window.stride, window.dilation),
            words(tuple(_INPUT_WORDS), values),
        ]
    )
    access = "".join(a for _, a, _ in stored)
    return assemble("conv2d_input_grad", "conv2d_input_grad", header, access, values is None)


def run_input_grad(
    site: Site, op: str, inputs: Sequence[Input], attrs: dict[str, Any], out: View, finish: Finish | None = None
) -> None:
    """Plan the gradient of a convolution's input from that of its output; ``finish`` is applied to each result.

    With stride 1 it is itself a convolution, of the padded gradient with the turned weight.
    """
    if out.size == 0:
        return
    g, w = _dense(site, inputs)
    if g.size == 0 or w.size == 0:
        run_reduce(site, "sum", _zeros(site, out), (0,), out, finish=finish)
        return
    stride, padding, dilation, groups = attrs["stride"], attrs["padding"], attrs["dilation"], attrs["groups"]
    kernel = (w.shape[2], w.shape[3])
    if stride == (1, 1):
        pads: list[Pair] = []
        for d in (0, 1):
            before = dilation[d] * (kernel[d] - 1) - padding[d][0]
            after = out.shape[2 + d] - g.shape[2 + d] + dilation[d] * (kernel[d] - 1) - before
            pads.append((before, after))
        if min(pads[0] + pads[1]) >= 0:
            turned = {**attrs, "padding": (pads[0], pads[1])}
            _forward(site, g, w, [], out, turned, flipped=True, finish=finish)
            return
    if deep(site, out, groups):
        one = {"stride": (1, *stride), "padding": ((0, 0), *padding), "dilation": (1, *dilation), "groups": groups}
        run_input_grad3d(site, op, [as_volume(g), as_volume(w)], one, as_volume(out), finish)
        return
    window = Window(kernel, stride, dilation, True, site.target.workgroup)
    (_, c, height, width), (_, o, oh, ow) = out.shape, g.shape
    values = (out.size, height, width, c, oh, ow, o, padding[0][0], padding[1][0], c // groups, o // groups)
    key = InputGradKey(window, finish.chain if finish else None)
    site.launch(
        input_grad_kernel,
        key,
        values,
        [g, w, *(finish.views if finish else ()), out],
        grid(-(-out.size // window.workgroup)),
    )


_WEIGHT_WORDS = [
    "items",
    "parts_per_slice",
    "slice_size",
    "sums_start",
    "parts",
    "height",
    "width",
    "out_h",
    "out_w",
    "pad_top",
    "pad_left",
    "in_channels",
    "out_channels",
    "group_in",
    "group_out",
    "group_blocks",
    "columns",
    "column_blocks",
    "parts_per_row",
    "part_size",
]


class WeightGradKey(NamedTuple):
    """What distinguishes kernels of the weight gradient without workgroup memory; ``sums`` adds that of the bias."""

    window: Window
    sums: bool


@functools.cache
def weight_grad_kernel(key: WeightGradKey, values: Words | None) -> Kernel:
    """Return the kernel of the weight gradient over one slice of rows."""
    stored = (("source", "r", "f32"), ("grad", "r", "f32"), ("out", "w", "f32"))
    sums = f"const SUMS = {str(key.sums).lower()};"
    text = words(tuple(_WEIGHT_WORDS), values)
    header = "\n".join([bindings(stored, values is None), _constants(key.window), sums, text])
    return assemble("conv2d_weight_grad", "conv2d_weight_grad", header, "rrw", values is None)


SLICED = 1024  # invocations that a weight gradient is spread over on a software adapter


def bias_place(shape: Shape) -> int:
    """Return where a bias gradient starts behind a weight gradient of ``shape``: both can then be bound by themselves."""
    return -(-size(shape) // 64) * 64


def run_weight_grad(
    site: Site, op: str, inputs: Sequence[Input], attrs: dict[str, Any], out: View, both: View | None = None
) -> None:
    """Plan the gradient of a convolution's weight: slices of the batch's rows, then their sum in a fixed order.

    ``both`` [bias_place + out channels] is memory that begins with ``out`` and also receives the bias gradient.
    """
    if out.size == 0:
        return
    x, g = _dense(site, inputs)
    if x.size == 0 or g.size == 0:
        run_map(site, "full", [0.0], out if both is None else both)
        return
    (top, bottom), (left, right) = attrs["padding"]
    groups = attrs["groups"]
    shape: Shape = out.shape
    if shape[0] // groups <= FEW:
        run_filter_grad(site, x, g, out, attrs, both, bias_place(shape))
        return
    padded = max(top, bottom, left, right) > 0
    workgroup = site.target.workgroup
    window = Window((shape[2], shape[3]), attrs["stride"], attrs["dilation"], padded, workgroup)
    (n, c, height, width), (_, o, oh, ow) = x.shape, g.shape
    whole = out if both is None else both
    conv = Convolution(
        "weight", _constants(window._replace(workgroup=1)), x, (o, oh, ow), window.kernel, (top, left), groups
    )
    sliced = weight_slices(site, conv)
    if sliced is not None:
        partial = whole if sliced[1] == 1 else site.empty((sliced[1], *whole.shape), out.dtype)
        run_weight(site, conv, g, sliced, partial, bias_place(shape), both is not None)
        if sliced[1] > 1:
            run_reduce(site, "sum", partial, (0,), whole)
        return
    if fits(site.target):
        run_weight_tiles(site, x, g, out, attrs, both, bias_place(shape))
        return
    columns, group_out = shape[1] * shape[2] * shape[3], o // groups
    column_blocks, group_blocks = -(-columns // 8), -(-group_out // 8)
    tiles = column_blocks * group_blocks * groups
    # Slices are of parts of rows; their number depends on the shape alone.
    per_row = -(-ow // PART)
    part = -(-ow // per_row)
    lines = n * oh * per_row
    per_slice = -(-lines // min(lines, -(-SLICED // tiles)))
    if site.target.software:
        per_slice = min(per_slice, MOST_TURNS // (part + 1))
    slices = -(-lines // per_slice)
    partial = whole if slices == 1 else site.empty((slices, *whole.shape), out.dtype)
    items = slices * tiles
    values = (
        *(items, per_slice, whole.size, bias_place(shape), lines, height, width, oh, ow, top, left, c, o, c // groups),
        *(group_out, group_blocks, columns, column_blocks, per_row, part),
    )
    key = WeightGradKey(window, both is not None)
    site.launch(weight_grad_kernel, key, values, [x, g, partial], grid(-(-items // workgroup)))
    if slices > 1:
        run_reduce(site, "sum", partial, (0,), whole)
