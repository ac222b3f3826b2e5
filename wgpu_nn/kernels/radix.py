"""Plans radix sorts: rows of words, moved digit by digit from the lowest on, each move keeping the order of equals."""

from __future__ import annotations

import functools
from typing import NamedTuple

from wgpu_nn.dtype import DTYPES
from wgpu_nn.gpu import Kernel
from wgpu_nn.kernels.plan import Site, View, Words, grid
from wgpu_nn.kernels.scan import run_scan
from wgpu_nn.kernels.source import assemble, bindings, words

WORD = DTYPES["i32"]  # what a word is stored as; kernels take it for unsigned
TILE = 2048  # keys that a workgroup moves: eight for each of its invocations
PART = 2048  # keys that one invocation moves where there are many


class RadixKey(NamedTuple):
    """What distinguishes the kernels of one digit. ``first`` says that the places of the keys are still their own."""

    tiled: bool
    first: bool
    workgroup: int

    @property
    def bits(self) -> int:
        """Bits of a digit: a workgroup's memory holds a counter of 16 values for each invocation."""
        return 4 if self.tiled else 8


def _names(key: RadixKey) -> tuple[str, ...]:
    return ("rows", "parts") if key.tiled else ("rows", "parts", "part", "length", "pitch")


@functools.cache
def count_kernel(key: RadixKey, values: Words | None) -> Kernel:
    """Return the kernel that counts digits."""
    keys = "vec4<u32>" if key.tiled else "u32"
    header = "\n".join(
        [
            bindings((("keys", "r", keys), ("counts", "w", "u32")), values is None),
            f"const WORKGROUP = {key.workgroup}u;",
            f"const DIGITS = {1 << key.bits}u;",
            words(_names(key), values),
        ]
    )
    return assemble("radix count", "radix_count_tile" if key.tiled else "radix_count", header, "rw", values is None)


@functools.cache
def move_kernel(key: RadixKey, values: Words | None) -> Kernel:
    """Return the kernel that moves keys and the places that they came from."""
    element = "vec4<u32>" if key.tiled else "u32"
    stored = [("keys", "r", element), ("ends", "r", "u32"), ("moved", "w", "u32"), ("places", "w", "u32")]
    if key.first:
        carried = "vec4u(place, place + 1u, place + 2u, place + 3u)" if key.tiled else "place"
    else:
        stored.insert(1, ("from_places", "r", element))
        carried = "from_places[at]"
    header = "\n".join(
        [
            bindings(tuple(stored), values is None),
            f"const WORKGROUP = {key.workgroup}u;",
            f"const BITS = {key.bits}u;",
            words(_names(key), values),
            f"fn carried(at: u32, place: u32) -> {element} {{ return {carried}; }}",
        ]
    )
    access = "".join(a for _, a, _ in stored)
    return assemble("radix move", "radix_move_tile" if key.tiled else "radix_move", header, access, values is None)


def tiled(site: Site) -> bool:
    """Say whether workgroups sort tiles in their own memory."""
    return not site.target.software and site.target.invocations >= 256


def row_pitch(site: Site, length: int) -> int:
    """Return how far rows of keys must lie apart; what is behind a row's end must be filled with ones."""
    return -(-length // TILE) * TILE if tiled(site) else length


def sort_words(site: Site, keys: View, bits: int) -> tuple[View, View, int]:
    """Plan the sort of each row of ``keys``, [rows, pitch] words of which the lowest ``bits`` count.

    Returns the sorted words, the places that they came from, and by how much a sorted word is to be shifted to the right.
    """
    rows, pitch = keys.shape
    key = RadixKey(tiled(site), True, 256 if tiled(site) else site.target.workgroup)
    part = TILE if key.tiled else min(PART, max(256, pitch // 64))
    parts = -(-pitch // part)
    values = (rows, parts) if key.tiled else (rows, parts, part, pitch, pitch)
    groups = grid(rows * parts if key.tiled else -(-rows * parts // key.workgroup))
    places: View | None = None
    digits = -(-bits // key.bits)
    for _ in range(digits):
        counts, ends = (site.empty((rows, parts << key.bits), WORD) for _ in range(2))
        moved, to = (site.empty(keys.shape, WORD) for _ in range(2))
        site.launch(count_kernel, key._replace(first=True), values, [keys, counts], groups)
        run_scan(site, "cumsum", counts, 1, ends)
        given = [keys] if places is None else [keys, places]
        site.launch(move_kernel, key._replace(first=places is None), values, [*given, ends, moved, to], groups)
        keys, places = moved, to
    assert places is not None
    return keys, places, max(32 - digits * key.bits, 0)
