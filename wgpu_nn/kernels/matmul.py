"""Plans matrix products: through workgroup memory on GPUs, in registers on software adapters; no copy to transpose."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from wgpu_nn import switches
from wgpu_nn.gpu import Kernel
from wgpu_nn.kernels.block import WRITER, Block, block_body
from wgpu_nn.kernels.fused import Arg, Chain, Finish, Link, finish_header, leaf_of
from wgpu_nn.kernels.map import run_map
from wgpu_nn.kernels.plan import Candidate, Site, Task, View, Words, grid, whole
from wgpu_nn.kernels.product import MatmulKey, Product, Variant, variants
from wgpu_nn.kernels.reduce import run_empty, run_reduce
from wgpu_nn.kernels.source import assemble, bindings, words
from wgpu_nn.shape import broadcast_strides

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


# A block in f16 loads and stores as one in f32 does, and rounds at its edge.
_HALF = """fn a_load(start: u32, j: u32, k: u32) -> vec4h { return vec4h(a_wide(start, j, k)); }
fn b_load(start: u32, k: u32, j: u32) -> vec4h { return vec4h(b_wide(start, k, j)); }
fn c_store(start: u32, m: u32, n: u32, v: vec4h) { c_wide(start, m, n, vec4f(v)); }
fn sums_store(n: u32, v: vec4h) { sums_wide(n, vec4f(v)); }"""


def _block_header(key: MatmulKey, block: Block) -> list[str]:
    """Blocks load fours along the axis that is contiguous, and zeros beyond the edges."""
    lines = [_HALF] if key.half else []
    load = "wide" if key.half else "load"
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
        lines.append(f"fn {name}_{load}(start: u32, {order}) -> vec4f {{ {text} }}")
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
    store = "wide" if key.half else "store"
    lines = [
        bindings(stored, values is None),
        finish,
        f"const SUMS = {str(key.sums).lower()};",
        f"fn sums_{store}(n: u32, v: vec4f) {{ {sums if key.sums else ''} }}",
        words(tuple(names), values),
        _start("a", key.rank),
        _start("b", key.rank),
        "fn c_start(batch: u32, slice: u32) -> u32 { return (slice * batches() + batch) * rows() * columns(); }",
        f"fn c_{store}(start: u32, m: u32, n: u32, v: vec4f) {{ {stores} }}",
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
        body = block_body(key.block, "vec4h" if key.half else "vec4f", key.whole)
        return assemble(name, WRITER, header, access, values is None, body)
    return assemble(f"matmul {key.body}", f"matmul_{key.body}", header, access, values is None)


def run_matmul(site: Site, x: View, y: View, out: View, finish: Finish | None = None, sums: View | None = None) -> None:
    """Plan out[..., m, n] = sum over k of x[..., m, k] y[..., k, n]; batches broadcast.

    ``finish`` is applied to each element of ``out``; ``sums`` [n] receives sum over k of y[k, n], if y is a matrix.
    """
    if out.size == 0:
        return
    inner = x.shape[-1]
    if inner == 0:
        run_empty(site, out, finish)
        if sums is not None:
            run_map(site, "full", [0.0], sums)
        return
    if site.tuned and sums is None and min(out.shape[-2:]) == 1:
        _fold(site, x, y, out, finish)
        return
    p = Product.of(x, y, out.shape)
    found = variants(site, p)
    halves = site.target.halves and x.dtype.nbytes == y.dtype.nbytes == 2
    if switches.half_sums and halves and found[0].key.block is not None:
        found = [found[0]._replace(key=found[0].key._replace(half=True))]
    chosen = 0
    if len(found) > 1:
        sizes = (p.batches, p.rows, p.columns, p.inner)
        writes = (out,) if sums is None else (out, sums)
        task = Task("matmul", f"{p.traits}{' and sums' if sums else ''}", sizes, (x, y), writes, inner)
        chosen = site.choose(task, [Candidate(v.name, functools.partial(_alone, p, v)) for v in found])
    _run(site, p, found[chosen], x, y, out, finish, sums)


def _alone(p: Product, v: Variant, site: Site, views: Sequence[View]) -> None:
    x, y, out, *sums = views
    _run(site, p, v, x, y, out, None, *sums)


def _run(
    site: Site, p: Product, v: Variant, x: View, y: View, out: View, finish: Finish | None, sums: View | None = None
) -> None:
    """Plan a variant of a product."""
    key, tiles, slices, per_slice = v
    values = (
        *(p.rows, p.columns, p.inner, p.batches, slices, per_slice, x.offset, y.offset),
        *(*x.strides[-2:], *y.strides[-2:], *p.sizes, *p.a_batch, *p.b_batch),
    )
    each = key.side if site.target.software else 1  # tiles of a workgroup
    if slices == 1:
        key = key._replace(finish=finish.chain if finish else None, sums=sums is not None)
        views = [x, y, *(finish.views if finish else ()), out, *([sums] if sums is not None else [])]
        site.launch(matmul_kernel, key, values, views, grid(-(-tiles // each)))
        return
    partial = site.empty((slices, *out.shape), out.dtype.wide)
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
