"""Plans gathers: addressed by an index along one axis, aligned along all others."""

from __future__ import annotations

import functools
from typing import NamedTuple

from wgpu_nn.dtype import DTYPES
from wgpu_nn.gpu import Kernel
from wgpu_nn.kernels.plan import Site, View, Words, grid
from wgpu_nn.kernels.source import assemble, bindings, words

_MISSING = {"f32": "nan()", "i32": "0", "bool": "0u"}


class IndexKey(NamedTuple):
    """What distinguishes index kernels."""

    dtype: str
    rank: int
    axis: int
    workgroup: int


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
    names = ["items", "limit", "axis_stride", *(f"size{d}" for d in every)]
    names += [
        "source_offset",
        *(f"source_stride{d}" for d in others),
        "index_offset",
        *(f"index_stride{d}" for d in every),
    ]
    element = DTYPES[key.dtype].wgsl
    lines = [
        "struct Place { source: u32, index: u32 }",
        "fn locate(i: u32) -> Place {",
        *coordinates(key.rank),
        f"    return Place({address('source', others)}, {address('index', every)});",
        "}",
        f"fn missing() -> {element} {{ return {_MISSING[key.dtype]}; }}",
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
    rank = len(index.shape)
    others = [d for d in range(rank) if d != axis]
    key = IndexKey(x.dtype.name, rank, axis, site.target.workgroup)
    values = (
        *(out.size, x.shape[axis], x.strides[axis], *index.shape),
        *(x.offset, *(x.strides[d] for d in others), index.offset, *index.strides),
    )
    site.launch(gather_kernel, key, values, [x, index, out], grid(-(-out.size // key.workgroup)))
