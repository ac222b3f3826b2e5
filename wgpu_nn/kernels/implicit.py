"""Plans 2-d convolutions with many channels on GPUs as block products whose operands are gathered as they are loaded.

Nothing is unfolded in memory. Columns are pixels, counted through the batch; the inner axis is that of a filter's weights:
channel, row, column. The weight gradient exchanges the two.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

from wgpu_nn.gpu import Kernel
from wgpu_nn.kernels.block import MIDDLE, SMALL, WRITER, Block, block_body, choose_block, fitting_blocks
from wgpu_nn.kernels.fused import Chain, Finish, finish_header
from wgpu_nn.kernels.plan import Site, View, Words, grid
from wgpu_nn.kernels.source import assemble, bindings, words

Pair = tuple[int, int]
LEAST = 32  # weights of a filter, and filters of a group, whose gradient is worth it
NARROW = (8, 8, 1, 2)  # a block for few filters
SPREAD = 512  # workgroups of 128 invocations that a weight gradient is spread over


class ImplicitKey(NamedTuple):
    """What distinguishes these kernels.

    ``role`` is forward, flipped (the input gradient, which reads the weight turned around), phase (that of some
    pixels, whose weights go back: see conv_phases.py) or weight (its gradient).
    ``rows_of_four`` says that four neighbouring pixels lie in one row of the output, ``planes_of_four`` in one image.
    """

    role: str
    constants: str
    block: Block
    rows_of_four: bool
    planes_of_four: bool
    vector: bool  # the operand that is not gathered is loaded in fours
    extra: bool  # forward: a bias; weight: the bias gradient as one more column
    finish: Chain | None = None


_WORDS = (
    *("rows", "columns", "inner", "batches", "slices", "per_slice", "slice_size", "sums_start"),
    *("pixels", "out_w", "out_hw", "height", "width", "pad_top", "pad_left"),
    *("in_channels", "out_channels", "group_in", "group_out"),
)
_NAMES = {
    "forward": "conv2d",
    "flipped": "conv2d input",
    "phase": "conv2d input phase",
    "weight": "conv2d weight",
}
_PLANE_WORDS = ("plane_w", "plane_hw")  # of the image that a phase is part of
# Four pixels in a row have one corner, those beyond the last ones that of the last four; others have one each.
_CORNERS = {
    True: """fn gathered(pixel: u32, tap: vec3u) -> vec4f {
    let first = window_corner(min(pixel, pixels() - 4u));
    let apart = vec3u(STRIDE_W, 0u, STRIDE_W);
    return vec4f(window_pixel(first, tap), window_pixel(first + apart, tap),
        window_pixel(first + 2u * apart, tap), window_pixel(first + 3u * apart, tap));
}""",
    False: """fn gathered(pixel: u32, tap: vec3u) -> vec4f {
    return vec4f(window_pixel(window_corner(pixel), tap), window_pixel(window_corner(pixel + 1u), tap),
        window_pixel(window_corner(pixel + 2u), tap), window_pixel(window_corner(pixel + 3u), tap));
}""",
}
_TAP = """fn tap_at(k: u32, channel: u32) -> vec3u {
    let dy = (k / KERNEL_W) % KERNEL_H * DILATION_H;
    let dx = k % KERNEL_W * DILATION_W;
    return vec3u(((channel + k / (KERNEL_H * KERNEL_W)) * height() + dy) * width() + dx, dy, dx);
}"""
_WEIGHTS = {
    # a[j, k] of the forward pass, whose filters lie one after another.
    ("forward", True): "return weight[((start + j) * inner() + k) / 4u];",
    ("forward", False): """let at = (start + j) * inner();
    return vec4f(weight[at + k], select(0.0, weight[at + min(k + 1u, inner() - 1u)], k + 1u < inner()),
        select(0.0, weight[at + min(k + 2u, inner() - 1u)], k + 2u < inner()),
        select(0.0, weight[at + min(k + 3u, inner() - 1u)], k + 3u < inner()));""",
    # The roles of channels are exchanged and the window is turned around.
    ("flipped", False): """return vec4f(turned(start + j, k), turned(start + j, k + 1u), turned(start + j, k + 2u),
        turned(start + j, k + 3u));""",
}
_TURNED = """fn turned(o: u32, k: u32) -> f32 {
    let taps = KERNEL_H * KERNEL_W;
    let c = min(k, inner() - 1u) / taps;
    let row = (o / group_out() * group_in() + c) * group_out() + o % group_out();
    return select(0.0, weight[row * taps + taps - 1u - min(k, inner() - 1u) % taps], k < inner());
}"""

_TAP_BACK = """fn tap_at(k: u32, channel: u32) -> vec3u {
    let dy = 0u - k / KERNEL_W % KERNEL_H;
    let dx = 0u - k % KERNEL_W;
    return vec3u(((channel + k / (KERNEL_H * KERNEL_W)) * height() + dy) * width() + dx, dy, dx);
}"""
_PLACE = """fn place(o: u32, p: u32) -> u32 {
    return (p / out_hw() * out_channels() + o) * out_hw() + p % out_hw();
}"""
_PLACE_PHASE = """fn place(o: u32, p: u32) -> u32 {
    let y = p % out_hw() / out_w() * STEP_H + OFFSET_H;
    return (p / out_hw() * out_channels() + o) * plane_hw() + y * plane_w() + p % out_w() * STEP_W + OFFSET_W;
}"""


@functools.cache
def implicit_kernel(key: ImplicitKey, values: Words | None) -> Kernel:
    """Return the kernel of one of the three products."""
    weight = key.role == "weight"
    four = "vec4f" if key.vector else "f32"
    more, finish, _ = finish_header(key.finish, "f32")
    if weight:
        stored = [("source", "r", "f32"), ("grad", "r", four), ("out", "w", "f32")]
        lines = _weight_lines(key)
    else:
        bias = [("bias", "r", "f32")] if key.extra else []
        out = "vec4f" if key.planes_of_four else "f32"
        stored = [("source", "r", "f32"), ("weight", "r", four), *bias, *more, ("out", "w", out)]
        lines = [finish, *_forward_lines(key)]
    header = "\n".join(
        [
            bindings(tuple(stored), values is None),
            key.constants,
            words((*_WORDS, *(_PLANE_WORDS if key.role == "phase" else ())), values),
            _CORNERS[key.rows_of_four],
            _TAP_BACK if key.role == "phase" else _TAP,
            "const SUMS = false;",
            "fn sums_store(n: u32, v: vec4f) { }",
            *lines,
        ]
    )
    name = _NAMES[key.role]
    access = "".join(a for _, a, _ in stored)
    size = f"{key.block.rows} x {key.block.columns}"
    return assemble(f"{name} {size}", WRITER, header, access, values is None, block_body(key.block))


def _forward_lines(key: ImplicitKey) -> list[str]:
    """Return the loads and stores of the forward pass and of the input gradient: rows are output channels."""
    added = " + vec4f(bias[o])" if key.extra else ""
    if key.planes_of_four:
        lanes = ", ".join(f"finish(at + {i}u, w.{lane})" for i, lane in enumerate("xyzw"))
        put = f"if (n < columns()) {{ let at = place(o, n); out[at / 4u] = vec4f({lanes}); }}"
    else:
        put = " ".join(
            f"if (n + {i}u < columns()) {{ let at = place(o, n + {i}u); out[at] = finish(at, w.{lane}); }}"
            for i, lane in enumerate("xyzw")
        )
    phase = key.role == "phase"
    load = _WEIGHTS["forward" if phase else key.role, key.vector]
    return [
        *([_TURNED] if key.role == "flipped" else []),
        "fn a_start(batch: u32) -> u32 { return batch * group_out(); }",
        "fn b_start(batch: u32) -> u32 { return batch * group_in(); }",
        "fn c_start(batch: u32, slice: u32) -> u32 { return batch * group_out(); }",
        "fn a_load(start: u32, j: u32, k: u32) -> vec4f {",
        "    if (j >= rows() || k >= inner()) { return vec4f(); }",
        f"    {load}",
        "}",
        "fn b_load(start: u32, k: u32, j: u32) -> vec4f {",
        "    if (k >= inner()) { return vec4f(); }",
        "    return gathered(j, tap_at(k, start));",
        "}",
        _PLACE_PHASE if phase else _PLACE,
        f"fn c_store(start: u32, m: u32, n: u32, v: vec4f) {{ let o = start + m; let w = v{added}; {put} }}",
    ]


def _weight_lines(key: ImplicitKey) -> list[str]:
    """Return the loads and stores of the weight gradient: rows are output channels, columns weights of a filter."""
    taps = "columns() - 1u" if key.extra else "columns()"  # the last column, of ones, adds up the gradient itself
    ones = "if (j == taps()) { return select(vec4f(), vec4f(1.0), inside); } " if key.extra else ""
    put = " ".join(
        f"if (n + {i}u < taps()) {{ out[at + {i}u] = v.{lane}; }}"
        + (f" if (n + {i}u == taps()) {{ out[sums] = v.{lane}; }}" if key.extra else "")
        for i, lane in enumerate("xyzw")
    )
    at = "(p / out_hw() * out_channels() + o) * out_hw() + p % out_hw()"
    if key.vector:
        load = [f"fn grad_at(o: u32, p: u32) -> vec4f {{ return grad[({at}) / 4u]; }}"]
        four = "grad_at(start + j, k)"
    else:
        load = [f"fn grad_at(o: u32, p: u32) -> f32 {{ return grad[{at}]; }}"]
        lanes = ", ".join(f"grad_at(start + j, min(k + {i}u, pixels() - 1u))" for i in range(4))
        four = f"select(vec4f(), vec4f({lanes}), k + vec4u(0u, 1u, 2u, 3u) < vec4u(pixels()))"
    return [
        *load,
        f"fn taps() -> u32 {{ return {taps}; }}",
        "fn a_start(batch: u32) -> u32 { return batch * group_out(); }",
        "fn b_start(batch: u32) -> u32 { return batch * group_in(); }",
        "fn c_start(batch: u32, slice: u32) -> u32 { return slice * out_channels() + batch * group_out(); }",
        "fn a_load(start: u32, j: u32, k: u32) -> vec4f {",
        "    if (j >= rows() || k >= pixels()) { return vec4f(); }",
        f"    return {four};",
        "}",
        "fn b_load(start: u32, k: u32, j: u32) -> vec4f {",
        "    if (j >= columns() || k >= pixels()) { return vec4f(); }",
        "    let inside = k + vec4u(0u, 1u, 2u, 3u) < vec4u(pixels());",
        f"    {ones}return select(vec4f(), gathered(k, tap_at(j, start)), inside);",
        "}",
        "fn c_store(start: u32, m: u32, n: u32, v: vec4f) {",
        "    let o = (start + m) % out_channels();",
        "    let first = (start + m) / out_channels() * slice_size();",
        "    let at = first + o * taps() + n;",
        "    let sums = first + sums_start() + o;",
        f"    {put}",
        "}",
    ]


class Convolution(NamedTuple):
    """One of the three products: its operands are those of the forward pass, or of the pass that it is."""

    role: str
    constants: str
    source: View
    output: tuple[int, int, int]  # channels, height and width of what is seen through windows
    kernel: Pair
    padding: Pair  # above and to the left
    groups: int


def forward_block(site: Site, conv: Convolution) -> Block | None:
    """Return the block of a convolution or of an input gradient; None if it is not worth one."""
    rows, columns, inner = product_of(conv)
    return choose_block(site.target, rows, columns, inner, conv.groups, True, False)


def forward_blocks(site: Site, conv: Convolution) -> list[Block]:
    """Return the blocks that are worth measuring."""
    return fitting_blocks(site.target, *product_of(conv), True, False)


def product_of(conv: Convolution) -> tuple[int, int, int]:
    """Return the product's rows, columns and inner elements, in a group."""
    (n, c, _, _), (o, oh, ow) = conv.source.shape, conv.output
    return o // conv.groups, n * oh * ow, c // conv.groups * conv.kernel[0] * conv.kernel[1]


def run_forward(
    site: Site, conv: Convolution, block: Block, weight: View, bias: Sequence[View], out: View, finish: Finish | None
) -> None:
    """Plan a convolution, or an input gradient, as a block product."""
    (_, c, height, width), (o, oh, ow) = conv.source.shape, conv.output
    group_out, pixels, inner = product_of(conv)
    group_in = c // conv.groups
    vector = conv.role != "flipped" and inner % 4 == 0
    values = (
        *(group_out, pixels, inner, conv.groups, 1, -(-inner // block.step) * block.step, 0, 0),
        *(pixels, ow, oh * ow, height, width, *conv.padding, c, o, group_in, group_out),
    )
    phase = conv.role == "phase"
    if phase:
        values += (out.shape[3], out.shape[2] * out.shape[3])
    fours = (ow % 4 == 0, not phase and oh * ow % 4 == 0)
    chain = finish.chain if finish else None
    key = ImplicitKey(conv.role, conv.constants, block, *fours, vector, bool(bias), chain)
    tiles = -(-group_out // block.rows) * -(-pixels // block.columns) * conv.groups
    views = [conv.source, weight, *bias, *(finish.views if finish else ()), out]
    site.launch(implicit_kernel, key, values, views, grid(tiles))


Sliced = tuple[Block, int, int]  # the block of a weight gradient, the number of slices of its pixels, and their size


def weight_slices(site: Site, conv: Convolution) -> Sliced | None:
    """Return how to slice a weight gradient; None if it is not worth blocks.

    The block depends on channels alone; only the number of slices follows the batch.
    """
    group_out, columns = conv.output[0] // conv.groups, product_of(conv)[2]
    target = site.target
    if target.software or target.invocations < 128 or columns < LEAST or group_out < LEAST:
        return None
    return _slices(site, conv, NARROW if group_out <= 32 else MIDDLE, SPREAD)


def weight_ways(site: Site, conv: Convolution) -> list[Sliced]:
    """Return the ways to slice a weight gradient that are worth measuring."""
    if site.target.software or site.target.invocations < 128 or min(product_of(conv)[0], product_of(conv)[2]) < 8:
        return []
    spreads = (SPREAD, SPREAD // 2, 2 * SPREAD, SPREAD // 4)
    return [_slices(site, conv, sides, spread) for sides in (MIDDLE, NARROW, SMALL) for spread in spreads]


def _slices(site: Site, conv: Convolution, sides: tuple[int, int, int, int], spread: int) -> Sliced:
    group_out, pixels, columns = product_of(conv)
    block = Block(*sides, 16, True, True)
    if block.storage > site.target.storage:
        block = block._replace(step=8)
    tiles = -(-group_out // block.rows) * -(-(columns + 1) // block.columns) * conv.groups
    wanted = -(-spread * 128 // (block.threads * tiles))
    per_slice = max(-(-pixels // wanted), 128)
    per_slice = -(-per_slice // 16) * 16
    return block, -(-pixels // per_slice), per_slice


def run_weight(
    site: Site,
    conv: Convolution,
    grad: View,
    sliced: Sliced,
    partial: View,
    sums_start: int,
    sums: bool,
) -> None:
    """Plan the slices of a weight gradient, [slices, ...]; with ``sums`` each has that of the bias at ``sums_start``."""
    (n, c, height, width), (o, oh, ow) = conv.source.shape, conv.output
    block, slices, per_slice = sliced
    pixels, group_in, group_out = n * oh * ow, c // conv.groups, o // conv.groups
    columns = group_in * conv.kernel[0] * conv.kernel[1] + sums
    values = (
        *(group_out, columns, pixels, conv.groups, slices, per_slice, partial.size // slices, sums_start),
        *(pixels, ow, oh * ow, height, width, *conv.padding, c, o, group_in, group_out),
    )
    planes = oh * ow % 4 == 0
    key = ImplicitKey("weight", conv.constants, block, ow % 4 == 0, planes, planes, sums)
    tiles = -(-group_out // block.rows) * -(-columns // block.columns) * conv.groups * slices
    site.launch(implicit_kernel, key, values, [conv.source, grad, partial], grid(tiles))
