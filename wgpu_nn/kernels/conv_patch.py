"""Writes and plans 2-d convolutions on software adapters: an invocation computes a patch of pixels for a few output channels.

Vectors of such an adapter are of neighbouring invocations, so that each load of a number is several loads of memory, and as
dear as many multiply-adds: patches are as large as registers and the stack bear, to load little for each result. They are
unrolled by hand, as arrays of sums would be loads as well.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from wgpu_nn.gpu import Kernel
from wgpu_nn.kernels.fused import Chain, Finish, finish_header
from wgpu_nn.kernels.plan import Site, View, Words, check_turns, grid
from wgpu_nn.kernels.source import assemble, bindings, words

Pair = tuple[int, int]
WRITER = "wgpu_nn/kernels/conv_patch.py"
WORKGROUP = 16  # two vectors of 8: few, so that a small image is work for every core
LOAD = 12  # multiply-adds that take as long as loading one number, by llvmpipe
ENOUGH = 256  # invocations below which cores may be idle
PIXELS = 32  # most of a patch: beyond, little is saved
UNROLLED = 1024  # most multiply-adds of four numbers in a text, which bounds the time to compile it
LANES = "xyzw"


class Patch(NamedTuple):
    """The shape of one invocation's work: ``size`` (rows, columns) pixels times ``outputs`` (a multiple of 4) channels."""

    size: Pair
    outputs: int


class Windows(NamedTuple):
    """What the choice of a patch depends on: windows, and how many results there are."""

    kernel: Pair
    stride: Pair
    dilation: Pair
    images: int
    output: Pair  # height and width
    group_out: int
    groups: int


class PatchKey(NamedTuple):
    """What distinguishes these kernels; ``weights`` is the WGSL that finds a weight."""

    patch: Patch
    kernel: Pair
    stride: Pair
    dilation: Pair
    padded: bool
    constants: str
    weights: str
    bias: bool
    finish: Chain | None


_WORDS = (
    *("items", "patches", "patches_high", "patches_wide", "out_w", "out_h", "height", "width", "pad_top", "pad_left"),
    *("in_channels", "out_channels", "group_in", "group_out", "group_blocks"),
)


def _seen(size: int, stride: int, kernel: int, dilation: int) -> list[int]:
    """Return which rows, or columns, of the input a patch's windows see, from its first one on."""
    return sorted({p * stride + k * dilation for p in range(size) for k in range(kernel)})


def _channel(key: PatchKey) -> Iterator[str]:
    """Yield the lines that add one input channel's share: a row of inputs at a time, with all that it is part of."""
    (rows, columns), (taps_y, taps_x) = key.patch.size, key.kernel
    quads = range(key.patch.outputs // 4)
    across = _seen(columns, key.stride[1], taps_x, key.dilation[1])
    known: set[int] = set()
    for r in _seen(rows, key.stride[0], taps_y, key.dilation[0]):
        for s in across:
            value = f"source[channel + y{r} + x{s}]"
            yield f"let v{r}_{s} = {f'select(0.0, {value}, in_y{r} && in_x{s})' if key.padded else value};"
        for k in range(taps_y):
            p, left = divmod(r - k * key.dilation[0], key.stride[0])
            if left or not 0 <= p < rows:
                continue
            for j in range(taps_x):
                if k not in known:
                    yield f"let t{k}_{j} = weight_tap(c, {k}u, {j}u);"
                    for q in quads:
                        four = ", ".join(f"weight[w{4 * q + n} + t{k}_{j}]" for n in range(4))
                        yield f"let f{k}_{j}_{q} = vec4f({four});"
                for q in quads:
                    yield " ".join(
                        f"c{p}_{i}_{q} += v{r}_{i * key.stride[1] + j * key.dilation[1]} * f{k}_{j}_{q};"
                        for i in range(columns)
                    )
            known.add(k)


def _stores(patch: Patch) -> Iterator[str]:
    """Yield the stores, under conditions of which a captured step knows those that always hold."""
    (rows, columns), outputs = patch
    for p in range(rows):
        for i in range(columns):
            inside = f"(out_h() % {rows}u == 0u || row + {p}u < out_h())"
            yield f"if ({inside} && (out_w() % {columns}u == 0u || column + {i}u < out_w())) {{"
            yield f"    let start = to + {p}u * out_w() + {i}u;"
            for n in range(outputs):
                put = f"out[start + {n}u * plane] = finish(start + {n}u * plane, c{p}_{i}_{n // 4}.{LANES[n % 4]});"
                yield f"    if (group_out() % {outputs}u == 0u || o + {n}u <= o_last) {{ {put} }}"
            yield "}"


@functools.cache
def patch_body(key: PatchKey) -> str:
    """Return the text of a body that computes a patch an invocation."""
    (rows, columns), outputs = key.patch
    down = _seen(rows, key.stride[0], key.kernel[0], key.dilation[0])
    across = _seen(columns, key.stride[1], key.kernel[1], key.dilation[1])
    names = [f"c{p}_{i}" for p in range(rows) for i in range(columns)]
    quads = range(outputs // 4)
    lines = [
        f"// One invocation computes a patch of {rows} x {columns} pixels of an image for {outputs} output channels.",
        "// needs: STRIDE_H, STRIDE_W, items, patches, patches_high, patches_wide, out_w, out_h, height, width, pad_top,",
        "// pad_left, in_channels, out_channels, group_in, group_out, group_blocks, weight_row, weight_tap, initial, finish",
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
        "    let spot = item % patches();",
        "    let block = item / patches();",
        f"    let column = spot % patches_wide() * {columns}u;",
        f"    let row = spot / patches_wide() % patches_high() * {rows}u;",
        "    let image = spot / (patches_wide() * patches_high());",
        "    let in_group = block / group_blocks();",
        f"    let o = in_group * group_out() + block % group_blocks() * {outputs}u;",
        "    let o_last = (in_group + 1u) * group_out() - 1u;",
        "    // What lies outside of the image is read from its edge; in the padding, it counts as 0.",
        "    let y = row * STRIDE_H - pad_top();",
        "    let x = column * STRIDE_W - pad_left();",
        *(f"    let y{r} = min(y + {r}u, height() - 1u) * width();" for r in down),
        *(f"    let x{s} = min(x + {s}u, width() - 1u);" for s in across),
        *(f"    let in_y{r} = y + {r}u < height();" for r in down if key.padded),
        *(f"    let in_x{s} = x + {s}u < width();" for s in across if key.padded),
        *(f"    let o{n} = min(o + {n}u, o_last);" for n in range(outputs)),
        *(f"    let w{n} = weight_row(o{n});" for n in range(outputs)),
        *(f"    let first{q} = vec4f({', '.join(f'initial(o{4 * q + n})' for n in range(4))});" for q in quads),
        *(f"    {' '.join(f'var {name}_{q} = first{q};' for q in quads)}" for name in names),
        "    var channel = (image * in_channels() + in_group * group_in()) * height() * width();",
        "    for (var c = 0u; c < group_in(); c++) {",
        *(f"        {line}" for line in _channel(key)),
        "        channel += height() * width();",
        "    }",
        "    let plane = out_h() * out_w();",
        "    let to = (image * out_channels() + o) * plane + row * out_w() + column;",
        *(f"    {line}" for line in _stores(key.patch)),
        "}",
    ]
    return "\n".join(lines) + "\n"


@functools.cache
def patch_kernel(key: PatchKey, values: Words | None) -> Kernel:
    """Return the kernel of a convolution by patches."""
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
    name = f"conv2d patches of {key.patch.size[0]} x {key.patch.size[1]} x {key.patch.outputs}"
    return assemble(name, WRITER, header, "r" * (len(stored) - 1) + "w", values is None, patch_body(key))


def _spread(cost: int, items: int) -> float:
    """Return the time of ``items`` invocations of ``cost`` each, on cores of which some may be idle."""
    return cost * max(items, ENOUGH)


def _cost(windows: Windows, patch: Patch) -> float:
    """Return the time for one input channel of a group, in multiply-adds."""
    (rows, columns), (high, wide) = patch.size, windows.output
    seen = [
        len(_seen(*of)) for of in zip(patch.size, windows.stride, windows.kernel, windows.dilation, strict=True)
    ]  # fmt: skip
    taps = windows.kernel[0] * windows.kernel[1]
    cost = taps * patch.outputs * rows * columns + LOAD * (seen[0] * seen[1] + taps * patch.outputs)
    blocks = -(-windows.group_out // patch.outputs) * windows.groups
    return _spread(cost, windows.images * -(-high // rows) * -(-wide // columns) * blocks)


def _direct_cost(windows: Windows) -> float:
    """Return the same for 8 pixels, counted through the whole batch, of 8 output channels, with nothing shared."""
    pixels = windows.images * windows.output[0] * windows.output[1]
    taps = windows.kernel[0] * windows.kernel[1]
    return _spread(taps * (64 + LOAD * 16), -(-pixels // 8) * -(-windows.group_out // 8) * windows.groups)


def _sizes(windows: Windows, tuned: bool) -> list[Pair]:
    """Return the sizes to choose from: any, or one that serves all images but those of a line."""
    (high, wide), fewest = windows.output, min(windows.output)
    if not tuned:
        return [(4, 4) if fewest > 1 else (16, 1) if wide == 1 else (1, 16)]
    # Of two that are as good, the taller one: what is held of a row of inputs then fits into registers.
    return [(y, x) for y in range(min(high, PIXELS), 0, -1) for x in range(1, min(wide, PIXELS // y) + 1)]


@functools.cache
def choose_patch(windows: Windows, tuned: bool) -> Patch | None:
    """Return the patch that computes a convolution soonest; None if pixels counted through the batch do better.

    If not ``tuned``, the batch decides nothing, and the size of images little, for new ones compile nothing then.
    """
    taps = windows.kernel[0] * windows.kernel[1]
    given = windows if tuned else windows._replace(images=ENOUGH)
    patches = [
        Patch(size, outputs)
        for size in _sizes(windows, tuned)
        for outputs in (4, 8)
        if size[0] * size[1] * outputs // 4 * taps <= UNROLLED
    ]
    best = min(patches, key=lambda patch: _cost(given, patch), default=None)
    return best if best and _cost(given, best) < _direct_cost(given) else None


def run_patches(
    site: Site,
    patch: Patch,
    x: View,
    weight: View,
    bias: Sequence[View],
    out: View,
    attrs: Mapping[str, Any],
    texts: tuple[str, str],
    finish: Finish | None,
) -> None:
    """Plan a convolution by patches; ``texts`` are the window's constants and how weights are found."""
    padding, groups = attrs["padding"], attrs["groups"]
    (n, c, height, width), (o, oh, ow) = x.shape, out.shape[1:]
    check_turns(site, "conv2d", c // groups)
    high, wide, group_blocks = -(-oh // patch.size[0]), -(-ow // patch.size[1]), -(-(o // groups) // patch.outputs)
    patches = n * high * wide
    items = patches * group_blocks * groups
    values = (
        *(items, patches, high, wide, ow, oh, height, width, padding[0][0], padding[1][0]),
        *(c, o, c // groups, o // groups, group_blocks),
    )
    window = (weight.shape[2], weight.shape[3]), attrs["stride"], attrs["dilation"]
    padded = max(padding[0] + padding[1]) > 0
    key = PatchKey(patch, *window, padded, *texts, bool(bias), finish.chain if finish else None)
    views = [x, weight, *bias, *(finish.views if finish else ()), out]
    site.launch(patch_kernel, key, values, views, grid(-(-items // WORKGROUP)))
