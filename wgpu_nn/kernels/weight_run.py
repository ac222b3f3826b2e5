"""Writes and plans weight gradients of 2-d convolutions on software adapters: an invocation keeps the sums of some input
channels x the weights of a window x some output channels, and walks over runs of the batch's pixels.

The text is unrolled by hand, for the reasons that conv_patch.py has; a run is what a loop's turn adds to each sum, as
carrying the sums from turn to turn costs as well.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

from wgpu_nn.gpu import Kernel
from wgpu_nn.kernels.conv_few import PART
from wgpu_nn.kernels.conv_patch import WORKGROUP
from wgpu_nn.kernels.plan import MOST_TURNS, Site, View, Words, grid
from wgpu_nn.kernels.reduce import run_reduce
from wgpu_nn.kernels.source import assemble, bindings, words

Pair = tuple[int, int]
WRITER = "wgpu_nn/kernels/weight_run.py"
SUMS = 320  # most of an invocation; more take longer to compile, and save little
CHANNELS = 8  # most input channels of an invocation
RUNS = (4, 2, 3, 5, 7)  # pixels of a run, the best first; longer ones were no faster, single pixels slower by a quarter
SPREAD = 512  # invocations that the work is spread over: so many slices, at most, are added up by one launch


class WeightRun(NamedTuple):
    """What an invocation computes. Sizes are not among it, so that a new batch or image size compiles nothing.

    ``part`` is how much of the window it is, all but for large ones, ``inputs`` and ``outputs`` (4 or 8) are channels;
    ``exact`` runs make up rows, which then have no end to be walked by
    single pixels; ``sums``: also add up the gradient itself, which is that of the bias.
    """

    kernel: Pair
    stride: Pair
    dilation: Pair
    part: Pair
    inputs: int
    outputs: int
    run: int
    exact: bool
    padded: bool
    sums: bool

    @property
    def parts(self) -> Pair:
        """The number of parts that make up the window."""
        return -(-self.kernel[0] // self.part[0]), -(-self.kernel[1] // self.part[1])

    @property
    def split(self) -> bool:
        """Whether there are several parts."""
        return self.parts != (1, 1)


_WORDS = (
    *("items", "tiles", "channel_blocks", "group_blocks", "parts_per_slice", "slice_size", "sums_start", "parts"),
    *("parts_per_row", "part_size", "height", "width", "out_h", "out_w", "pad_top", "pad_left"),
    *("in_channels", "out_channels", "group_in", "group_out"),
)


def _columns(run: WeightRun, pixels: int) -> list[int]:
    """Return which columns of the input the windows of so many pixels see, from the first one on."""
    return sorted({p * run.stride[1] + k * run.dilation[1] for p in range(pixels) for k in range(run.part[1])})


def _turn(run: WeightRun, pixels: int) -> Iterator[str]:
    """Yield the lines that add the products of so many pixels from ``ox`` on."""
    quads, (taps_y, taps_x) = range(run.outputs // 4), run.part
    aside = f" + tap_x * {run.dilation[1]}u" if run.split else ""
    yield f"let x = ox * {run.stride[1]}u{aside} - pad_left();"
    for p in range(pixels):
        for q in quads:
            yield f"let d{p}_{q} = vec4f({', '.join(f'grad[from_g + ox + {p}u + g{4 * q + n}]' for n in range(4))});"
        if run.sums:
            yield " ".join(f"total{q} += d{p}_{q};" for q in quads)
    for s in _columns(run, pixels):
        yield f"let x{s} = min(x + {s}u, width() - 1u);"
        if run.padded:
            yield f"let in_x{s} = x + {s}u < width();"
    for c in range(run.inputs):
        for k in range(taps_y):
            for s in _columns(run, pixels):
                value = f"source[y{k} + c{c} + x{s}]"
                yield f"let v{c}_{k}_{s} = {f'select(0.0, {value}, in_y{k} && in_x{s})' if run.padded else value};"
            for j in range(taps_x):
                for q in quads:
                    yield " ".join(
                        f"w{c}_{k * taps_x + j}_{q} += v{c}_{k}_{p * run.stride[1] + j * run.dilation[1]} * d{p}_{q};"
                        for p in range(pixels)
                    )


def _stores(run: WeightRun) -> Iterator[str]:
    """Yield the stores, one output channel after the other; see conv_patch.py."""
    taps = run.kernel[0] * run.kernel[1]

    def value(name: str) -> str:
        return f"select({name}_0, {name}_1, n >= 4u)[n % 4u]" if run.outputs == 8 else f"{name}_0[n]"

    yield f"for (var n = 0u; n < {run.outputs}u && o + n <= o_last; n++) {{"
    place = f" + tap_y * {run.kernel[1]}u + tap_x" if run.split else ""
    yield f"    let to = slice * slice_size() + ((o + n) * group_in() + c) * {taps}u{place};"
    for c in range(run.inputs):
        yield f"    if (c + {c}u < group_in()) {{"
        for k in range(run.part[0]):
            for j in range(run.part[1]):
                inside = (
                    f"if (tap_y + {k}u < {run.kernel[0]}u && tap_x + {j}u < {run.kernel[1]}u) " if run.split else ""
                )
                put = f"out[to + {c * taps + k * run.kernel[1] + j}u] = {value(f'w{c}_{k * run.part[1] + j}')};"
                yield f"        {inside}{{ {put} }}" if inside else f"        {put}"
        yield "    }"
    if run.sums:
        total = "select(total0, total1, n >= 4u)[n % 4u]" if run.outputs == 8 else "total0[n]"
        first = "c + tap_y + tap_x == 0u" if run.split else "c == 0u"
        yield f"    if ({first}) {{ out[slice * slice_size() + sums_start() + o + n] = {total}; }}"
    yield "}"


@functools.cache
def weight_run_body(run: WeightRun) -> str:
    """Return the text of a body that computes one invocation's share."""
    taps, (parts_y, parts_x) = run.part[0] * run.part[1], run.parts
    quads = range(run.outputs // 4)
    rows = range(run.part[0])
    split = [
        f"    let tap_y = item % {parts_y * parts_x}u / {parts_x}u * {run.part[0]}u;",
        f"    let tap_x = item % {parts_x}u * {run.part[1]}u;",
        f"    let tile = item % tiles() / {parts_y * parts_x}u;",
    ]
    below = f" + tap_y * {run.dilation[0]}u" if run.split else ""
    lines = [
        f"// One invocation computes the gradients of {taps} weights of {run.inputs} input x {run.outputs} output channels",
        "// over one slice of the batch's rows, long ones cut into parts; slices are summed later, in order.",
        f"// needs: {'sums_start, ' if run.sums else ''}items, tiles, channel_blocks, group_blocks, parts_per_slice,",
        "// slice_size, parts, parts_per_row, part_size, height, width, out_h, out_w, pad_top, pad_left, in_channels,",
        "// out_channels, group_in, group_out",
        "",
        f"@compute @workgroup_size({WORKGROUP})",
        "fn main(",
        "    @builtin(workgroup_id) group: vec3u,",
        "    @builtin(num_workgroups) groups: vec3u,",
        "    @builtin(local_invocation_index) local: u32,",
        ") {",
        f"    let item = (group.x + group.y * groups.x) * {WORKGROUP}u + local;",
        "    if (item >= items()) {",
        "        return;",
        "    }",
        "    let slice = item / tiles();",
        *(split if run.split else ["    let tile = item % tiles();"]),
        "    let block = tile / channel_blocks();",
        f"    let c = tile % channel_blocks() * {run.inputs}u;",
        "    let in_group = block / group_blocks();",
        f"    let o = in_group * group_out() + block % group_blocks() * {run.outputs}u;",
        "    let o_last = (in_group + 1u) * group_out() - 1u;",
        "    let plane = out_h() * out_w();",
        *(f"    let g{n} = min(o + {n}u, o_last) * plane;" for n in range(run.outputs)),
        *(
            f"    let c{n} = (in_group * group_in() + min(c + {n}u, group_in() - 1u)) * height() * width();"
            for n in range(run.inputs)
        ),
        *(
            f"    {' '.join(f'var w{c}_{k}_{q} = vec4f();' for q in quads)}"
            for c in range(run.inputs)
            for k in range(taps)
        ),
        *([f"    {' '.join(f'var total{q} = vec4f();' for q in quads)}"] if run.sums else []),
        "    let last = min((slice + 1u) * parts_per_slice(), parts());",
        "    for (var part = slice * parts_per_slice(); part < last; part++) {",
        "        let row = part / parts_per_row();",
        "        let first = part % parts_per_row() * part_size();",
        "        let end = min(first + part_size(), out_w());",
        "        let image = row / out_h();",
        "        let from_g = image * out_channels() * plane + row % out_h() * out_w();",
        "        let from_x = image * in_channels() * height() * width();",
        "        // What lies outside of the image is read from its edge; in the padding, it counts as 0.",
        f"        let y = row % out_h() * {run.stride[0]}u{below} - pad_top();",
        *(f"        let y{k} = from_x + min(y + {k * run.dilation[0]}u, height() - 1u) * width();" for k in rows),
        *(f"        let in_y{k} = y + {k * run.dilation[0]}u < height();" for k in rows if run.padded),
        "        var ox = first;",
        f"        for (; ox + {run.run}u <= end; ox += {run.run}u) {{",
        *(f"            {line}" for line in _turn(run, run.run)),
        "        }",
    ]
    if not run.exact:
        lines += ["        for (; ox < end; ox++) {", *(f"            {line}" for line in _turn(run, 1)), "        }"]
    return "\n".join([*lines, "    }", *(f"    {line}" for line in _stores(run)), "}"]) + "\n"


@functools.cache
def weight_run_kernel(run: WeightRun, values: Words | None) -> Kernel:
    """Return the kernel of a run."""
    stored = (("source", "r", "f32"), ("grad", "r", "f32"), ("out", "w", "f32"))
    header = "\n".join([bindings(stored, values is None), words(_WORDS, values)])
    name = f"conv2d_weight_grad runs of {run.run} x {run.inputs} x {run.outputs}"
    return assemble(name, WRITER, header, "rrw", values is None, weight_run_body(run))


def _even(count: int, most: int) -> int:
    """Return the size of the fewest parts of at most ``most`` that make up ``count``, the last one as full as can be."""
    return -(-count // -(-count // most))


def choose_run(
    kernel: Pair, stride: Pair, dilation: Pair, group: Pair, padded: bool, sums: bool, row: int | None
) -> WeightRun:
    """Return what suits a group of (input, output) channels, and rows of ``row`` pixels, or of any if that is None."""
    taps = kernel[0] * kernel[1]
    outputs = 8 if group[1] > 4 and taps * 8 <= SUMS else 4
    across = _even(kernel[1], SUMS // outputs)
    down = _even(kernel[0], SUMS // (outputs * across)) if across == kernel[1] else 1
    inputs = _even(group[0], min(SUMS // (outputs * taps), CHANNELS)) if (down, across) == kernel else 1
    whole = [n for n in RUNS if row and row % n == 0]
    run = whole[0] if whole else RUNS[0]
    return WeightRun(kernel, stride, dilation, (down, across), inputs, outputs, run, bool(whole), padded, sums)


def run_weight_runs(
    site: Site,
    run: WeightRun,
    x: View,
    g: View,
    whole: View,
    attrs: dict[str, Any],
    sums_start: int | None,
    share: float,
) -> None:
    """Plan the gradient of a weight, which ``whole`` begins with: slices of the batch's rows, then their sum in a fixed
    order; operands are contiguous, and none is empty.

    The bias gradient goes to ``sums_start``, if that is given; ``share`` is of the usual number of invocations.
    """
    pads, groups = attrs["padding"], attrs["groups"]
    (n, c, height, width), (o, oh, ow) = x.shape, g.shape[1:]
    into, group_out = c // groups, o // groups
    channel_blocks, group_blocks = -(-into // run.inputs), -(-group_out // run.outputs)
    tiles = channel_blocks * group_blocks * groups * run.parts[0] * run.parts[1]
    # Slices are of parts of rows; their number depends on the shape alone.
    per_row = -(-ow // PART)
    part = -(-ow // per_row)
    parts = n * oh * per_row
    per_slice = -(-parts // min(parts, -(-int(SPREAD * share) // tiles)))
    per_slice = min(per_slice, MOST_TURNS // (part // run.run + run.run + 2))
    slices = -(-parts // per_slice)
    partial = whole if slices == 1 else site.empty((slices, *whole.shape), whole.dtype.wide)
    items = slices * tiles
    values = (
        *(items, tiles, channel_blocks, group_blocks, per_slice, whole.size, sums_start or 0, parts, per_row, part),
        *(height, width, oh, ow, pads[0][0], pads[1][0], c, o, into, group_out),
    )
    site.launch(weight_run_kernel, run, values, [x, g, partial], grid(-(-items // WORKGROUP)))
    if slices > 1:
        run_reduce(site, "sum", partial, (0,), whole)
