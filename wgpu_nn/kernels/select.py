"""Plans selections: counts of the elements other than 0 up to the end of each slice, then their places side by side."""

from __future__ import annotations

import functools
from typing import NamedTuple

from wgpu_nn.dtype import Float
from wgpu_nn.gpu import Kernel
from wgpu_nn.kernels.plan import Site, View, Words, grid
from wgpu_nn.kernels.scan import run_scan
from wgpu_nn.kernels.source import assemble, bindings, words
from wgpu_nn.ops.rules_order import SPAN
from wgpu_nn.shape import Shape

TEAM = 256  # invocations that share a slice


class SelectKey(NamedTuple):
    """What distinguishes selections. ``mask`` has the bits of an element that say whether it is 0; ``rank`` is of places."""

    tiled: bool
    mask: int
    workgroup: int
    rank: int = 0

    def header(
        self, stored: tuple[tuple[str, str, str], ...], names: tuple[str, ...], values: Words | None
    ) -> list[str]:
        """Return the lines that both kernels share: ``source`` holds words of any element type."""
        return [
            bindings((("source", "r", "u32"), *stored), values is None),
            f"const WORKGROUP = {self.workgroup}u;",
            f"const SPAN = {SPAN}u;",
            words(("slices", "items", "start", "stride", *names), values),
            "fn truth(j: u32) -> u32 {",
            f"    return select(0u, 1u, (source[start() + j * stride()] & {self.mask}u) != 0u);",
            "}",
        ]


@functools.cache
def tallies_kernel(key: SelectKey, values: Words | None) -> Kernel:
    """Return the kernel that counts the elements other than 0 of each slice."""
    header = "\n".join(key.header((("out", "w", "i32"),), (), values))
    return assemble("tallies", "tallies_tile" if key.tiled else "tallies", header, "rw", values is None)


@functools.cache
def places_kernel(key: SelectKey, values: Words | None) -> Kernel:
    """Return the kernel that writes a row of ``rank`` indices for each element other than 0."""
    inner = range(1, key.rank)
    names = ("count", "tallies_start", "tallies_stride", *(f"size{d}" for d in inner))
    lines = key.header((("tallies", "r", "i32"), ("out", "w", "i32")), names, values)
    lines += [
        f"const PER = {SPAN // TEAM}u;",
        "fn before(slice: u32) -> u32 {",
        "    let last = tallies[tallies_start() + (max(slice, 1u) - 1u) * tallies_stride()];",
        "    return select(u32(last), 0u, slice == 0u);",
        "}",
        "fn store(n: u32, place: u32) {",
        "    var rest = place;",
    ]
    for d in reversed(inner):
        lines += [f"    out[n * {key.rank}u + {d}u] = i32(rest % size{d}());", f"    rest /= size{d}();"]
    lines += [f"    out[n * {key.rank}u] = i32(rest);", "}"]
    return assemble("places", "places_tile" if key.tiled else "places", "\n".join(lines), "rrw", values is None)


def _key(site: Site, x: View, rank: int) -> SelectKey:
    # The sign of a zero does not count. Bits tell NaN, and numbers that adapters take for zeros, from those.
    mask = 0x7FFFFFFF if x.dtype.kind is Float else 0xFFFFFFFF
    tiled = not site.target.software and site.target.invocations >= TEAM
    return SelectKey(tiled, mask, TEAM if tiled else site.target.workgroup, rank)


def run_tallies(site: Site, x: View, out: View) -> None:
    """Plan how many elements of ``x``, of rank 1, are other than 0 up to the end of each slice of SPAN."""
    slices = out.size
    if slices == 0:
        return
    key = _key(site, x, 0)
    counts = out if slices == 1 else site.empty(out.shape, out.dtype)
    values = (slices, x.size, x.offset, x.strides[0])
    site.launch(tallies_kernel, key, values, [x, counts], grid(slices if key.tiled else -(-slices // key.workgroup)))
    if slices > 1:
        run_scan(site, "cumsum", counts, 0, out)


def run_places(site: Site, x: View, tallies: View, shape: Shape, out: View) -> None:
    """Plan the indices in ``shape`` of all elements of ``x`` other than 0, of which ``tallies`` are the counts."""
    if out.size == 0:
        return
    slices, key = tallies.size, _key(site, x, len(shape))
    values = (slices, x.size, x.offset, x.strides[0], out.shape[0], tallies.offset, tallies.strides[0], *shape[1:])
    groups = slices if key.tiled else -(-slices // key.workgroup)
    site.launch(places_kernel, key, values, [x, tallies, out], grid(groups))
