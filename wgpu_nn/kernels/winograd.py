"""Plans 3 x 3 convolutions by Winograd's minimal filtering: 16 multiply-adds where a direct convolution has 36.

Tiles of 2 x 2 results and 4 x 4 inputs (Winograd 1980; Lavin and Gray 2016): Y = A' [(G w G') * (B' x B)] A, where * goes place
by place, so that over channels it is a product of matrices for each of 16 places. The gradients are those of this formula. The
coefficients are 1 and 1/2: errors stay within about twice those of direct sums. Infinities and NaN reach all of their tile.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

from wgpu_nn import switches
from wgpu_nn.gpu import Kernel
from wgpu_nn.kernels.fused import Chain, Finish, finish_header
from wgpu_nn.kernels.map import copy
from wgpu_nn.kernels.matmul import run_matmul
from wgpu_nn.kernels.plan import Site, View, Words, grid
from wgpu_nn.kernels.reduce import run_reduce
from wgpu_nn.kernels.source import assemble, bindings, words
from wgpu_nn.shape import Shape

PLACES = 16
CHANNELS = 64  # on either side, from which products outweigh the four times larger operands that they need
TILES = 1024  # from which products fill a GPU
WORKGROUP = 64

_HALVES = "let plus = 0.5 * (m[0] + m[2]); let half = 0.5 * m[1];"
# How a tile's rows are combined: B', G and A on the way there, A' and G' back.
SPREAD = {
    "input": "return mat4x4f(m[0] - m[2], m[1] + m[2], m[2] - m[1], m[1] - m[3]);",
    "filter": f"{_HALVES} return mat4x4f(m[0], plus + half, plus - half, m[2]);",
    "grad": "return mat4x4f(m[0], m[0] + m[1], m[0] - m[1], -m[1]);",
}
COLLECT = {
    "output": "return mat4x4f(m[0] + m[1] + m[2], m[1] - m[2] - m[3], vec4f(), vec4f());",
    "filter": "let plus = 0.5 * (m[1] + m[2]); let minus = 0.5 * (m[1] - m[2]); "
    "return mat4x4f(m[0] + plus, minus, plus + m[3], vec4f());",
}
_TILES = ("items", "channels", "height", "width", "down", "across", "pad_top", "pad_left")
_PLACE = [
    "    let tiles = items() / channels();",
    "    let channel = i / tiles;",
    "    let image = i % tiles / (down() * across());",
    "    let tile = i % (down() * across());",
    "    let plane = (image * channels() + channel) * height() * width();",
]


class SpreadKey(NamedTuple):
    """What distinguishes the ways there: of the ``input``, a ``filter``, or a ``grad``; ``flipped`` as the convolution."""

    role: str
    flipped: bool


class CollectKey(NamedTuple):
    """What distinguishes the ways back: to the ``output``, or to the gradient of a ``filter``."""

    role: str
    bias: bool
    finish: Chain | None


def suits(site: Site, x: View, out: View, kernel: Shape, attrs: dict[str, Any]) -> bool:
    """Say whether a convolution of ``x`` that gives ``out`` is faster so: a rule of the shapes alone."""
    (n, c), (o, h, w) = x.shape[:2], out.shape[1:]
    plain = kernel == (3, 3) and attrs["stride"] == attrs["dilation"] == (1, 1) and attrs["groups"] == 1
    tiles = n * -(-h // 2) * -(-w // 2)
    enough = min(c, o) >= CHANNELS and tiles >= TILES
    seen = PLACES * max(c, o) * tiles * x.dtype.nbytes <= site.target.binding
    return bool(switches.winograd) and not site.target.software and plain and enough and seen


def _rows(width: int, before: list[str], start: str) -> list[str]:
    """Return the lines that load ``width`` x ``width`` elements, zeros where there are none, as rows of a matrix."""
    lines = [*before, f"    let y0 = {start.format('top', 'tile / across()')};"]
    lines.append(f"    let x0 = {start.format('left', 'tile % across()')};")
    rows: list[str] = []
    for y in range(width):
        lanes = [f"pixel(plane, y0 + {y}, x0 + {x})" for x in range(width)] + ["0.0"] * (4 - width)
        rows.append(f"vec4f({', '.join(lanes)})")
    rows += ["vec4f()"] * (4 - width)
    return [*lines, f"    return mat4x4f({', '.join(rows)});"]


@functools.cache
def spread_kernel(key: SpreadKey, values: Words | None) -> Kernel:
    """Return the kernel that takes tiles to the domain of products."""
    if key.role == "filter":
        names: tuple[str, ...] = ("items", "channels", "filters")
        first = "let o = i / channels(); let c = i % channels();"
        place, tap = ("(c * filters() + o) * 9u", "8u - {}") if key.flipped else ("(o * channels() + c) * 9u", "{}")
        taps = [tap.format(f"{k}u") for k in range(9)]
        lanes = [", ".join(f"source[at + {k}]" for k in taps[3 * y : 3 * y + 3]) for y in range(3)]
        rows = [f"vec4f({row}, 0.0)" for row in lanes]
        load = [f"    {first}", f"    let at = {place};", f"    return mat4x4f({', '.join(rows)}, vec4f());"]
        more: list[str] = []
    else:
        names = _TILES
        start = "i32({1}) * 2 - i32(pad_{0}())" if key.role == "input" else "i32({1}) * 2"
        load = _rows(4 if key.role == "input" else 2, _PLACE, start)
        more = [
            "fn pixel(plane: u32, y: i32, x: i32) -> f32 {",
            "    if (y < 0 || x < 0 || y >= i32(height()) || x >= i32(width())) { return 0.0; }",
            "    return source[plane + u32(y) * width() + u32(x)];",
            "}",
        ]
    header = "\n".join(
        [
            bindings((("source", "r", "f32"), ("out", "w", "f32")), values is None),
            f"const WORKGROUP = {WORKGROUP}u;",
            words(names, values),
            *more,
            "fn load(i: u32) -> mat4x4f {",
            *load,
            "}",
            f"fn spread(m: mat4x4f) -> mat4x4f {{ {SPREAD[key.role]} }}",
        ]
    )
    return assemble(f"winograd {key.role}", "winograd_spread", header, "rw", values is None)


@functools.cache
def collect_kernel(key: CollectKey, values: Words | None) -> Kernel:
    """Return the kernel that takes tiles back from the domain of products."""
    more, finish, _ = finish_header(key.finish, "f32")
    stored = [("source", "r", "f32"), *([("bias", "r", "f32")] if key.bias else []), *more, ("out", "w", "f32")]
    if key.role == "filter":
        names: tuple[str, ...] = ("items",)
        lines = [f"    out[9u * i + {3 * y + x}u] = v[{y}].{lane};" for y in range(3) for x, lane in enumerate("xyz")]
    else:
        names = _TILES
        lines = [*_PLACE, "    let y = tile / across() * 2u;", "    let x = tile % across() * 2u;"]
        lines.append(f"    let bias_of = {'bias[channel]' if key.bias else '0.0'};")
        for dy in range(2):
            for dx, lane in enumerate("xy"):
                at = f"plane + (y + {dy}u) * width() + x + {dx}u"
                inside = f"y + {dy}u < height() && x + {dx}u < width()"
                lines.append(f"    if ({inside}) {{ let at = {at}; out[at] = finish(at, v[{dy}].{lane} + bias_of); }}")
    header = "\n".join(
        [
            bindings(tuple(stored), values is None),
            finish if key.role == "output" else "",
            f"const WORKGROUP = {WORKGROUP}u;",
            words(names, values),
            "fn store(i: u32, v: mat4x4f) {",
            *lines,
            "}",
            f"fn collect(m: mat4x4f) -> mat4x4f {{ {COLLECT[key.role]} }}",
        ]
    )
    access = "".join(a for _, a, _ in stored)
    return assemble(f"winograd {key.role} back", "winograd_collect", header, access, values is None)


class _Tiles(NamedTuple):
    """How the pixels of a result are cut into tiles: ``down`` x ``across`` of 2 x 2 in each of ``images``."""

    images: int
    down: int
    across: int

    @property
    def count(self) -> int:
        return self.images * self.down * self.across

    def words(self, planes: View, padding: Sequence[Any]) -> Words:
        """Return the values of _TILES for tiles of ``planes`` [n, channels, height, width]."""
        channels, height, width = planes.shape[1:]
        return (channels * self.count, channels, height, width, self.down, self.across, padding[0][0], padding[1][0])


def _tiles(out: View) -> _Tiles:
    return _Tiles(out.shape[0], -(-out.shape[2] // 2), -(-out.shape[3] // 2))


def _spread(site: Site, role: str, source: View, tiles: _Tiles, padding: Sequence[Any]) -> View:
    """Plan [16, channels, tiles] of images."""
    found = site.empty((PLACES, source.shape[1], tiles.count), source.dtype.wide)
    values = tiles.words(source, padding)
    site.launch(spread_kernel, SpreadKey(role, False), values, [source, found], grid(-(-values[0] // WORKGROUP)))
    return found


def run_winograd(
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
    """Plan a convolution; with ``flipped`` the weight's channels have exchanged roles and its window is turned around."""
    o, c, tiles = out.shape[1], x.shape[1], _tiles(out)
    filters = site.empty((PLACES, o, c), w.dtype.wide)
    site.launch(spread_kernel, SpreadKey("filter", flipped), (o * c, c, o), [w, filters], grid(-(-o * c // WORKGROUP)))
    products = site.empty((PLACES, o, tiles.count), x.dtype.wide)
    run_matmul(site, filters, _spread(site, "input", x, tiles, attrs["padding"]), products)
    key = CollectKey("output", bool(bias), finish.chain if finish else None)
    values = tiles.words(out, attrs["padding"])
    views = [products, *bias, *(finish.views if finish else ()), out]
    site.launch(collect_kernel, key, values, views, grid(-(-values[0] // WORKGROUP)))


def run_winograd_weight(site: Site, x: View, g: View, weight: View, bias: View | None, attrs: dict[str, Any]) -> None:
    """Plan the gradient of a convolution's weight, and of its bias if that is given."""
    tiles = _tiles(g)
    grads = _spread(site, "grad", g, tiles, ((0, 0), (0, 0)))
    inputs = _spread(site, "input", x, tiles, attrs["padding"])
    places, c, count = inputs.shape
    o = g.shape[1]
    products = site.empty((PLACES, o, c), x.dtype.wide)
    turned = inputs.seen((places, count, c), (c * count, 1, count))
    run_matmul(site, grads, turned, products)
    site.launch(
        collect_kernel, CollectKey("filter", False, None), (o * c,), [products, weight], grid(-(-o * c // WORKGROUP))
    )
    if bias is not None:  # place 5 of a tile is the sum of its pixels
        sums = site.empty((o,), g.dtype.wide)
        run_reduce(site, "sum", grads.seen((o, count), (count, 1), 5 * o * count), (1,), sums)
        copy(site, sums, bias, part=True)
