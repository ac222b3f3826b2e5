"""Plans matrix products: through workgroup memory on GPUs, in registers on software adapters; no copy to transpose."""

from __future__ import annotations

import functools
from typing import NamedTuple

from wgpu_nn.gpu import Kernel
from wgpu_nn.kernels.block import WRITER, Block, block_body, choose_block
from wgpu_nn.kernels.fused import Arg, Chain, Finish, Link, finish_header, leaf_of
from wgpu_nn.kernels.map import run_map
from wgpu_nn.kernels.plan import MOST_TURNS, Site, View, Words, grid, whole
from wgpu_nn.kernels.reduce import run_reduce
from wgpu_nn.kernels.source import assemble, bindings, words
from wgpu_nn.shape import broadcast_strides, collapse, size

STEP = 16  # inner elements that a tile takes at a time; slices are multiples of it


class MatmulKey(NamedTuple):
    """What distinguishes matmul kernels. ``a`` and ``b`` say how an operand is loaded; see ``_layout``."""

    body: str  # block, tile, direct or dot
    a: str
    b: str
    rank: int  # batch axes
    vector_out: bool
    sums: bool  # whether the columns of b are summed as well
    finish: Chain | None
    side: int  # workgroup size, or the root of a team's for tiles
    teams: int = 1  # of a tile's workgroup, which share the inner axis
    block: Block | None = None
    whole: bool = False  # whether blocks divide the product, so that no edge need be looked for


_WORDS = (
    "rows",
    "columns",
    "inner",
    "batches",
    "slices",
    "per_slice",
    "a_offset",
    "b_offset",
    "a_row",
    "a_inner",
    "b_inner",
    "b_column",
)


def _start(name: str, rank: int) -> str:
    lines = [f"fn {name}_start(batch: u32) -> u32 {{", "    var rest = batch;", f"    var at = {name}_offset();"]
    for d in reversed(range(rank)):
        lines.append(f"    at += {'rest' if d == 0 else f'(rest % batch{d}())'} * {name}_batch{d}();")
        if d:
            lines.append(f"    rest /= batch{d}();")
    return "\n".join([*lines, "    return at;", "}"])


def _block_header(key: MatmulKey, block: Block) -> list[str]:
    """Blocks load fours along the axis that is contiguous, and zeros beyond the edges."""
    lines: list[str] = []
    for name, element, side, along, limit, by_inner in (
        ("a", key.a, "a_row", "a_inner", "rows", block.a_by_inner),
        ("b", key.b, "b_column", "b_inner", "columns", block.b_by_inner),
    ):
        if element == "vector":
            step = f"j * {side}() + k" if by_inner else f"k * {along}() + j"
            guard = "" if key.whole else f"if (j >= {limit}() || k >= inner()) {{ return vec4f(); }} "
            text = f"{guard}return {name}[(start + {step}) / 4u];"
        else:
            lane, most = ("k", "inner") if by_inner else ("j", limit)
            step, fixed = (along, f"j * {side}()") if by_inner else (side, f"k * {along}()")
            outside = f"j >= {limit}()" if by_inner else "k >= inner()"
            lanes = ", ".join(
                f"select(0.0, {name}[at + min({lane} + {i}u, {most}() - 1u) * {step}()], {lane} + {i}u < {most}())"
                for i in range(4)
            )
            text = f"if ({outside}) {{ return vec4f(); }} let at = start + {fixed}; return vec4f({lanes});"
        order = "j: u32, k: u32" if name == "a" else "k: u32, j: u32"
        lines.append(f"fn {name}_load(start: u32, {order}) -> vec4f {{ {text} }}")
    return lines


def _tile_header() -> list[str]:
    """Tiles load single elements, and zeros beyond the edges."""
    lines: list[str] = []
    for name, fixed, moving, inner_first in (("a", "a_inner", "a_row", False), ("b", "b_inner", "b_column", True)):
        arguments = "k: u32, j: u32" if inner_first else "j: u32, k: u32"
        limit = "columns()" if inner_first else "rows()"
        lanes = ", ".join(
            f"select(0.0, {name}[at + min(j + {i}u, {limit} - 1u) * {moving}()], j + {i}u < {limit})" for i in range(4)
        )
        lines += [
            f"fn {name}_load(start: u32, {arguments}) -> vec4f {{",
            "    if (k >= inner()) { return vec4f(); }",
            f"    let at = start + k * {fixed}();",
            f"    return vec4f({lanes});",
            "}",
        ]
    return lines


_DIRECT_A = "fn a_at(start: u32, m: u32, k: u32) -> f32 { return a[start + m * a_row() + k * a_inner()]; }"
_DIRECT_B = {
    "vector": "return b[(start + k * b_inner() + min(n, columns() - 4u)) / 4u];",
    "any": "let at = start + k * b_inner(); let last = columns() - 1u; return vec4f("
    + ", ".join(f"b[at + min(n + {i}u, last) * b_column()]" for i in range(4))
    + ");",
}
_DOT = "fn {0}_at(start: u32, {1}) -> vec4f {{ return {0}[(start + {2} * {3}()) / 4u + k]; }}"


@functools.cache
def matmul_kernel(key: MatmulKey, values: Words | None) -> Kernel:
    """Return the kernel of a batched product."""
    names = [*_WORDS, *(f"batch{d}" for d in range(key.rank))]
    names += [f"{x}_batch{d}" for x in "ab" for d in range(key.rank)]
    element = {"vector": "vec4f", "any": "f32", "by_inner": "f32", "by_side": "f32"}
    out = "vec4f" if key.vector_out else "f32"
    if key.vector_out:
        lanes = ", ".join(f"finish(at + {i}u, v.{lane})" for i, lane in enumerate("xyzw"))
        stores = f"let at = start + m * columns() + n; if (n < columns()) {{ out[at / 4u] = vec4f({lanes}); }}"
    else:
        stores = "let at = start + m * columns() + n; " + " ".join(
            f"if (n + {i}u < columns()) {{ out[at + {i}u] = finish(at + {i}u, v.{lane}); }}"
            for i, lane in enumerate("xyzw")
        )
    more, finish, _ = finish_header(key.finish, "f32")
    sums = " ".join(f"if (n + {i}u < columns()) {{ sums[n + {i}u] = v.{lane}; }}" for i, lane in enumerate("xyzw"))
    stored = (("a", "r", element[key.a]), ("b", "r", element[key.b]), *more, ("out", "w", out))
    stored += (("sums", "w", "f32"),) if key.sums else ()
    lines = [
        bindings(stored, values is None),
        finish,
        f"const SUMS = {str(key.sums).lower()};",
        f"fn sums_store(n: u32, v: vec4f) {{ {sums if key.sums else ''} }}",
        words(tuple(names), values),
        _start("a", key.rank),
        _start("b", key.rank),
        "fn c_start(batch: u32, slice: u32) -> u32 { return (slice * batches() + batch) * rows() * columns(); }",
        f"fn c_store(start: u32, m: u32, n: u32, v: vec4f) {{ {stores} }}",
    ]
    if key.block is not None:
        lines += _block_header(key, key.block)
    elif key.body == "tile":
        lines += [f"const SIDE = {key.side}u;", f"const TILE = {4 * key.side}u;", f"const GROUPS = {key.teams}u;"]
        lines += [f"const {x}_BY_INNER = {str(how == 'by_inner').lower()};" for x, how in (("A", key.a), ("B", key.b))]
        lines += _tile_header()
    else:
        width = 8 if key.body == "direct" else 4
        lines += [
            f"const WORKGROUP = {key.side}u;",
            f"fn tiles_x() -> u32 {{ return (columns() + {width - 1}u) / {width}u; }}",
            "fn tiles() -> u32 { return tiles_x() * ((rows() + 7u) / 8u) * batches() * slices(); }",
        ]
        if key.body == "direct":
            lines += [_DIRECT_A, f"fn b_at(start: u32, k: u32, n: u32) -> vec4f {{ {_DIRECT_B[key.b]} }}"]
        else:
            lines += [
                _DOT.format("a", "m: u32, k: u32", "m", "a_row"),
                _DOT.format("b", "k: u32, n: u32", "n", "b_column"),
            ]
    access = "".join(a for _, a, _ in stored)
    header = "\n".join(lines)
    if key.block is not None:
        name = f"matmul {key.block.rows} x {key.block.columns}"
        return assemble(name, WRITER, header, access, values is None, block_body(key.block))
    return assemble(f"matmul {key.body}", f"matmul_{key.body}", header, access, values is None)


def run_matmul(site: Site, x: View, y: View, out: View, finish: Finish | None = None, sums: View | None = None) -> None:
    """Plan out[..., m, n] = sum over k of x[..., m, k] y[..., k, n]; batches broadcast.

    ``finish`` is applied to each element of ``out``; ``sums`` [n] receives sum over k of y[k, n], if y is a matrix.
    """
    if out.size == 0:
        return
    inner = x.shape[-1]
    if inner == 0:
        # Nothing to add up: zeros, which still go through what follows.
        zeros = site.empty((1, *out.shape), x.dtype)
        run_map(site, "full", [0.0], zeros)
        run_reduce(site, "sum", zeros, (0,), out, finish=finish)
        if sums is not None:
            run_map(site, "full", [0.0], sums)
        return
    rows, columns = out.shape[-2:]
    if site.tuned and sums is None and min(rows, columns) == 1:
        _fold(site, x, y, out, finish)
        return
    batch = out.shape[:-2]
    strides = [broadcast_strides(v.shape[:-2], v.strides[:-2], batch) for v in (x, y)]
    sizes, (a_batch, b_batch) = collapse(batch, strides)
    batches = size(sizes)
    values = (
        *(rows, columns, inner, batches, x.offset, y.offset),
        *(*x.strides[-2:], *y.strides[-2:], *sizes, *a_batch, *b_batch),
    )
    key, tiles = _variant(site, x, y, rows, columns, inner, batches, a_batch, b_batch)
    each = key.side if site.target.software else 1  # tiles of a workgroup
    slices = _slices(site, tiles, inner, key.teams)
    step = STEP * key.teams
    per_slice = -(-inner // (slices * step)) * step
    slices = -(-inner // per_slice)
    values = (*values[:4], slices, per_slice, *values[4:])
    if slices == 1:
        key = key._replace(finish=finish.chain if finish else None, sums=sums is not None)
        views = [x, y, *(finish.views if finish else ()), out, *([sums] if sums is not None else [])]
        site.launch(matmul_kernel, key, values, views, grid(-(-tiles // each)))
        return
    partial = site.empty((slices, *out.shape), x.dtype)
    site.launch(matmul_kernel, key, values, [x, y, partial], grid(-(-tiles * slices // each)))
    run_reduce(site, "sum", partial, (0,), out, finish=finish)
    if sums is not None:
        run_reduce(site, "sum", y, (0,), sums)


def _fold(site: Site, x: View, y: View, out: View, finish: Finish | None) -> None:
    """Plan a product with one row or one column as a reduction: all that counts is to read the matrix once."""
    batch, (rows, columns), inner = out.shape[:-2], out.shape[-2:], x.shape[-1]
    shape = (*batch, inner, columns) if rows == 1 else (*batch, rows, inner)
    starts = [broadcast_strides(v.shape[:-2], v.strides[:-2], batch) for v in (x, y)]
    if rows == 1:
        steps = [(x.strides[-1], 0), y.strides[-2:]]
    else:
        steps = [x.strides[-2:], (0, y.strides[-2])]
    seen = [v.seen(shape, (*a, *b)) for v, a, b in zip((x, y), starts, steps, strict=True)]
    product = Link("x * y", (Arg("leaf", 0), Arg("leaf", 1)), x.dtype.name)
    start = Finish(Chain(tuple(leaf_of(v, shape) for v in seen), (product,), (0,)), tuple(seen))
    run_reduce(site, "sum", whole(shape, x.dtype, None), (len(shape) - (2 if rows == 1 else 1),), out, start, finish)


def _slices(site: Site, tiles: int, inner: int, teams: int) -> int:
    """Return into how many parts the inner axis is split, to be summed in order; it depends on shapes only.

    A second launch sums them, so it must be long.
    """
    if site.target.software:
        return -(-inner // MOST_TURNS)
    wanted = 1
    while tiles * wanted < 128 and inner // (2 * wanted * teams) >= 512:
        wanted *= 2
    return wanted


def _side(site: Site, rows: int, columns: int, inner: int, batches: int) -> int:
    """Return a quarter of a small tile's side: larger tiles reuse more, small ones are more, and keep a large GPU busy."""

    def tiles(edge: int) -> int:
        return -(-rows // edge) * -(-columns // edge) * batches

    return 8 if not site.tuned or tiles(32) >= 128 or inner < 256 else 4


def _teams(site: Site, side: int, inner: int) -> int:
    """Return how many teams of side x side invocations share the inner axis of a small tile: a power of two."""
    if not site.tuned:
        return 1
    memory = 2 * STEP * side * 16  # bytes of a team's two tiles
    most = min(site.target.invocations // (side * side), site.target.storage // memory, inner // 32, 16)
    return 1 << max(most.bit_length() - 1, 0)


def _variant(
    site: Site,
    x: View,
    y: View,
    rows: int,
    columns: int,
    inner: int,
    batches: int,
    a_batch: tuple[int, ...],
    b_batch: tuple[int, ...],
) -> tuple[MatmulKey, int]:
    """Choose the body by adapter kind and layout; return it and the number of tiles."""
    rank = len(a_batch)
    vector_out = columns % 4 == 0

    def aligned(v: View, row_stride: int, batch: tuple[int, ...]) -> bool:
        return all(n % 4 == 0 for n in (v.offset, row_stride, *batch))

    if not site.target.software:
        a = "by_inner" if x.strides[-1] == 1 else "by_side"
        b = "by_inner" if y.strides[-2] == 1 and y.strides[-1] != 1 else "by_side"
        block = choose_block(site.target, rows, columns, inner, batches, a == "by_inner", b == "by_inner")
        if block is not None:
            fours = [
                (
                    x,
                    *((x.strides[-2], inner) if block.a_by_inner else (x.strides[-1], rows)),
                    a_batch,
                    min(x.strides[-2:]),
                ),
                (
                    y,
                    *((y.strides[-1], inner) if block.b_by_inner else (y.strides[-2], columns)),
                    b_batch,
                    min(y.strides[-2:]),
                ),
            ]
            ways = [
                "vector" if unit == 1 and edge % 4 == 0 and aligned(v, stride, batch) else "any"
                for v, stride, edge, batch, unit in fours
            ]
            whole = site.tuned and rows % block.rows == 0 and columns % block.columns == 0 and inner % block.step == 0
            tiles = -(-rows // block.rows) * -(-columns // block.columns) * batches
            key = MatmulKey("block", ways[0], ways[1], rank, vector_out, False, None, 0, 1, block, whole)
            return key, tiles
        side = _side(site, rows, columns, inner, batches)
        tiles = -(-rows // (4 * side)) * -(-columns // (4 * side)) * batches
        return MatmulKey("tile", a, b, rank, vector_out, False, None, side, _teams(site, side, inner)), tiles

    workgroup = 32
    dot = inner % 4 == 0 and x.strides[-1] == 1 and y.strides[-2] == 1 and y.strides[-1] != 1
    if dot and aligned(x, x.strides[-2], a_batch) and aligned(y, y.strides[-1], b_batch):
        tiles = -(-rows // 8) * -(-columns // 4) * batches
        return MatmulKey("dot", "vector", "vector", rank, vector_out, False, None, workgroup), tiles
    vector = columns % 4 == 0 and y.strides[-1] == 1 and aligned(y, y.strides[-2], b_batch)
    tiles = -(-rows // 8) * -(-columns // 8) * batches
    return MatmulKey("direct", "any", "vector" if vector else "any", rank, vector_out, False, None, workgroup), tiles
