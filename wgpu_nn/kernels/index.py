"""Plans gather and scatter-add: addressed by an index along one axis, aligned along all others."""

from __future__ import annotations

import functools
from typing import NamedTuple

from wgpu_nn.dtype import DTYPES
from wgpu_nn.gpu import Kernel
from wgpu_nn.kernels.map import copy
from wgpu_nn.kernels.plan import MOST_TURNS, Site, View, Words, grid
from wgpu_nn.kernels.source import assemble, bindings, words
from wgpu_nn.shape import collapse

_MISSING = {"f32": "nan()", "i32": "0", "bool": "0u"}


class IndexKey(NamedTuple):
    """What distinguishes index kernels."""

    dtype: str
    rank: int
    axis: int
    workgroup: int
    quads: bool = False  # four neighbours along the last axis at once


def _coordinates(rank: int) -> list[str]:
    """Return the WGSL that splits i into c0 .. over size0() .. ."""
    lines = ["    var rest = i;"]
    for d in reversed(range(rank)):
        lines.append(f"    let c{d} = {'rest' if d == 0 else f'rest % size{d}()'};")
        if d:
            lines.append(f"    rest /= size{d}();")
    return lines


def _address(name: str, axes: list[int]) -> str:
    return " + ".join([f"{name}_offset()", *(f"c{d} * {name}_stride{d}()" for d in axes)])


@functools.cache
def gather_kernel(key: IndexKey, values: Words | None) -> Kernel:
    """Return the kernel of a gather over ``rank`` axes."""
    every = list(range(key.rank))
    others = [d for d in every if d != key.axis]
    names = ["items", "limit", "axis_stride", *(f"size{d}" for d in every)]
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
        *_coordinates(key.rank),
        f"    return Place({_address('source', others)}, {_address('index', every)});",
        "}",
        f"fn missing() -> {element} {{ return {element}({_MISSING[key.dtype]}); }}",
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
        *(count, x.shape[axis], axis_stride, *before, index.shape[axis], *after),
        *(offset, *x_before, *x_after, index.offset, *i_before, index.strides[axis], *i_after),
    )
    site.launch(gather_kernel, key, values, [x, index, out], grid(-(-count // key.workgroup)))


@functools.cache
def scatter_kernel(key: IndexKey, values: Words | None) -> Kernel:
    """Return the kernel of a scatter-add over ``rank`` axes."""
    every = list(range(key.rank))
    others = [d for d in every if d != key.axis]
    names = ["items", "limit", "senders", *(f"size{d}" for d in every), *(f"inside{d}" for d in others)]
    names += ["base_offset", *(f"base_stride{d}" for d in every)]
    names += ["index_offset", "index_stride", *(f"index_stride{d}" for d in others)]
    names += ["source_offset", "source_stride", *(f"source_stride{d}" for d in others)]
    inside = " && ".join([f"c{d} < inside{d}()" for d in others]) or "true"
    element = DTYPES[key.dtype].wgsl
    after = "".join(f" / size{d}()" for d in every if d > key.axis)
    lines = [
        "struct Place { base: u32, index: u32, source: u32, inside: bool }",
        "fn locate(i: u32) -> Place {",
        *_coordinates(key.rank),
        f"    return Place({_address('base', every)}, {_address('index', others)}, {_address('source', others)}, {inside});",
        "}",
        f"fn axis_of(i: u32) -> u32 {{ return (i{after}) % size{key.axis}(); }}",
    ]
    stored = (("base", "r", element), ("index", "r", "i32"), ("source", "r", element), ("out", "w", element))
    header = "\n".join(
        [
            bindings(stored, values is None),
            f"const WORKGROUP = {key.workgroup}u;",
            words(tuple(names), values),
            *lines,
        ]
    )
    return assemble(f"scatter_add {key.dtype}", "scatter_add", header, "rrrw", values is None)


def run_scatter_add(site: Site, x: View, index: View, source: View, axis: int, out: View) -> None:
    """Plan out = x, with out[.., index[.., k, ..], ..] += source[.., k, ..] for k in order."""
    if out.size == 0:
        return
    if index.size == 0:
        copy(site, x, out)
        return
    if site.target.software and index.shape[axis] > MOST_TURNS:
        middle = site.empty(x.shape, x.dtype)
        run_scatter_add(site, x, _along(index, axis, 0, MOST_TURNS), _along(source, axis, 0, MOST_TURNS), axis, middle)
        rest = index.shape[axis] - MOST_TURNS
        later = [_along(v, axis, MOST_TURNS, rest) for v in (index, source)]
        run_scatter_add(site, middle, later[0], later[1], axis, out)
        return
    rank = len(x.shape)
    others = [d for d in range(rank) if d != axis]
    key = IndexKey(x.dtype.name, rank, axis, site.target.workgroup)
    values = (
        *(out.size, x.shape[axis], index.shape[axis], *x.shape, *(index.shape[d] for d in others)),
        *(x.offset, *x.strides),
        *(index.offset, index.strides[axis], *(index.strides[d] for d in others)),
        *(source.offset, source.strides[axis], *(source.strides[d] for d in others)),
    )
    site.launch(scatter_kernel, key, values, [x, index, source, out], grid(-(-out.size // key.workgroup)))


def _along(x: View, axis: int, start: int, count: int) -> View:
    """Return ``count`` elements from ``start`` along ``axis``."""
    shape = tuple(count if i == axis else n for i, n in enumerate(x.shape))
    return x.seen(shape, x.strides, start * x.strides[axis])
