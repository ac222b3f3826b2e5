"""The WGSL bodies of scans, sorts and selections by themselves, trusted and checked, against NumPy on awkward sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.case import i32
from tests.shader_bench import Out, run
from wgpu_nn import Device
from wgpu_nn.gpu import Gpu

pytestmark = pytest.mark.usefixtures("trust")


@pytest.fixture
def gpu(gpu_device: Device) -> Gpu:
    return gpu_device.gpu


def words_of(*shape: int, below: int = 1 << 32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, below, shape, np.uint32)


SCAN = """alias Acc = i32;
fn in_start(row: u32) -> u32 { return row; }
fn out_start(row: u32) -> u32 { return row * 2u * length() + 1u; }
fn identity() -> Acc { return 0; }
fn combine(a: Acc, b: Acc) -> Acc { return a + b; }
fn carried(row: u32, slice: u32) -> Acc { return carry[slice * rows() + row]; }
"""


@pytest.mark.parametrize("kind", [np.int32, np.float32])
@pytest.mark.parametrize("slices", [1, 2, 5, 23])
@pytest.mark.parametrize(("file", "whole"), [("scan", False), ("scan_tile", False), ("scan_tile", True)])
def test_a_scan_starts_each_slice_from_what_is_before_it(
    file: str, whole: bool, slices: int, kind: Any, gpu: Gpu
) -> None:
    n = 61
    x = (
        np.random.default_rng(0).integers(-9, 9, (n, 4)).astype(kind)
    )  # rows of elements that are 4 apart, and 2 afterwards
    carry = np.arange(4 * slices, dtype=kind).reshape(slices, 4) * 100 + 1
    constants = {"WORKGROUP": 8, "PER": 8} if file == "scan_tile" else {"WORKGROUP": 2}
    sizes = {"rows": 4, "slices": slices, "length": n, "in_stride": 4, "out_stride": 2}
    buffers = {"source": x, "carry": carry, "out": Out((4, n, 2), kind)}
    scan = SCAN if kind is np.int32 else SCAN.replace("= i32", "= f32").replace("return 0;", "return 0.0;")
    text = f"{scan}fn first_carry(slice: u32) -> u32 {{ return {'0u' if whole else 'max(slice, 1u) - 1u'}; }}"
    groups = 4 * slices if file == "scan_tile" else 2 * slices
    out = run(gpu, file, buffers, groups, constants=constants, sizes=sizes, text=text)
    parts = np.array_split(x.T, slices, axis=1)
    starts = np.concatenate([carry[:1] * 0, np.cumsum(carry, axis=0) if whole else carry])
    want = [np.cumsum(part, axis=1) + starts[k][:, None] for k, part in enumerate(parts)]
    np.testing.assert_array_equal(out[:, :, 1], np.concatenate(want, axis=1))
    assert (out[:, :, 0] == -77).all()


def test_sort_by_rank_finds_the_first_places_of_rows(gpu: Gpu) -> None:
    x = words_of(4, 11, 3, below=5)
    text = """fn in_start(row: u32) -> u32 { return row * 33u + 1u; }
    fn out_start(row: u32) -> u32 { return row; }
    fn key_of(at: u32) -> u32 { return source[at]; }"""
    sizes = {"rows": 4, "length": 11, "keep": 7, "in_stride": 3, "out_stride": 4}
    buffers = {"source": x, "out": Out((8, 4), np.int32)}
    out = run(gpu, "sort_rank", buffers, 9, constants={"WORKGROUP": 5}, sizes=sizes, text=text)
    np.testing.assert_array_equal(out[:7].T, np.argsort(x[:, :, 1], axis=1, kind="stable")[:, :7])
    assert (out[7] == -77).all()


@pytest.mark.parametrize(
    ("length", "span", "runs"), [(1, 1, 1), (2, 2, 2), (5, 8, 8), (32, 32, 32), (77, 32, 8), (90, 32, 16)]
)
def test_a_tile_is_sorted_by_key_and_place(length: int, span: int, runs: int, gpu: Gpu) -> None:
    x = words_of(3, length, below=4) * np.uint32(0x55555555)  # the largest key is among them
    tiles, keep = -(-length // 32), min(length, 6)
    text = """fn key_at(row: u32, r: u32) -> u32 { return source[row * length() + r]; }
    fn place_at(row: u32, r: u32) -> u32 { return r; }
    fn store(row: u32, tile: u32, j: u32, key: u32, place: u32) {
        out[((row * tiles() + tile) * keep() + j) * 2u] = key;
        out[((row * tiles() + tile) * keep() + j) * 2u + 1u] = place;
    }"""
    sizes = {"rows": 3, "tiles": tiles, "length": length, "span": span, "runs": runs, "keep": keep}
    out = run(
        gpu,
        "sort_tile",
        {"source": x, "out": Out((3, tiles, keep, 2), np.uint32)},
        3 * tiles,
        constants={"WORKGROUP": 8, "TILE": 32},
        sizes=sizes,
        text=text,
    )
    full = np.full((3, tiles * 32), 0xFFFFFFFF, np.uint32)
    full[:, :length] = x
    for tile in range(tiles):
        part = full[:, tile * 32 : tile * 32 + 32]
        order = np.argsort(part, axis=1, kind="stable")[:, :keep]
        np.testing.assert_array_equal(out[:, tile, :, 0], np.take_along_axis(part, order, axis=1))
        place = (order + tile * 32).astype(np.uint32)
        np.testing.assert_array_equal(out[:, tile, :, 1], np.where(place < length, place, 0xFFFFFFFF))


@pytest.mark.parametrize("file", ["radix_count", "radix_count_tile"])
def test_the_digits_of_parts_are_counted(file: str, gpu: Gpu) -> None:
    x = words_of(2, 256)  # four parts of 64 keys
    sizes, constants, length, groups = {"rows": 2, "parts": 4}, {"WORKGROUP": 8, "DIGITS": 16}, 256, 8
    if file == "radix_count":
        constants["WORKGROUP"], length, groups = 2, 214, 4
        sizes |= {"part": 64, "length": length, "pitch": 256}
    buffers = {"keys": x, "counts": Out((2, 16, 4), np.uint32)}
    elements = {"keys": "vec4<u32>"} if file == "radix_count_tile" else None
    out = run(gpu, file, buffers, groups, constants=constants, sizes=sizes, elements=elements)
    for part in range(4):
        digits = x[:, part * 64 : min(part * 64 + 64, length)] % 16
        np.testing.assert_array_equal(out[:, :, part], [np.bincount(row, minlength=16) for row in digits])


@pytest.mark.parametrize("values", [1 << 32, 2])
@pytest.mark.parametrize("file", ["radix_move", "radix_move_tile"])
def test_keys_move_in_order_to_where_their_digit_belongs(file: str, values: int, gpu: Gpu) -> None:
    sizes, constants, length, pitch, groups = {"rows": 2, "parts": 4}, {"WORKGROUP": 8, "BITS": 4}, 256, 256, 8
    tile = file == "radix_move_tile"
    if not tile:
        constants["WORKGROUP"], length, pitch, groups = 2, 214, 280, 4
        sizes |= {"part": 64, "length": length, "pitch": pitch}
    x, places = words_of(2, pitch, below=values), words_of(2, pitch, seed=1)
    digits = x[:, :length] % 16
    parts = np.arange(length) // 64
    counts = np.array([[np.bincount(row[parts == p], minlength=16) for p in range(4)] for row in digits])
    # Digit by digit, and part by part; where keys are moved one by one there may be gaps in between.
    ends = np.cumsum((counts + (not tile)).transpose(0, 2, 1).reshape(2, 64), axis=1).astype(np.uint32)
    element = "vec4<u32>" if tile else "u32"
    buffers: dict[str, np.ndarray | Out] = {"keys": x, "from_places": places, "ends": ends}
    buffers |= {name: Out((2, pitch), np.uint32) for name in ("moved", "places")}
    moved, found = run(
        gpu,
        file,
        buffers,
        groups,
        constants=constants,
        sizes=sizes,
        text=f"fn carried(at: u32, place: u32) -> {element} {{ return from_places[at] + place; }}",
        elements={"keys": element, "from_places": element},
    )
    # What is carried is known by where it lies and by its place in the row, that of its vector in vectors of four.
    carried = places + np.arange(pitch, dtype=np.uint32) // (4 if tile else 1) * (4 if tile else 1)
    for got, given in ((moved, (x >> 4) | (x << 28)), (found, carried)):
        want = np.full((2, pitch), 2**32 - 77, np.uint32)
        for row in range(2):
            to = np.concatenate([[0], ends[row]])[digits[row] * 4 + parts]
            for r in range(length):
                want[row, to[r] + np.count_nonzero((digits[row] == digits[row, r])[:r] & (parts == parts[r])[:r])] = (
                    given[row, r]
                )
        np.testing.assert_array_equal(got, want)


TRUTHS = "fn truth(j: u32) -> u32 { return source[1u + 2u * j]; }\n"  # every other one from the second on
PLACES = TRUTHS + (
    "fn before(slice: u32) -> u32 { return u32(tallies[slice]); }\n"
    "fn store(n: u32, place: u32) { out[n] = i32(place) + 100; }"
)
ALONE, SHARED = {"WORKGROUP": 2, "SPAN": 4}, {"WORKGROUP": 8, "SPAN": 64, "PER": 8}


@pytest.mark.parametrize(("file", "constants"), [("tallies", ALONE), ("tallies_tile", SHARED)])
def test_truths_are_counted_by_slice(file: str, constants: dict[str, int], gpu: Gpu, rng: np.random.Generator) -> None:
    x = rng.integers(0, 2, 507).astype(np.uint32)
    x_of = x[1::2]
    slices = -(-x_of.size // constants["SPAN"])
    sizes = {"slices": slices, "items": x_of.size}
    out = Out((slices + 1,), np.int32)
    groups = slices if "PER" in constants else -(-slices // 2)
    got = run(gpu, file, {"source": x, "out": out}, groups, constants=constants, sizes=sizes, text=TRUTHS)
    want = np.add.reduceat(x_of, np.arange(0, x_of.size, constants["SPAN"]))
    assert got.tolist() == [*want.tolist(), -77]


@pytest.mark.parametrize("more", [-1, 3])
@pytest.mark.parametrize(("file", "constants"), [("places", ALONE), ("places_tile", SHARED)])
def test_truths_of_a_slice_are_put_side_by_side_up_to_the_count(
    file: str, constants: dict[str, int], more: int, gpu: Gpu, rng: np.random.Generator
) -> None:
    x = rng.integers(0, 2, 507).astype(np.uint32)
    x_of = x[1::2]
    starts = np.arange(0, x_of.size, constants["SPAN"])
    # As if there were two more before each slice: nothing is put in these places.
    tallies = i32([np.count_nonzero(x_of[:n]) for n in starts]) + 2 * i32(range(1, starts.size + 1))
    want = np.full(tallies[-1] + 70, -77)
    for n, first in zip(tallies, starts, strict=True):
        found = np.flatnonzero(x_of[first : first + constants["SPAN"]])
        want[n : n + found.size] = 100 + first + found
    count = int(np.flatnonzero(want != -77)[-1]) + 1 + more
    want[count:] = -77
    sizes = {"slices": starts.size, "items": x_of.size, "count": count}
    buffers = {"source": x, "tallies": tallies, "out": Out((want.size,), np.int32)}
    groups = starts.size if "PER" in constants else -(-starts.size // 2)
    got = run(gpu, file, buffers, groups, constants=constants, sizes=sizes, text=PLACES)
    np.testing.assert_array_equal(got, want)


def test_the_senders_of_each_target_begin_where_a_sorted_row_says(gpu: Gpu) -> None:
    keys = np.sort(words_of(2, 13, below=7), axis=1)
    keys[:, 10:] = [[0], [9]]  # behind the end
    sizes = {"rows": 2, "numbers": 8, "length": 10, "pitch": 13, "shift": 28}
    buffers = {"keys": keys << np.uint32(28), "out": Out((2, 8), np.uint32)}
    out = run(gpu, "sort_bounds", buffers, 8, constants={"WORKGROUP": 2}, sizes=sizes)
    np.testing.assert_array_equal(out, [np.searchsorted(row[:10], np.arange(8)) for row in keys])


def test_sorted_senders_are_added_up_in_blocks_and_then_by_target(gpu: Gpu) -> None:
    rng = np.random.default_rng(0)
    source = rng.integers(-9, 9, (37, 2)).astype(np.float32)
    # Of the sorted senders of each column: some targets have whole blocks of four, up to a block's end or beyond it.
    targets = np.array([np.repeat([0, 2, 5], [8, 21, 8]), np.repeat([0, 1, 2, 4, 5], [3, 9, 13, 7, 5])])
    order = np.array([rng.permutation(37) for _ in range(2)], np.uint32)
    bounds = np.array([np.searchsorted(row, np.arange(6)) for row in targets], np.uint32)  # 5 is out of range
    sizes = {"items": 10, "columns": 2, "senders": 37, "block": 4, "source_stride": 2}
    text = """fn source_start(column: u32) -> u32 { return column; }
    fn order_start(column: u32) -> u32 { return column * 37u; }
    """
    buffers: dict[str, np.ndarray | Out] = {"order": order, "source": source, "sums": Out((10, 2))}
    sums = run(
        gpu,
        "scatter_blocks",
        buffers,
        10,
        constants={"WORKGROUP": 2},
        sizes={**sizes, "items": 20},
        text=text,
    )
    sent = np.array([source[order[c], c] for c in range(2)])
    np.testing.assert_array_equal(sums.T, np.add.reduceat(sent, np.arange(0, 37, 4), axis=1))
    sums += 1000  # so that it shows whether the sum of a block is taken
    base = rng.integers(-9, 9, (5, 3)).astype(np.float32)
    text += """struct Place { base: u32, source: u32, column: u32, inside: bool }
    fn locate(i: u32) -> Place { return Place(i, i % 3u, min(i % 3u, 1u), i % 3u < 2u); }
    fn axis_of(i: u32) -> u32 { return i / 3u; }
    fn bounds_start(column: u32) -> u32 { return column * 6u; }"""
    buffers = {"base": base, "order": order, "bounds": bounds, "sums": sums, "source": source, "out": Out((16,))}
    out = run(gpu, "scatter_sorted", buffers, 4, constants={"WORKGROUP": 4}, sizes={**sizes, "items": 15}, text=text)
    want = base.copy()
    for c in range(2):
        for target, value in zip(targets[c], sent[c], strict=True):
            if target < 5:
                want[target, c] += value
        for block in targets[c, :36].reshape(9, 4):
            if block[0] == block[3] < 5:
                want[block[0], c] += 1000
    np.testing.assert_array_equal(out, [*want.ravel(), -77])


@pytest.mark.parametrize("file", ["scatter_count", "scatter_count_tile"])
def test_whole_numbers_are_added_in_any_order(file: str, gpu: Gpu) -> None:
    # Of 4 targets, which are every other element from the second on; others than these are named as well.
    index, source = i32([1, -1, 1, 9, 0, 3, -5, 2**31 - 1, 4, 2, 7, 0]), i32([1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 11, 10])
    # Each addition to a target counts as 100 more: those of a share are one, and a sum of 0 is none.
    text = """struct Place { index: u32, source: u32, out: u32 }
    fn locate(i: u32) -> Place { return Place(i, i, 1u); }
    fn add(at: u32, value: i32) { atomicAdd(&out[at], value + 100); }"""
    share = 3 if file == "scatter_count_tile" else 1
    if share > 1:
        text += """
        alias Word = i32;
        fn add_here(at: u32, value: i32) { atomicAdd(&sums[at], value); }
        fn number(sum: Word) -> i32 { return sum; }"""
    out = run(
        gpu,
        file,
        {"index": index, "source": source, "out": Out((11,), np.int32, "atomic<i32>")},
        4 if share > 1 else 6,
        constants={"WORKGROUP": 2, **({"LIMIT": 4} if share > 1 else {})},
        sizes={"items": 12, "limit": 4, "axis_stride": 2, **({"share": share} if share > 1 else {})},
        text=text,
    )
    want = np.full(11, -77)
    for first in range(0, 12, share):
        sums = np.zeros(4, int)
        for named, value in zip(index[first : first + share], source[first : first + share], strict=True):
            if -4 <= named < 4:
                sums[named] += value
        want[1:9:2] += sums + 100 * (sums != 0)
    np.testing.assert_array_equal(out, want)
