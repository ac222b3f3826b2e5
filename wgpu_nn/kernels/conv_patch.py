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
UNROLLED = 784  # most multiply-adds of four numbers in a text, which bounds the time to compile it


class Patch(NamedTuple):
    """The shape of one invocation's work: ``size`` (rows, columns) pixels times ``outputs`` (4 or 8) channels."""

    size: Pair
    outputs: int


class Windows(NamedTuple):
    """What the choice of a patch depends on: windows, and how many results there are.

    ``turned``: the results are those of an input gradient, whose pixels gather what windows of that stride saw of them.
    """

    kernel: Pair
    stride: Pair
    dilation: Pair
    images: int
    output: Pair  # height and width
    group_out: int
    groups: int
    turned: bool = False


class PatchKey(NamedTuple):
    """What distinguishes these kernels; ``weights`` is the WGSL that finds a weight."""

    patch: Patch
    kernel: Pair
    stride: Pair
    dilation: Pair
    turned: bool
    padded: bool
    constants: str
    weights: str
    bias: bool
    finish: Chain | None


_WORDS = (
    *("items", "patches", "patches_high", "patches_wide", "out_w", "out_h", "height", "width", "pad_top", "pad_left"),
    *("in_channels", "out_channels", "group_in", "group_out", "group_blocks"),
)
_SHIFTS = ("shift_top", "shift_left")  # pixels of the first patch of an input gradient that lie in the padding


class Meeting(NamedTuple):
    """A pixel of a patch, a weight of its window, and the element that they meet at, from the patch's first one on."""

    pixel: int
    tap: int
    place: int


@functools.cache
def _meetings(size: int, stride: int, kernel: int, dilation: int, turned: bool) -> tuple[list[Meeting], int]:
    """Return what meets along one axis, in the order of places, and how far before its origin a patch begins to read."""
    if turned:
        found = [
            Meeting(p, k, (p - k * dilation) // stride)
            for p in range(size)
            for k in range(kernel)
            if (p - k * dilation) % stride == 0
        ]
    else:
        found = [Meeting(p, k, p * stride + k * dilation) for p in range(size) for k in range(kernel)]
    before = -min(m.place for m in found)
    return sorted((m._replace(place=m.place + before) for m in found), key=lambda m: (m.place, m.tap)), before


def _axes(patch: Patch, of: PatchKey | Windows) -> list[tuple[list[Meeting], int]]:
    """Return what meets along the rows, and along the columns."""
    rows = zip(patch.size, of.stride, of.kernel, of.dilation, strict=True)
    return [_meetings(*row, of.turned) for row in rows]


def _places(meetings: Sequence[Meeting]) -> list[int]:
    return sorted({m.place for m in meetings})


def _channel(key: PatchKey) -> Iterator[str]:
    """Yield the lines that add one input channel's share: a row of inputs at a time, with all that it is part of."""
    (down, _), (across, _) = _axes(key.patch, key)
    quads = range(key.patch.outputs // 4)
    known: set[Pair] = set()
    for r in _places(down):
        for s in _places(across):
            value = f"source[channel + y{r} + x{s}]"
            yield f"let v{r}_{s} = {f'select(0.0, {value}, in_y{r} && in_x{s})' if key.padded else value};"
        for p, k, _ in (m for m in down if m.place == r):
            for j in sorted({m.tap for m in across}):
                if (k, j) not in known:
                    yield f"let t{k}_{j} = weight_tap(c, {k}u, {j}u);"
                    for q in quads:
                        four = ", ".join(f"weight[w{4 * q + n} + t{k}_{j}]" for n in range(4))
                        yield f"let f{k}_{j}_{q} = vec4f({four});"
                    known.add((k, j))
                for q in quads:
                    yield " ".join(f"c{p}_{i}_{q} += v{r}_{s} * f{k}_{j}_{q};" for i, tap, s in across if tap == j)


def _stores(key: PatchKey) -> Iterator[str]:
    """Yield the stores, one output channel after the other: all of them side by side would take longer to compile than the
    sums. A captured step knows the conditions that always hold."""
    (rows, columns), outputs = key.patch
    whole_y, whole_x = ("", "") if key.turned else (f"out_h() % {rows}u == 0u || ", f"out_w() % {columns}u == 0u || ")
    yield f"for (var n = 0u; n < {outputs}u && o + n <= o_last; n++) {{"
    for p in range(rows):
        for i in range(columns):
            value = f"select(c{p}_{i}_0, c{p}_{i}_1, n >= 4u)[n % 4u]" if outputs == 8 else f"c{p}_{i}_0[n]"
            yield f"    if (({whole_y}row + {p}u < out_h()) && ({whole_x}column + {i}u < out_w())) {{"
            yield f"        let at = to + {p}u * out_w() + {i}u;"
            yield f"        out[at] = finish(at, {value});"
            yield "    }"
    yield "    to += out_h() * out_w();"
    yield "}"


def _origin(key: PatchKey) -> list[str]:
    """Return the lines that find a patch: its first pixel in the result, and the first element that it reads."""
    (rows, columns), _ = key.patch
    (_, above), (_, aside) = _axes(key.patch, key)
    spot = (
        f"let column = spot % patches_wide() * {columns}u",
        f"let row = spot / patches_wide() % patches_high() * {rows}u",
    )
    if key.turned:
        return [
            "// Rows and columns that lie in the padding wrap around below 0.",
            f"{spot[0]} - shift_left();",
            f"{spot[1]} - shift_top();",
            f"let y = spot / patches_wide() % patches_high() * {rows // key.stride[0]}u + pad_top() - {above}u;",
            f"let x = spot % patches_wide() * {columns // key.stride[1]}u + pad_left() - {aside}u;",
        ]
    return [
        f"{spot[0]};",
        f"{spot[1]};",
        f"let y = row * {key.stride[0]}u - pad_top();",
        f"let x = column * {key.stride[1]}u - pad_left();",
    ]


@functools.cache
def patch_body(key: PatchKey) -> str:
    """Return the text of a body that computes a patch an invocation."""
    (rows, columns), outputs = key.patch
    down, across = (_places(meetings) for meetings, _ in _axes(key.patch, key))
    names = [f"c{p}_{i}" for p in range(rows) for i in range(columns)]
    quads = range(outputs // 4)
    lines = [
        f"// One invocation computes a patch of {rows} x {columns} pixels of an image for {outputs} output channels.",
        f"// needs: {'shift_top, shift_left, ' if key.turned else ''}items, patches, patches_high, patches_wide, out_w, out_h,",
        "// height, width, pad_top, pad_left, in_channels, out_channels, group_in, group_out, group_blocks, weight_row,",
        "// weight_tap, initial, finish",
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
        "    let image = spot / (patches_wide() * patches_high());",
        *(f"    {line}" for line in _origin(key)),
        "    let in_group = block / group_blocks();",
        f"    let o = in_group * group_out() + block % group_blocks() * {outputs}u;",
        "    let o_last = (in_group + 1u) * group_out() - 1u;",
        "    // What lies outside of the source is read from its edge; in the padding, it counts as 0.",
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
        "    var to = ((image * out_channels() + o) * out_h() + row) * out_w() + column;",
        *(f"    {line}" for line in _stores(key)),
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
            words((*_WORDS, *(_SHIFTS if key.turned else ())), values),
            key.weights,
            f"fn initial(o: u32) -> f32 {{ return {'bias[o]' if key.bias else '0.0'}; }}",
        ]
    )
    (rows, columns), outputs = key.patch
    name = f"conv2d{'_input_grad' if key.turned else ''} patches of {rows} x {columns} x {outputs}"
    return assemble(name, WRITER, header, "r" * (len(stored) - 1) + "w", values is None, patch_body(key))


def _spread(cost: int, items: int) -> float:
    """Return the time of ``items`` invocations of ``cost`` each, on cores of which some may be idle."""
    return cost * max(items, ENOUGH)


def _cost(windows: Windows, patch: Patch) -> float:
    """Return the time for one input channel of a group, in multiply-adds."""
    (rows, columns), (high, wide) = patch.size, windows.output
    (down, _), (across, _) = _axes(patch, windows)
    weights = windows.kernel[0] * windows.kernel[1] * patch.outputs
    loads = len(_places(down)) * len(_places(across)) + weights
    blocks = -(-windows.group_out // patch.outputs) * windows.groups
    items = windows.images * -(-high // rows) * -(-wide // columns) * blocks
    return _spread(len(down) * len(across) * patch.outputs + LOAD * loads, items)


def _other_cost(windows: Windows) -> float:
    """Return the same for bodies that share less: 8 pixels, counted through the whole batch, of 8 output channels; or, if
    ``turned``, one pixel of as many."""
    pixels = windows.images * windows.output[0] * windows.output[1]
    taps = windows.kernel[0] * windows.kernel[1]
    blocks = -(-windows.group_out // 8) * windows.groups
    if windows.turned:
        met = -(-taps // (windows.stride[0] * windows.stride[1]))
        return _spread(met * (8 + LOAD * 9), pixels * blocks)
    return _spread(taps * (64 + LOAD * 16), -(-pixels // 8) * blocks)


def _sizes(windows: Windows, tuned: bool) -> list[Pair]:
    """Return the sizes to choose from: any, or one that serves all images but those of a line."""
    (high, wide), (down, across) = windows.output, windows.stride if windows.turned else (1, 1)
    if not tuned:
        size = (4, 4) if min(high, wide) > 1 else (16, 1) if wide == 1 else (1, 16)
        rows, columns = (max(n // step, 1) * step for n, step in zip(size, (down, across), strict=True))
        return [(rows, columns)] if rows * columns <= PIXELS else []
    # Of two that are as good, the taller one: what is held of a row of inputs then fits into registers.
    heights = range(-(-min(high, PIXELS) // down) * down, 0, -down)
    return [(y, x) for y in heights for x in range(across, min(wide + across - 1, PIXELS // y) + 1, across)]


@functools.cache
def choose_patch(windows: Windows, tuned: bool) -> Patch | None:
    """Return the patch that computes a convolution soonest; None if other bodies do better.

    If not ``tuned``, the batch decides nothing, and the size of images little, for new ones compile nothing then.
    """
    taps, step = windows.kernel[0] * windows.kernel[1], windows.stride if windows.turned else (1, 1)
    given = windows if tuned else windows._replace(images=ENOUGH)
    patches = [
        Patch(size, outputs)
        for size in _sizes(windows, tuned)
        for outputs in (4, 8)
        if size[0] * size[1] * outputs // 4 * taps <= UNROLLED * step[0] * step[1]
    ]
    best = min(patches, key=lambda patch: _cost(given, patch), default=None)
    return best if best and _cost(given, best) < _other_cost(given) else None


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
    turned: bool = False,
) -> None:
    """Plan a convolution by patches; ``texts`` are the window's constants and how weights are found.

    If ``turned``, plan the input gradient of a convolution of these ``attrs``, from that of its output.
    """
    groups, stride = attrs["groups"], attrs["stride"]
    (top, bottom), (left, right) = attrs["padding"]
    (n, c, height, width), (o, oh, ow) = x.shape, out.shape[1:]
    check_turns(site, "conv2d", c // groups + 8)
    shifts = (top % stride[0], left % stride[1]) if turned else ()
    high, wide = (-(-(a + b) // size) for a, b, size in zip((oh, ow), shifts or (0, 0), patch.size, strict=True))
    group_blocks = -(-(o // groups) // patch.outputs)
    patches = n * high * wide
    items = patches * group_blocks * groups
    values = (
        *(items, patches, high, wide, ow, oh, height, width),
        *((top // stride[0], left // stride[1]) if turned else (top, left)),
        *(c, o, c // groups, o // groups, group_blocks, *shifts),
    )
    window = (weight.shape[2], weight.shape[3]), stride, attrs["dilation"]
    padded = turned or max(top, bottom, left, right) > 0
    key = PatchKey(patch, *window, turned, padded, *texts, bool(bias), finish.chain if finish else None)
    views = [x, weight, *bias, *(finish.views if finish else ()), out]
    site.launch(patch_kernel, key, values, views, grid(-(-items // WORKGROUP)))
