"""Plans the kernel that measures how fast a device multiplies and adds; benchmarks divide by what it finds."""

from __future__ import annotations

import functools
from typing import NamedTuple

from wgpu_nn.gpu import Kernel
from wgpu_nn.kernels.plan import Site, View, Words, grid
from wgpu_nn.kernels.source import assemble, bindings, words

FLOPS = 2 * 32 * 2  # of one invocation's turn: 32 chains, twice, each a multiplication and an addition


class PeakKey(NamedTuple):
    """What distinguishes these kernels."""

    workgroup: int


@functools.cache
def peak_kernel(key: PeakKey, values: Words | None) -> Kernel:
    """Return the kernel that adds up, per invocation, 32 chains of x = x m + s."""
    header = "\n".join(
        [
            bindings((("source", "r", "f32"), ("out", "w", "f32")), values is None),
            f"const WORKGROUP = {key.workgroup}u;",
            words(("items", "turns"), values),
        ]
    )
    return assemble("fma peak", "fma_peak", header, "rw", values is None)


def run_peak(site: Site, source: View, turns: int, out: View) -> None:
    """Plan out[i] = sum over c in 0..31 of x_c after 2 ``turns`` of x_c = x_c source[0] + source[1] + i, from x_c = c.

    ``source`` is [2]; ``out`` has one element an invocation.
    """
    workgroup = site.target.workgroup
    site.launch(peak_kernel, PeakKey(workgroup), (out.size, turns), [source, out], grid(-(-out.size // workgroup)))
