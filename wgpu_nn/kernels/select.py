"""Plans selections: where running counts of truths step up, put side by side."""

from __future__ import annotations

import functools

from wgpu_nn.gpu import Kernel
from wgpu_nn.kernels.plan import Site, View, Words, grid
from wgpu_nn.kernels.source import assemble, bindings, words


@functools.cache
def places_kernel(workgroup: int, values: Words | None) -> Kernel:
    """Return the kernel that writes the places of steps."""
    header = "\n".join(
        [
            bindings((("counts", "r", "i32"), ("out", "w", "i32")), values is None),
            f"const WORKGROUP = {workgroup}u;",
            words(("items", "count", "start", "stride"), values),
        ]
    )
    return assemble("places", "places", header, "rw", values is None)


def run_places(site: Site, counts: View, out: View) -> None:
    """Plan out[counts[i] - 1] = i for every i at which the running ``counts`` are larger than before."""
    if out.size == 0:
        return
    workgroup = site.target.workgroup
    values = (counts.size, out.size, counts.offset, counts.strides[0])
    site.launch(places_kernel, workgroup, values, [counts, out], grid(-(-counts.size // workgroup)))
