"""Plans weight gradients of 2-d convolutions with few channels on GPUs, and writes their bodies: an invocation keeps the sums
of some output channels x some taps in registers while it walks over strips of the batch's pixels.

The text is unrolled by hand, as compilers keep arrays of sums in slow memory.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

from wgpu_nn.gpu import Kernel
from wgpu_nn.kernels.plan import Site, Target, View, Words, grid
from wgpu_nn.kernels.reduce import run_reduce
from wgpu_nn.kernels.source import assemble, bindings, words

WRITER = "wgpu_nn/kernels/weight_tile.py"

# A strip goes down the rows, so that neighbours load side by side. At 3 x 3 taps and 8 output channels, 4 rows are 18 inputs
# and 32 gradients for 288 multiply-adds; more rows would save few loads and cost idle ones at the lower edge.
ROWS = 4
# Sums of an invocation, those of the bias not counted: 3 x 3 taps x 8 channels, two rows of 5 taps, or 8 channels of 1 x 1.
# By count that is about 120 registers with a strip's inputs and two rows of gradients: four workgroups on a multiprocessor of
# 64 Ki registers, which is work enough to wait for memory.
SUMS = 80
# Invocations of a workgroup are TEAM neighbours for each of up to CHANNELS input channels. All read the same gradients, which
# come from the L1 cache all but once: g would else be read from L2 once an input channel, and that bandwidth be the limit.
TEAM, CHANNELS, THREADS = 32, 4, 128
CHUNK = 8  # vectors that a workgroup adds up at a time: as many numbers as a team has invocations, in 16 KiB
# Workgroups enough for two waves on a large GPU, slices that are still cheap to add up, and turns of one slice (a strip for
# each invocation, well below a microsecond) that take no longer than the launch that adds up several.
GROUPS, SLICES, ALONE = 1024, 512, 4

Pair = tuple[int, int]


class WeightTile(NamedTuple):
    """What a workgroup computes: ``teams`` x ``inputs`` input channels, ``outputs`` output channels (4 or 8) and ``part``
    taps, out of ``kernel``. Sizes are not among it, so that a new batch or image size compiles nothing, but for images
    lower than a strip."""

    kernel: Pair
    stride: Pair
    dilation: Pair
    part: Pair
    inputs: int  # input channels of an invocation
    outputs: int
    teams: int
    lanes: int  # invocations that share a tile's pixels
    rows: int  # of a strip
    checked: bool  # inputs may lie outside of the image: there is padding, or the last part has taps beyond the kernel
    sums: bool  # add up the gradient itself as well, which is that of the bias

    @property
    def threads(self) -> int:
        """Invocations of a workgroup."""
        return self.teams * self.lanes

    @property
    def parts(self) -> Pair:
        """Parts of the kernel, down and across."""
        return -(-self.kernel[0] // self.part[0]), -(-self.kernel[1] // self.part[1])

    @property
    def taps(self) -> int:
        """Weights of a filter that an invocation computes."""
        return self.inputs * self.part[0] * self.part[1]


def _even(count: int, most: int) -> int:
    """Return the size of the fewest parts of at most ``most`` that make up ``count``, the last one as full as can be."""
    return -(-count // -(-count // most))


def weight_tile(
    kernel: Pair, stride: Pair, dilation: Pair, padded: bool, group: Pair, out_h: int, sums: bool
) -> WeightTile:
    """Return the tile for a group of (input, output) channels; the batch does not matter to it."""
    outputs = 8 if group[1] > 4 else 4
    taps = SUMS // outputs
    across = _even(kernel[1], taps)
    down = _even(kernel[0], taps // across) if across == kernel[1] else 1
    whole = (down, across) == kernel
    inputs = _even(group[0], min(8, max(1, taps // (down * across)))) if whole else 1
    teams = _even(-(-group[0] // inputs), CHANNELS)
    ragged = kernel[0] % down > 0 or kernel[1] % across > 0
    lanes = THREADS // teams // TEAM * TEAM
    rows = min(ROWS, out_h)
    return WeightTile(
        kernel, stride, dilation, (down, across), inputs, outputs, teams, lanes, rows, padded or ragged, sums
    )


_WORDS = (
    *("items", "tiles", "channel_blocks", "group_blocks", "strips", "strips_high", "strips_per_slice"),
    *("slice_size", "sums_start", "height", "width", "out_h", "out_w", "pad_top", "pad_left"),
    *("in_channels", "out_channels", "group_in", "group_out"),
)


@functools.cache
def weight_tile_kernel(tile: WeightTile, values: Words | None) -> Kernel:
    """Return the kernel of a tile."""
    stored = (("source", "r", "f32"), ("grad", "r", "f32"), ("out", "w", "f32"))
    header = "\n".join([bindings(stored, values is None), words(_WORDS, values)])
    return assemble("conv2d weight tile", WRITER, header, "rrw", values is None, weight_tile_body(tile))


def _inputs(tile: WeightTile, p: int) -> Iterator[str]:
    """Yield the loads of the input rows that row ``p`` of a strip is the first to need."""
    stride, dilation = tile.stride[0], tile.dilation[0]
    known = {q * stride + k * dilation for q in range(p) for k in range(tile.part[0])}
    for r in sorted({p * stride + k * dilation for k in range(tile.part[0])} - known):
        if tile.checked:
            yield f"let in{r} = y + {r}u < height();"
            yield f"let y{r} = origin + (y + {r}u) * width() + x;"
        else:
            # Rows of strips that the image ends within are loaded from its last one, and not used.
            yield f"let y{r} = origin + (y + {f'min({r}u, end)' if p else f'{r}u'}) * width() + x;"
        for c in range(tile.inputs):
            for k in range(tile.part[1]):
                at = f"y{r} + c{c} + {k * tile.dilation[1]}u"
                value = f"pixel({at}, in{r} && across{k})" if tile.checked else f"source[{at}]"
                yield f"let x{c}_{r}_{k} = {value};"


def _gradients(tile: WeightTile, p: int) -> Iterator[str]:
    """Yield the loads of row ``p``'s gradients."""
    yield f"let at{p} = at{f' + min({p}u, left - 1u) * out_w()' if p else ''};"
    for h in range(tile.outputs // 4):
        yield f"let d{p}_{h} = vec4f({', '.join(f'grad[at{p} + o{4 * h + i}]' for i in range(4))});"


def _products(tile: WeightTile, p: int) -> Iterator[str]:
    """Yield the sums of row ``p``."""
    halves = range(tile.outputs // 4)
    tap = 0
    for c in range(tile.inputs):
        for j in range(tile.part[0]):
            r = p * tile.stride[0] + j * tile.dilation[0]
            for k in range(tile.part[1]):
                yield " ".join(f"w{tap}_{h} += d{p}_{h} * x{c}_{r}_{k};" for h in halves)
                tap += 1
    if tile.sums:
        yield f"if (sums) {{ {' '.join(f'w{tap}_{h} += d{p}_{h};' for h in halves)} }}"


def _walk(tile: WeightTile) -> Iterator[str]:
    """Yield one strip: a row's operands are loaded before the sums of the row above it."""
    yield from _inputs(tile, 0)
    yield from _gradients(tile, 0)
    for p in range(tile.rows):
        if p + 1 < tile.rows:
            yield from _inputs(tile, p + 1)
            yield from _gradients(tile, p + 1)
        if p == 0:
            yield from _products(tile, p)
            continue
        # NOTE: a gradient of 0 would not do below the last row, as 0 * NaN is NaN.
        yield f"if (left > {p}u) {{"
        yield from (f"    {line}" for line in _products(tile, p))
        yield "}"


def _totals(tile: WeightTile) -> Iterator[str]:
    """Yield the sums over the workgroup, a chunk of vectors at a time."""
    names = [f"w{t}_{h}" for t in range(tile.taps + tile.sums) for h in range(tile.outputs // 4)]
    for first in range(0, len(names), CHUNK):
        if first:
            yield "workgroupBarrier();"
        for i, name in enumerate(names[first : first + CHUNK]):
            yield f"shared_sums[{i * tile.threads}u + local] = {name};"
        yield f"put(local, {4 * first}u, add_up(local), place, to);"


def _add_up(tile: WeightTile) -> list[str]:
    """Return the function that adds up a chunk: number n of a team's 32 is summed by its n-th invocation."""
    teams = tile.lanes // TEAM  # that share an input channel
    more = [
        "    workgroupBarrier();",
        "    shared_sums[local].x = total;",
        "    workgroupBarrier();",
        f"    let others = local / {tile.lanes}u * {tile.lanes}u + number;",
        f"    total = {' + '.join(f'shared_sums[others + {TEAM * t}u].x' for t in range(teams))};",
    ]
    return [
        "// Returns the sum of one number of a chunk over its input channel's invocations, in a fixed order. Each begins with",
        "// another one, as reads of one bank of memory would wait for each other.",
        "fn add_up(local: u32) -> f32 {",
        f"    let number = local % {TEAM}u;",
        "    let vector = number / 4u;",
        f"    let first = vector * {tile.threads}u + local / {TEAM}u * {TEAM}u;",
        "    var low = 0.0;",
        "    var high = 0.0;",
        "    workgroupBarrier();",
        f"    for (var j = 0u; j < {TEAM}u; j += 2u) {{",
        f"        low += shared_sums[first + (j + vector) % {TEAM}u][number % 4u];",
        f"        high += shared_sums[first + (j + 1u + vector) % {TEAM}u][number % 4u];",
        "    }",
        "    var total = low + high;",
        *(more if teams > 1 else []),
        "    return total;",
        "}",
    ]


def _put(tile: WeightTile) -> list[str]:
    """Return the function that stores one number of the chunk that begins with number ``first``."""
    (down, across), halves = tile.part, tile.outputs // 4
    whole = "" if tile.parts == (1, 1) else f" && y < {tile.kernel[0]}u && x < {tile.kernel[1]}u"
    idle = f"local % {tile.lanes}u >= {TEAM}u || " if tile.lanes > TEAM else ""
    if tile.sums:
        sums = [
            f"    if (tap == {tile.taps}u && place.sums) {{",
            "        out[to + sums_start() + o] = v;",
            "    }",
        ]
    else:
        sums = []
    return [
        "fn put(local: u32, first: u32, v: f32, place: Place, to: u32) {",
        f"    let vector = (first + local % {TEAM}u) / 4u;",
        f"    let tap = vector / {halves}u;",
        f"    let o = place.output + vector % {halves}u * 4u + local % 4u;",
        f"    if ({idle}o > place.output_last) {{",
        "        return;",
        "    }",
        f"    let c = place.input + tap / {down * across}u;",
        f"    let y = place.tap_y + tap / {across}u % {down}u;",
        f"    let x = place.tap_x + tap % {across}u;",
        f"    if (tap < {tile.taps}u && c < group_in(){whole}) {{",
        f"        out[to + ((o * group_in() + c) * {tile.kernel[0]}u + y) * {tile.kernel[1]}u + x] = v;",
        "    }",
        *sums,
        "}",
    ]


_PIXEL = [
    "",
    "// The input at a place, or 0 outside of the image.",
    "fn pixel(at: u32, inside: bool) -> f32 {",
    "    return select(0.0, source[select(0u, at, inside)], inside);",
    "}",
]


@functools.cache
def weight_tile_body(tile: WeightTile) -> str:
    """Return the text of a body that computes a tile a workgroup."""
    (down, across), halves, parts = tile.part, tile.outputs // 4, tile.parts
    channels = tile.teams * tile.inputs
    step = f"{tile.dilation[1]}u"
    vectors = CHUNK * tile.threads

    def inside(lines: Iterator[str], depth: int) -> list[str]:
        return ["    " * depth + line for line in lines]

    checks = [f"let across{k} = x + {k * tile.dilation[1]}u < width();" for k in range(across)]
    end = f"let end = (min(left, {tile.rows}u) - 1u) * {tile.stride[0]}u + {(down - 1) * tile.dilation[0]}u;"
    lines = [
        f"// One workgroup computes {channels} input channels x {tile.outputs} output channels x {down} x {across} taps of a",
        f"// weight's gradient over one slice of the batch's pixels, in strips {tile.rows} high and one wide. Slices are",
        "// summed later, in order.",
        "// needs: items, tiles, channel_blocks, group_blocks, strips, strips_high, strips_per_slice,",
        f"// slice_size, {'sums_start, ' if tile.sums else ''}height, width, out_h, out_w, pad_top, pad_left, in_channels,",
        "// out_channels, group_in, group_out",
        "",
        f"var<workgroup> shared_sums: array<vec4f, {vectors}>;",
        "",
        "// The first output and input channel (within its group), the last output channel, and the first tap.",
        "struct Place { output: u32, output_last: u32, input: u32, tap_y: u32, tap_x: u32, sums: bool }",
        "",
        f"@compute @workgroup_size({tile.threads})",
        "fn main(",
        "    @builtin(workgroup_id) group: vec3u,",
        "    @builtin(num_workgroups) groups: vec3u,",
        "    @builtin(local_invocation_index) local: u32,",
        ") {",
        "    let i = group.x + group.y * groups.x;",
        "    if (i >= items()) {",
        "        return;",
        "    }",
        "    // Tiles of one slice are neighbours in time, and share operands in the cache.",
        "    let slice = i / tiles();",
        f"    let part = i % tiles() % {parts[0] * parts[1]}u;",
        f"    let block = i % tiles() / {parts[0] * parts[1]}u;",
        "    let in_group = block / channel_blocks() / group_blocks();",
        "    let place = Place(",
        f"        in_group * group_out() + block / channel_blocks() % group_blocks() * {tile.outputs}u,",
        "        (in_group + 1u) * group_out() - 1u,",
        f"        (block % channel_blocks() * {tile.teams}u + local / {tile.lanes}u) * {tile.inputs}u,",
        f"        part / {parts[1]}u * {down}u,",
        f"        part % {parts[1]}u * {across}u,",
        f"        part == 0u && block % channel_blocks() == 0u && local < {tile.lanes}u,",
        "    );",
        *(["    let sums = place.sums;"] if tile.sums else []),
        "    let plane = out_h() * out_w();",
        *(f"    let o{k} = min(place.output + {k}u, place.output_last) * plane;" for k in range(tile.outputs)),
        *(
            f"    let c{c} = (in_group * group_in() + min(place.input + {c}u, group_in() - 1u)) * height() * width();"
            for c in range(tile.inputs)
        ),
        *(f"    {' '.join(f'var w{t}_{h} = vec4f();' for h in range(halves))}" for t in range(tile.taps + tile.sums)),
        "    let last = min((slice + 1u) * strips_per_slice(), strips());",
        f"    for (var q = slice * strips_per_slice() + local % {tile.lanes}u; q < last; q += {tile.lanes}u) {{",
        "        let line = q / out_w();",
        "        let image = line / strips_high();",
        f"        let row = (line - image * strips_high()) * {tile.rows}u;",
        "        let column = q - line * out_w();",
        "        // Rows of the strip that are not below the image: a constant where a captured step knows that none is.",
        f"        let left = select(out_h() - row, {tile.rows}u, out_h() % {tile.rows}u == 0u);",
        "        // The upper left input of the part: may lie in the padding, then it wraps around below 0.",
        f"        let y = row * {tile.stride[0]}u + place.tap_y * {tile.dilation[0]}u - pad_top();",
        f"        let x = column * {tile.stride[1]}u + place.tap_x * {step} - pad_left();",
        "        let origin = image * in_channels() * height() * width();",
        "        let at = image * out_channels() * plane + row * out_w() + column;",
        *inside(iter(checks if tile.checked else [end]), 2),
        *inside(_walk(tile), 2),
        "    }",
        "    let to = slice * slice_size();",
        *inside(_totals(tile), 1),
        "}",
        "",
        *_add_up(tile),
        "",
        *_put(tile),
        *(_PIXEL if tile.checked else []),
    ]
    return "\n".join(lines) + "\n"


def fits(target: Target) -> bool:
    """Whether an adapter runs these bodies: others have no workgroup memory that would pay, or too little of it."""
    return not target.software and target.invocations >= THREADS and target.storage >= 16 * CHUNK * THREADS


def run_weight_tiles(
    site: Site, x: View, g: View, out: View, attrs: dict[str, Any], both: View | None, sums_start: int
) -> None:
    """Plan the gradient of a weight: slices of the batch's strips, then their sum in a fixed order; operands are contiguous,
    and none is empty.

    ``both`` is memory that begins with ``out`` and receives the bias gradient from ``sums_start`` on.
    """
    pads, groups = attrs["padding"], attrs["groups"]
    (n, c, height, width), (o, oh, ow) = x.shape, g.shape[1:]
    into, kernel, group_out = out.shape[1], (out.shape[2], out.shape[3]), o // groups
    padded = any(map(any, pads))
    tile = weight_tile(kernel, attrs["stride"], attrs["dilation"], padded, (into, group_out), oh, both is not None)
    channel_blocks, group_blocks = -(-into // (tile.inputs * tile.teams)), -(-group_out // tile.outputs)
    tiles = tile.parts[0] * tile.parts[1] * channel_blocks * group_blocks * groups
    strips_high = -(-oh // tile.rows)
    strips = n * strips_high * ow
    # The number of slices depends on the shape alone, so that sums are the same each time.
    turns = -(-strips // tile.lanes)
    wanted = 1 if turns <= ALONE else min(SLICES, -(-GROUPS // tiles))
    per_slice = tile.lanes * -(-turns // wanted)
    slices = -(-strips // per_slice)
    whole = out if both is None else both
    partial = whole if slices == 1 else site.empty((slices, *whole.shape), out.dtype.wide)
    items = slices * tiles
    values = (
        *(items, tiles, channel_blocks, group_blocks, strips, strips_high, per_slice, whole.size, sums_start),
        *(height, width, oh, ow, pads[0][0], pads[1][0], c, o, into, group_out),
    )
    site.launch(weight_tile_kernel, tile, values, [x, g, partial], grid(items))
    if slices > 1:
        run_reduce(site, "sum", partial, (0,), whole)
