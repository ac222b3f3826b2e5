"""Plans gathers: addressed by an index along one axis, aligned along all others."""

from __future__ import annotations

import functools
from functools import partial
from typing import NamedTuple

from wgpu_nn.dtype import DTYPES, Kind
from wgpu_nn.gpu import Kernel
from wgpu_nn.kernels.map import copy, placed
from wgpu_nn.kernels.plan import Site, View, Words, grid
from wgpu_nn.kernels.source import assemble, bindings, words
from wgpu_nn.kernels.windows import alike, large, narrow, parts, window
from wgpu_nn.shape import collapse

_MISSING = {Kind.FLOAT: "nan()", Kind.INT: "0", Kind.BOOL: "0u"}


class IndexKey(NamedTuple):
    """What distinguishes index kernels."""

    dtype: str
    rank: int
    axis: int
    workgroup: int
    quads: bool = False  # four neighbours along the last axis at once


def coordinates(rank: int) -> list[str]:
    """Return the WGSL that splits i into c0 .. over size0() .. ."""
    lines = ["    var rest = i;"]
    for d in reversed(range(rank)):
        lines.append(f"    let c{d} = {'rest' if d == 0 else f'rest % size{d}()'};")
        if d:
            lines.append(f"    rest /= size{d}();")
    return lines


def address(name: str, axes: list[int]) -> str:
    return " + ".join([f"{name}_offset()", *(f"c{d} * {name}_stride{d}()" for d in axes)])


@functools.cache
def gather_kernel(key: IndexKey, values: Words | None) -> Kernel:
    """Return the kernel of a gather over ``rank`` axes."""
    every = list(range(key.rank))
    others = [d for d in every if d != key.axis]
    names = ["items", "limit", "first", "held", "axis_stride", *(f"size{d}" for d in every)]
    names += [
        "source_offset",
        *(f"source_stride{d}" for d in others),
        "index_offset",
        *(f"index_stride{d}" for d in every),
    ]
    element = DTYPES[key.dtype].wgsl
    if key.quads:
        element = f"vec4<{element}>"
    lines = [
        "struct Place { source: u32, index: u32 }",
        "fn locate(i: u32) -> Place {",
        *coordinates(key.rank),
        f"    return Place({address('source', others)}, {address('index', every)});",
        "}",
        f"fn missing() -> {element} {{ return {element}({_MISSING[DTYPES[key.dtype].kind]}); }}",
    ]
    header = "\n".join(
        [
            bindings((("source", "r", element), ("index", "r", "i32"), ("out", "w", element)), values is None),
            f"const WORKGROUP = {key.workgroup}u;",
            words(tuple(names), values),
            *lines,
        ]
    )
    return assemble(f"gather {key.dtype}", "gather", header, "rrw", values is None)


def run_gather(site: Site, x: View, index: View, axis: int, out: View) -> None:
    """Plan out[.., i, ..] = x[.., index[.., i, ..], ..]."""
    if out.size == 0:
        return
    if not large(site, x, index, out):
        _gather(site, x, index, axis, out, 0, x.shape[axis])
        return
    rank = len(out.shape)
    for part in parts(site, "gather", out.shape, [index, out], [alike(rank)] * 2):
        source, named, target = x, *part.views
        for d in range(rank):
            if d != axis:
                source = narrow(source, d, part.starts[d], part.shape[d])
        placed(site, target, partial(_from_parts, site, source, named, axis))


def _from_parts(site: Site, x: View, index: View, axis: int, out: View) -> None:
    """Plan a gather from each part of ``x`` that can be seen: all write what is theirs of ``out``."""
    limit = count = x.shape[axis]
    while (found := window(site, narrow(x, axis, 0, count))) is None and count > 1:
        if narrow(x, axis, 0, count).nbytes <= site.target.binding:
            break
        count = (count + 1) // 2
    for first in range(0, limit, count):
        span = narrow(x, axis, first, min(count, limit - first))
        seen = window(site, span) if found is not None else None
        _gather(site, copy(site, span) if seen is None else seen, index, axis, out, first, limit)


def _gather(site: Site, x: View, index: View, axis: int, out: View, first: int, limit: int) -> None:
    """Plan a gather from the elements of an axis from ``first`` on, of ``limit`` in all."""
    before, (x_before, i_before) = collapse(index.shape[:axis], [x.strides[:axis], index.strides[:axis]])
    after, (x_after, i_after) = collapse(index.shape[axis + 1 :], [x.strides[axis + 1 :], index.strides[axis + 1 :]])
    axis_stride, offset, count = x.strides[axis], x.offset, out.size
    # Rows of one index each, as a batch of data or an embedding has them.
    quads = bool(after) and x_after[-1] == 1 and i_after[-1] == 0 and after[-1] % 4 == 0
    quads = quads and not any(n % 4 for n in (*x_before, *x_after[:-1], axis_stride, offset))
    if quads:
        x_before, x_after = (tuple(n // 4 for n in strides) for strides in (x_before, x_after[:-1]))
        after, x_after = (*after[:-1], after[-1] // 4), (*x_after, 1)
        axis_stride, offset, count = axis_stride // 4, offset // 4, count // 4
    rank = len(before) + 1 + len(after)
    key = IndexKey(x.dtype.name, rank, len(before), site.target.workgroup, quads)
    values = (
        *(count, limit, first, x.shape[axis], axis_stride, *before, index.shape[axis], *after),
        *(offset, *x_before, *x_after, index.offset, *i_before, index.strides[axis], *i_after),
    )
    site.launch(gather_kernel, key, values, [x, index, out], grid(-(-count // key.workgroup)))
