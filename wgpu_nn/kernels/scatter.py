"""Plans scatter-adds: every output looks at all senders; where these are many, Ints are added by atomics, and Floats are
sorted by target first, so that their order is fixed. With ``switches.deterministic`` off these take atomics as well."""

from __future__ import annotations

import functools
from typing import NamedTuple

from wgpu_nn import switches
from wgpu_nn.dtype import DTYPES, Int
from wgpu_nn.gpu import Kernel
from wgpu_nn.kernels.index import IndexKey, address, coordinates
from wgpu_nn.kernels.map import copy, plan_map, run_map
from wgpu_nn.kernels.plan import MOST_TURNS, Site, View, Words, grid
from wgpu_nn.kernels.radix import WORD, row_pitch, sort_words, tiled
from wgpu_nn.kernels.rows import row_starts
from wgpu_nn.kernels.sort import as_rows
from wgpu_nn.kernels.source import assemble, bindings, words
from wgpu_nn.shape import collapse

# (output, sender) pairs from which a sort is worth its twenty launches; a look takes lavapipe 10 ns.
MOST_LOOKS = 1 << 22
MOST_LOOKS_OF_SOFTWARE = 1 << 18
SENDERS = 32  # from which atomics cost less than a look at all of them, where their order does not matter
FEW = 2048  # targets whose sums a workgroup's memory holds
SHARE = 16384  # senders that a workgroup adds up for them
# The target of a sender, counted from the front; the one behind the last if it is out of range.
_TARGET = "select(y, select(x, x + y, x < 0), u32(select(x, x + y, x < 0)) < u32(y))"


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
        *coordinates(key.rank),
        f"    return Place({address('base', every)}, {address('index', others)}, {address('source', others)}, {inside});",
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
    many = _many(site, index.shape[axis], out.size)
    free = not switches.deterministic and x.dtype.nbytes == 4  # of halves there are no atomics
    if (free and index.shape[axis] >= SENDERS) or (many and x.dtype.kind is Int):
        _in_any_order(site, x, index, source, axis, out)
        return
    if many:
        _by_target(site, x, index, source, axis, out)
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


def _many(site: Site, senders: int, outputs: int) -> bool:
    """Say whether sorting the senders costs less than letting every output look at all of them."""
    most = MOST_LOOKS_OF_SOFTWARE if site.target.software else MOST_LOOKS
    return senders > MOST_TURNS or (senders >= 128 and senders * outputs > most)


class CountKey(NamedTuple):
    """What distinguishes kernels that add by atomics. ``few`` targets are added up in workgroups first."""

    dtype: str
    rank: int
    axis: int
    few: bool
    workgroup: int


def _in_any_order(site: Site, x: View, index: View, source: View, axis: int, out: View) -> None:
    """Plan a scatter-add by atomics: of Ints it is exact, and so the same each time."""
    copy(site, x, out)
    others = [d for d in range(len(x.shape)) if d != axis]
    few = tiled(site) and index.size == index.shape[axis] and x.shape[axis] <= FEW
    key = CountKey(x.dtype.name, len(x.shape), axis, few, 256 if few else site.target.workgroup)
    values = (
        *(index.size, SHARE, x.shape[axis], out.strides[axis], *index.shape, index.offset, *index.strides),
        *(source.offset, *source.strides, out.offset, *(out.strides[d] for d in others)),
    )
    site.launch(
        count_kernel, key, values, [index, source, out], grid(-(-index.size // (SHARE if few else key.workgroup)))
    )


def _by_target(site: Site, x: View, index: View, source: View, axis: int, out: View) -> None:
    """Plan a scatter-add whose senders are sorted by target first, so that each output reads just its own.

    An index that is the same for all columns, as that of an embedding, is sorted once. Blocks of senders are added up
    beforehand, for outputs to which very many are sent; their size depends on the number of senders alone.
    """
    others = [d for d in range(len(x.shape)) if d != axis]
    senders, limit = index.shape[axis], x.shape[axis]
    shared = all(index.strides[d] == 0 or index.shape[d] == 1 for d in others)
    rows = index.seen((senders,), (index.strides[axis],)) if shared else index
    columns = index.size // senders
    pitch = row_pitch(site, senders)
    keys = site.empty((1 if shared else columns, pitch), WORD)
    if pitch != senders:
        run_map(site, "full", [-1], keys)
    place = as_rows(keys, rows.shape, 0 if shared else axis, pitch)
    plan_map(site, _TARGET, [index.dtype, index.dtype], [rows, limit], place, part=pitch != senders)
    keys, order, shift = sort_words(site, keys, limit.bit_length())
    bounds = site.empty((keys.shape[0], limit + 1), WORD)
    workgroup = site.target.workgroup
    values = (keys.shape[0], limit + 1, senders, pitch, shift)
    site.launch(bounds_kernel, workgroup, values, [keys, bounds], grid(-(-bounds.size // workgroup)))

    block = max(32, 1 << (senders.bit_length() // 2))
    sums = site.empty((-(-senders // block), columns), x.dtype.wide)
    sizes, (steps,) = collapse(tuple(index.shape[d] for d in others), [tuple(source.strides[d] for d in others)])
    order_pitch = 0 if shared else pitch
    key = IndexKey(x.dtype.name, len(sizes), axis, workgroup)
    values = (sums.size, columns, senders, block, source.strides[axis], order_pitch, source.offset, *sizes, *steps)
    site.launch(blocks_kernel, key, values, [order, source, sums], grid(-(-sums.size // workgroup)))

    key = IndexKey(x.dtype.name, len(x.shape), axis, workgroup)
    values = (
        *(out.size, columns, block, order_pitch, 0 if shared else limit + 1),
        *(*x.shape, *(index.shape[d] for d in others), x.offset, *x.strides),
        *(source.offset, source.strides[axis], *(source.strides[d] for d in others)),
    )
    views = [x, order, bounds, sums, source, out]
    site.launch(sorted_kernel, key, values, views, grid(-(-out.size // workgroup)))


# WGSL adds whole numbers alone: the bits of a Float are exchanged for those of its sum, unless somebody was faster.
_EXCHANGE = """fn {name}(at: u32, value: f32) {{
    var old = atomicLoad(&{place}[at]);
    loop {{
        let found = atomicCompareExchangeWeak(&{place}[at], old, bitcast<u32>(bitcast<f32>(old) + value));
        if (found.exchanged) {{ break; }}
        old = found.old_value;
    }}
}}"""
_ADD = "fn {name}(at: u32, value: i32) {{ atomicAdd(&{place}[at], value); }}"


def _atomics(key: CountKey) -> list[str]:
    """Return the WGSL that adds to results, and to sums in workgroup memory."""
    text, word = (_ADD, "i32") if key.dtype == "i32" else (_EXCHANGE, "u32")
    lines = [text.format(name="add", place="out")]
    if key.few:
        number = "sum" if key.dtype == "i32" else "bitcast<f32>(sum)"
        lines += [f"alias Word = {word};", text.format(name="add_here", place="sums")]
        lines.append(f"fn number(sum: Word) -> {DTYPES[key.dtype].wgsl} {{ return {number}; }}")
    return lines


@functools.cache
def count_kernel(key: CountKey, values: Words | None) -> Kernel:
    """Return the kernel that adds each sender to its target at once."""
    every = list(range(key.rank))
    others = [d for d in every if d != key.axis]
    names = ["items", "share", "limit", "axis_stride", *(f"size{d}" for d in every)]
    names += ["index_offset", *(f"index_stride{d}" for d in every)]
    names += ["source_offset", *(f"source_stride{d}" for d in every), "out_offset", *(f"out_stride{d}" for d in others)]
    element, word = DTYPES[key.dtype].wgsl, "i32" if key.dtype == "i32" else "u32"
    stored = (("index", "r", "i32"), ("source", "r", element), ("out", "w", f"atomic<{word}>"))
    header = "\n".join(
        [
            bindings(stored, values is None),
            f"const WORKGROUP = {key.workgroup}u;",
            f"const LIMIT = {FEW}u;" if key.few else "",
            words(tuple(names), values),
            *_atomics(key),
            "struct Place { index: u32, source: u32, out: u32 }",
            "fn locate(i: u32) -> Place {",
            *coordinates(key.rank),
            f"    return Place({address('index', every)}, {address('source', every)}, {address('out', others)});",
            "}",
        ]
    )
    body = "scatter_count_tile" if key.few else "scatter_count"
    return assemble(f"scatter_add atomic {key.dtype}", body, header, "rrw", values is None)


@functools.cache
def bounds_kernel(workgroup: int, values: Words | None) -> Kernel:
    """Return the kernel that finds where the senders of each target begin."""
    header = "\n".join(
        [
            bindings((("keys", "r", "u32"), ("out", "w", "u32")), values is None),
            f"const WORKGROUP = {workgroup}u;",
            words(("rows", "numbers", "length", "pitch", "shift"), values),
        ]
    )
    return assemble("sort bounds", "sort_bounds", header, "rw", values is None)


@functools.cache
def blocks_kernel(key: IndexKey, values: Words | None) -> Kernel:
    """Return the kernel that adds up blocks of senders; columns are addressed over ``rank`` axes."""
    element = DTYPES[key.dtype].wgsl
    names = ["items", "columns", "senders", "block", "source_stride", "order_pitch", "source_offset"]
    names += [f"{part}{d}" for part in ("size", "source_step") for d in range(key.rank)]
    stored = (("order", "r", "u32"), ("source", "r", element), ("sums", "w", element))
    header = "\n".join(
        [
            bindings(stored, values is None),
            f"const WORKGROUP = {key.workgroup}u;",
            words(tuple(names), values),
            *row_starts(("source",), key.rank),
            "fn order_start(column: u32) -> u32 { return column * order_pitch(); }",
        ]
    )
    return assemble(f"scatter_add blocks {key.dtype}", "scatter_blocks", header, "rrw", values is None)


@functools.cache
def sorted_kernel(key: IndexKey, values: Words | None) -> Kernel:
    """Return the kernel of a scatter-add of sorted senders."""
    every = list(range(key.rank))
    others = [d for d in every if d != key.axis]
    names = ["items", "columns", "block", "order_pitch", "bounds_pitch"]
    names += [*(f"size{d}" for d in every), *(f"inside{d}" for d in others)]
    names += ["base_offset", *(f"base_stride{d}" for d in every)]
    names += ["source_offset", "source_stride", *(f"source_stride{d}" for d in others)]
    inside = " && ".join([f"c{d} < inside{d}()" for d in others]) or "true"
    column = "0u"
    for d in others:
        column = f"({column} * inside{d}() + c{d})"
    element = DTYPES[key.dtype].wgsl
    after = "".join(f" / size{d}()" for d in every if d > key.axis)
    stored = (
        *(("base", "r", element), ("order", "r", "u32"), ("bounds", "r", "u32"), ("sums", "r", element)),
        *(("source", "r", element), ("out", "w", element)),
    )
    header = "\n".join(
        [
            bindings(stored, values is None),
            f"const WORKGROUP = {key.workgroup}u;",
            words(tuple(names), values),
            "struct Place { base: u32, source: u32, column: u32, inside: bool }",
            "fn locate(i: u32) -> Place {",
            *coordinates(key.rank),
            f"    return Place({address('base', every)}, {address('source', others)}, {column}, {inside});",
            "}",
            f"fn axis_of(i: u32) -> u32 {{ return (i{after}) % size{key.axis}(); }}",
            "fn order_start(column: u32) -> u32 { return column * order_pitch(); }",
            "fn bounds_start(column: u32) -> u32 { return column * bounds_pitch(); }",
        ]
    )
    return assemble(f"scatter_add sorted {key.dtype}", "scatter_sorted", header, "rrrrrw", values is None)
