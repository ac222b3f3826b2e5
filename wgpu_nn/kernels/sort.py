"""Plans sorts of rows: by counting where they are short, in a workgroup's memory, or digit by digit where they are long."""

from __future__ import annotations

import functools
from typing import NamedTuple

from wgpu_nn.dtype import DTYPES, DType, Kind
from wgpu_nn.gpu import Kernel
from wgpu_nn.kernels.map import copy, plan_map, run_map
from wgpu_nn.kernels.plan import Site, View, Words, grid
from wgpu_nn.kernels.radix import TILE, WORD, row_pitch, sort_words, tiled
from wgpu_nn.kernels.rows import row_starts
from wgpu_nn.kernels.source import assemble, bindings, words
from wgpu_nn.shape import Shape, collapse, row_major, size

RANKED = 64  # elements up to which every element counts those before it
RANKED_BY_SOFTWARE = 256


class SortKey(NamedTuple):
    """What distinguishes sort kernels. ``again`` says that keys and places come from an earlier launch, ``final`` that
    places are the result."""

    dtype: str
    descending: bool
    rank: int
    again: bool
    final: bool
    workgroup: int


def order(dtype: DType, descending: bool, element: str) -> str:
    """Return the WGSL of the word by which an element is sorted."""
    word = f"order_of_{'f' if dtype.kind is Kind.FLOAT else 'i'}({element})"
    return f"~{word}" if descending else word


def _names(key: SortKey, *more: str) -> tuple[str, ...]:
    names = ["rows", "length", "keep", "in_offset", "out_offset", "in_stride", "out_stride"]
    names += [f"{part}{d}" for part in ("size", "in_step", "out_step") for d in range(key.rank)]
    return (*names, *more)


def _values(x: View, axis: int, out: View) -> tuple[int, tuple[int, ...]]:
    """Return the number of axes that rows lie on, and the words of ``_names``."""
    others = [i for i in range(len(x.shape)) if i != axis]
    sizes, (steps, out_steps) = collapse(
        tuple(x.shape[i] for i in others), [tuple(v.strides[i] for i in others) for v in (x, out)]
    )
    first = (size(sizes), x.shape[axis], out.shape[axis])
    strides = (x.offset, out.offset, x.strides[axis], out.strides[axis])
    return len(sizes), (*first, *strides, *sizes, *steps, *out_steps)


@functools.cache
def rank_kernel(key: SortKey, values: Words | None) -> Kernel:
    """Return the kernel that finds each element's place by counting."""
    dtype = DTYPES[key.dtype]
    header = "\n".join(
        [
            bindings((("source", "r", dtype.wgsl), ("out", "w", "i32")), values is None),
            f"const WORKGROUP = {key.workgroup}u;",
            words(_names(key), values),
            *row_starts(("in", "out"), key.rank),
            f"fn key_of(at: u32) -> u32 {{ return {order(dtype, key.descending, 'source[at]')}; }}",
        ]
    )
    return assemble(f"sort {key.dtype}", "sort_rank", header, "rw", values is None)


@functools.cache
def tile_kernel(key: SortKey, values: Words | None) -> Kernel:
    """Return the kernel that sorts tiles of rows."""
    dtype = DTYPES[key.dtype]
    if key.again:
        stored = [("from_keys", "r", "u32"), ("from_places", "r", "u32")]
        key_at, place_at = "from_keys[row * length() + r]", "from_places[row * length() + r]"
    else:
        stored = [("source", "r", dtype.wgsl)]
        key_at, place_at = order(dtype, key.descending, "source[in_start(row) + r * in_stride()]"), "r"
    if key.final:
        stored.append(("out", "w", "i32"))
        store = ["    out[out_start(row) + j * out_stride()] = i32(place);"]
    else:
        stored += [("to_keys", "w", "u32"), ("to_places", "w", "u32")]
        store = [
            "    let at = (row * tiles() + tile) * keep() + j;",
            "    to_keys[at] = key;",
            "    to_places[at] = place;",
        ]
    header = "\n".join(
        [
            bindings(tuple(stored), values is None),
            f"const WORKGROUP = {key.workgroup}u;",
            f"const TILE = {TILE}u;",
            words(_names(key, "tiles", "span", "runs"), values),
            *row_starts(("in", "out"), key.rank),
            f"fn key_at(row: u32, r: u32) -> u32 {{ return {key_at}; }}",
            f"fn place_at(row: u32, r: u32) -> u32 {{ return {place_at}; }}",
            "fn store(row: u32, tile: u32, j: u32, key: u32, place: u32) {",
            *store,
            "}",
        ]
    )
    access = "".join(a for _, a, _ in stored)
    return assemble(f"sort tile {key.dtype}", "sort_tile", header, access, values is None)


def run_sort(site: Site, x: View, axis: int, descending: bool, out: View) -> None:
    """Plan the places of the first ``out.shape[axis]`` elements of each sorted row of ``x``."""
    if out.size == 0:
        return
    length, keep = x.shape[axis], out.shape[axis]
    if length <= (RANKED_BY_SOFTWARE if site.target.software else RANKED):
        rank, values = _values(x, axis, out)
        key = SortKey(x.dtype.name, descending, rank, False, True, site.target.workgroup)
        site.launch(rank_kernel, key, values, [x, out], grid(-(-x.size // key.workgroup)))
    elif tiled(site) and site.target.storage >= 8 * TILE and (length <= TILE or 8 * keep <= TILE):
        _by_tiles(site, x, axis, descending, out)
    else:
        _by_digits(site, x, axis, descending, out)


def _by_tiles(site: Site, x: View, axis: int, descending: bool, out: View) -> None:
    """Plan sorts of tiles of which only the first elements are kept, again and again until a row is one tile."""
    rank, values = _values(x, axis, out)
    rows, length, keep = values[:3]
    given = [x]
    while True:
        tiles = -(-length // TILE)
        span, runs = (TILE if tiles > 1 else _power(length)), _power(keep)
        key = SortKey(x.dtype.name, descending, rank, len(given) > 1, tiles == 1, 256)
        found = [out] if tiles == 1 else [site.empty((rows, tiles * keep), WORD) for _ in range(2)]
        numbers = (rows, length, keep, *values[3:], tiles, span, runs)
        site.launch(tile_kernel, key, numbers, [*given, *found], grid(rows * tiles))
        if tiles == 1:
            return
        given, length = found, tiles * keep


def _power(n: int) -> int:
    """Return the smallest power of two that is not below ``n``."""
    return 1 << (n - 1).bit_length()


def _by_digits(site: Site, x: View, axis: int, descending: bool, out: View) -> None:
    """Plan a radix sort of words in the order of the elements."""
    length = x.shape[axis]
    others = tuple(n for i, n in enumerate(x.shape) if i != axis)
    pitch = row_pitch(site, length)
    keys = site.empty((size(others), pitch), WORD)
    if pitch != length:
        run_map(site, "full", [-1], keys)
    text = f"bitcast<i32>({order(x.dtype, descending, 'x')})"
    plan_map(site, text, [x.dtype], [x], as_rows(keys, x.shape, axis, pitch), part=pitch != length)
    _, places, _ = sort_words(site, keys, 32)
    copy(site, as_rows(places, out.shape, axis, pitch), out)


def as_rows(words: View, shape: Shape, axis: int, pitch: int) -> View:
    """Return the first elements of rows, ``pitch`` apart, as a tensor of ``shape`` whose ``axis`` runs along the rows."""
    others = [n for i, n in enumerate(shape) if i != axis]
    strides = [pitch * s for s in row_major(tuple(others))]
    strides.insert(axis, 1)
    return words.seen(shape, tuple(strides))
