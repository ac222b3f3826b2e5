"""Writes and plans 2-d convolutions on GPUs by runs of pixels: what a row of inputs holds is loaded once for a whole run.

Register tiles are unrolled by hand, as compilers keep arrays of them in slow memory.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from wgpu_nn.gpu import Kernel
from wgpu_nn.kernels.fused import Chain, Finish, finish_header
from wgpu_nn.kernels.plan import Site, View, Words, grid
from wgpu_nn.kernels.source import assemble, bindings, words
from wgpu_nn.shape import Shape

Pair = tuple[int, int]
WRITER = "wgpu_nn/kernels/conv_runs.py"
WORKGROUP = 128
MEMORY = 512  # weights in fours that a workgroup holds at a time: 8 KiB
RUN = 4  # pixels; eight take too many registers
SHORTEST = 128  # weights of a filter, below which loading and storing outweigh what is saved in between
MOST_TAPS = 25  # weights of a window, which are all unrolled
ENOUGH = 1 << 15  # invocations below which smaller pieces keep a large GPU busier
LANES = "xyzw"


class Runs(NamedTuple):
    """The shape of one invocation's work: ``run`` pixels of a row times ``outputs`` (a multiple of 4) channels.

    ``guarded``: what is read may lie outside of the image, in the padding or beyond the last pixel of a row.
    """

    kernel: Pair
    stride: Pair
    dilation: Pair
    run: int
    outputs: int
    guarded: bool


class RunsKey(NamedTuple):
    """What distinguishes these kernels; ``weights`` is the WGSL that finds a weight."""

    runs: Runs
    constants: str
    weights: str
    bias: bool
    finish: Chain | None


_WORDS = (
    *("runs", "runs_per_row", "blocks", "out_w", "out_h", "height", "width", "pad_top", "pad_left"),
    *("in_channels", "out_channels", "group_in", "group_out", "group_blocks"),
)


def _channel(runs: Runs) -> list[str]:
    """Return the lines that add one input channel's share, whose weights start at ``w`` and its elements at ``channel``."""
    lines: list[str] = []
    quads, taps = runs.outputs // 4, runs.kernel[1]
    wanted = sorted({p * runs.stride[1] + k * runs.dilation[1] for p in range(runs.run) for k in range(taps)})
    for ky in range(runs.kernel[0]):
        dy = ky * runs.dilation[0]
        lines += [f"let at{ky} = channel + {dy}u * width();"]
        if runs.guarded:
            lines += [f"let row{ky} = y + {dy}u < height();"]
            for j in wanted:
                inside = f"row{ky} && x + {j}u < width()"
                lines += [f"let v{ky}_{j} = select(0.0, source[select(0u, at{ky} + {j}u, {inside})], {inside});"]
        else:
            lines += [f"let v{ky}_{j} = source[at{ky} + {j}u];" for j in wanted]
        for kx in range(taps):
            for q in range(quads):
                name = f"w{ky}_{kx}_{q}"
                lines += [f"let {name} = weights[w + {(ky * taps + kx) * quads + q}u];"]
                lines += [
                    " ".join(
                        f"c{p}_{q} += v{ky}_{p * runs.stride[1] + kx * runs.dilation[1]} * {name};"
                        for p in range(runs.run)
                    )
                ]
    return lines


@functools.cache
def runs_body(runs: Runs) -> str:
    """Return the text of a body that computes runs."""
    quads, taps = runs.outputs // 4, runs.kernel[0] * runs.kernel[1]
    channels = max(1, MEMORY // (taps * quads))
    many = range(runs.run)
    stores: list[str] = []
    for p in many:
        puts = [
            f"if (o + {4 * q + n}u < o_end) {{ let at = to + {4 * q + n}u * out_h() * out_w() + {p}u; "
            f"out[at] = finish(at, c{p}_{q}.{lane}); }}"
            for q in range(quads)
            for n, lane in enumerate(LANES)
        ]
        stores += [f"    if (column + {p}u < out_w()) {{", *(f"        {put}" for put in puts), "    }"]
    lines = [
        f"// One workgroup computes runs of {runs.run} pixels of a row, one an invocation, for {runs.outputs} output channels.",
        "// needs: KERNEL_W, STRIDE_H, STRIDE_W, runs, runs_per_row, blocks, out_w, out_h, height, width, pad_top, pad_left,",
        "// in_channels, out_channels, group_in, group_out, group_blocks, weight_row, weight_tap, initial, finish",
        "",
        f"var<workgroup> weights: array<vec4f, {channels * taps * quads}>;",
        "",
        f"@compute @workgroup_size({WORKGROUP})",
        "fn main(",
        "    @builtin(workgroup_id) group: vec3u,",
        "    @builtin(num_workgroups) groups: vec3u,",
        "    @builtin(local_invocation_index) local: u32,",
        ") {",
        "    let flat = group.x + group.y * groups.x;",
        "    let block = flat % blocks();",
        f"    let mine = flat / blocks() * {WORKGROUP}u + local;",
        "    // Invocations beyond the last run load weights with the others, and compute that run again.",
        "    let run = min(mine, runs() - 1u);",
        f"    let column = run % runs_per_row() * {runs.run}u;",
        "    let row = run / runs_per_row() % out_h();",
        "    let image = run / (runs_per_row() * out_h());",
        "    let in_group = block / group_blocks();",
        f"    let o = in_group * group_out() + block % group_blocks() * {runs.outputs}u;",
        "    let o_end = (in_group + 1u) * group_out();",
        "    let plane = height() * width();",
        "    let y = row * STRIDE_H - pad_top();",
        "    let x = column * STRIDE_W - pad_left();",
        "    let base = (image * in_channels() + in_group * group_in()) * plane + y * width() + x;",
        *(
            f"    let first{q} = vec4f({', '.join(f'initial(min(o + {4 * q + n}u, o_end - 1u))' for n in range(4))});"
            for q in range(quads)
        ),
        *(f"    {' '.join(f'var c{p}_{q} = first{q};' for q in range(quads))}" for p in many),
        f"    for (var first = 0u; first < group_in(); first += {channels}u) {{",
        f"        let count = min({channels}u, group_in() - first);",
        f"        for (var i = local; i < count * {taps * quads}u; i += {WORKGROUP}u) {{",
        f"            let quad = o + i % {quads}u * 4u;",
        f"            let tap = i / {quads}u % {taps}u;",
        f"            let at = weight_tap(first + i / {taps * quads}u, tap / KERNEL_W, tap % KERNEL_W);",
        "            weights[i] = vec4f(weight[weight_row(min(quad, o_end - 1u)) + at],",
        "                weight[weight_row(min(quad + 1u, o_end - 1u)) + at],",
        "                weight[weight_row(min(quad + 2u, o_end - 1u)) + at],",
        "                weight[weight_row(min(quad + 3u, o_end - 1u)) + at]);",
        "        }",
        "        workgroupBarrier();",
        "        for (var c = 0u; c < count; c++) {",
        "            let channel = base + (first + c) * plane;",
        f"            let w = c * {taps * quads}u;",
        *(f"            {line}" for line in _channel(runs)),
        "        }",
        "        workgroupBarrier();",
        "    }",
        "    if (mine >= runs()) {",
        "        return;",
        "    }",
        "    let to = ((image * out_channels() + o) * out_h() + row) * out_w() + column;",
        *stores,
        "}",
    ]
    return "\n".join(lines) + "\n"


@functools.cache
def runs_kernel(key: RunsKey, values: Words | None) -> Kernel:
    """Return the kernel of a convolution by runs."""
    more, finish, _ = finish_header(key.finish, "f32")
    bias = [("bias", "r", "f32")] if key.bias else []
    stored = (("source", "r", "f32"), ("weight", "r", "f32"), *bias, *more, ("out", "w", "f32"))
    header = "\n".join(
        [
            bindings(stored, values is None),
            finish,
            key.constants,
            words(_WORDS, values),
            key.weights,
            f"fn initial(o: u32) -> f32 {{ return {'bias[o]' if key.bias else '0.0'}; }}",
        ]
    )
    name = f"conv2d runs of {key.runs.run} x {key.runs.outputs}"
    return assemble(name, WRITER, header, "r" * (len(stored) - 1) + "w", values is None, runs_body(key.runs))


def choose_runs(site: Site, pixels: int, inner: int, taps: int, group_out: int, groups: int) -> tuple[int, int] | None:
    """Return how many pixels and output channels suit an invocation; None where smaller pieces do better.

    On an H100, against blocks of pixels, these are 2.2 times as fast for 16 to 8 channels, and no faster for 8 to 16.
    """
    if site.target.software or site.target.invocations < WORKGROUP or taps > MOST_TAPS:
        return None
    if group_out < 8 or inner < SHORTEST:
        return None
    outputs = 16 if group_out > 8 else 8
    blocks = -(-group_out // outputs) * groups
    return (RUN, outputs) if not site.tuned or pixels // RUN * blocks >= ENOUGH else None


def runs_options(site: Site, weight: Shape, group_out: int) -> list[tuple[int, int]]:
    """Return the sizes that are worth measuring for a weight of this shape."""
    if site.target.software or site.target.invocations < WORKGROUP or weight[2] * weight[3] > MOST_TAPS:
        return []
    return [(run, outputs) for run in (4, 8) for outputs in (8, 16, 32) if outputs < 2 * group_out]


def run_runs(
    site: Site,
    chosen: tuple[int, int],
    x: View,
    weight: View,
    bias: Sequence[View],
    out: View,
    attrs: Mapping[str, Any],
    texts: tuple[str, str],
    finish: Finish | None,
) -> None:
    """Plan a convolution by runs of ``chosen`` pixels and outputs; ``texts`` are the window's constants and how weights
    are found."""
    padding, groups = attrs["padding"], attrs["groups"]
    (n, c, height, width), (o, oh, ow) = x.shape, out.shape[1:]
    (run, outputs), group_out = chosen, o // groups
    guarded = not site.tuned or ow % run > 0 or max(padding[0] + padding[1]) > 0
    runs = Runs((weight.shape[2], weight.shape[3]), attrs["stride"], attrs["dilation"], run, outputs, guarded)
    per_row = -(-ow // run)
    count, group_blocks = n * oh * per_row, -(-group_out // outputs)
    values = (
        *(count, per_row, group_blocks * groups, ow, oh, height, width, padding[0][0], padding[1][0]),
        *(c, o, c // groups, group_out, group_blocks),
    )
    key = RunsKey(runs, texts[0], texts[1], bool(bias), finish.chain if finish else None)
    views = [x, weight, *bias, *(finish.views if finish else ()), out]
    site.launch(runs_kernel, key, values, views, grid(-(-count // WORKGROUP) * group_blocks * groups))
