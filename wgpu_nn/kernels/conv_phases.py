"""Plans the input gradient of a 2-d convolution with strides, a transposed convolution, as a block product for each phase.

Pixels whose places have the same remainder by the strides, a phase, gather the same weights of every window, and neighbours
among them what lies side by side: each phase is a convolution of the gradient with every stride-th weight.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from wgpu_nn.kernels.fused import Finish
from wgpu_nn.kernels.implicit import Convolution, forward_block, product_of, run_forward
from wgpu_nn.kernels.map import dense
from wgpu_nn.kernels.plan import Site, View

# Multiply-adds of the largest phase from which on blocks pay; below, one launch of all pixels is sooner done. On an H100,
# blocks were 0.7 times as fast with 2**26 and 2**27 of them, 1.2 to 2 times with 2**29.6 to 2**31.6.
ENOUGH = 1 << 29


class _Axis(NamedTuple):
    """A phase along one axis: its first pixel, its pixels, the first weight that it meets, its weights, and what lies before
    the gradient's start: 2**32 less than that where it begins behind it, as unsigned words wrap around."""

    offset: int
    count: int
    first: int
    taps: int
    before: int


def _axis(offset: int, length: int, kernel: int, stride: int, pad: int) -> _Axis:
    first = (offset + pad) % stride
    skipped = (offset + pad) // stride
    return _Axis(offset, -(-(length - offset) // stride), first, -(-(kernel - first) // stride), -skipped % (1 << 32))


def _phases(weight: View, out: View, attrs: Mapping[str, Any]) -> list[tuple[_Axis, _Axis]]:
    """Return the phases of ``out``, the one of most weights first; none if some pixels meet no weight, or weights lie apart."""
    stride = attrs["stride"]
    if tuple(attrs["dilation"]) != (1, 1) or any(k < s for k, s in zip(weight.shape[2:], stride, strict=True)):
        return []
    down, across = (
        [_axis(i, out.shape[2 + d], weight.shape[2 + d], stride[d], attrs["padding"][d][0]) for i in range(stride[d])]
        for d in (0, 1)
    )
    found = [(y, x) for y, x in itertools.product(down, across) if y.count > 0 and x.count > 0]
    return sorted(found, key=lambda pair: -pair[0].taps * pair[1].taps)


def _constants(down: _Axis, across: _Axis, stride: tuple[int, int]) -> Iterator[str]:
    pairs = {
        "KERNEL": (down.taps, across.taps),
        "STRIDE": (1, 1),
        "OFFSET": (down.offset, across.offset),
        "STEP": stride,
    }
    for name, pair in pairs.items():
        yield from (f"const {name}_{side} = {value}u;" for side, value in zip("HW", pair, strict=True))
    yield "const PADDED = true;"


def _part(weight: View, down: _Axis, across: _Axis, attrs: Mapping[str, Any]) -> View:
    """Return the weights that a phase meets: [groups, inputs of a group, outputs of a group, rows, columns]."""
    groups, (step_y, step_x) = attrs["groups"], attrs["stride"]
    outputs, inputs, _, columns = weight.shape
    filter_, channel = weight.strides[:2]
    shape = (groups, inputs, outputs // groups, down.taps, across.taps)
    strides = (outputs // groups * filter_, channel, filter_, step_y * columns, step_x)
    return weight.seen(shape, strides, down.first * columns + across.first)


def run_phases(site: Site, g: View, weight: View, out: View, attrs: Mapping[str, Any], finish: Finish | None) -> bool:
    """Plan the gradient ``out`` of the input from that of the output, ``g``, both operands contiguous; say whether it is
    worth that, and has phases."""
    parts = _phases(weight, out, attrs)
    convolutions = [
        Convolution(
            "phase",
            "\n".join(_constants(down, across, attrs["stride"])),
            g,
            (out.shape[1], down.count, across.count),
            (down.taps, across.taps),
            (down.before, across.before),
            attrs["groups"],
        )
        for down, across in parts
    ]
    if not parts or math.prod(product_of(convolutions[0])) < ENOUGH:
        return False
    block = forward_block(site, convolutions[0])
    if block is None:
        return False
    weights = [dense(site, _part(weight, *pair, attrs)) for pair in parts]
    for convolution, some in zip(convolutions, weights, strict=True):
        run_forward(site, convolution, block, some, [], out, finish)
    return True
