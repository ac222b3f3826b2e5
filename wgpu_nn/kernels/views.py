"""View ops: other shapes, strides and offsets on the same buffer; only a reshape may have to copy."""

from __future__ import annotations

from collections.abc import Callable

from wgpu_nn.kernels.map import copy
from wgpu_nn.kernels.plan import Site, View
from wgpu_nn.shape import Range, Shape, broadcast_strides, row_major, view_strides


def reshape(site: Site, x: View, *, shape: Shape) -> View:
    strides = view_strides(x.shape, x.strides, shape)
    return copy(site, x).seen(shape, row_major(shape)) if strides is None else x.seen(shape, strides)


def permute(site: Site, x: View, *, axes: tuple[int, ...]) -> View:
    return x.seen(tuple(x.shape[a] for a in axes), tuple(x.strides[a] for a in axes))


def expand(site: Site, x: View, *, shape: Shape) -> View:
    return x.seen(shape, broadcast_strides(x.shape, x.strides, shape))


def strided_slice(site: Site, x: View, *, ranges: tuple[Range, ...]) -> View:
    shape = tuple(count for _, _, count in ranges)
    offset = sum(start * s for (start, _, count), s in zip(ranges, x.strides, strict=True) if count)
    return x.seen(shape, tuple(step * s for (_, step, _), s in zip(ranges, x.strides, strict=True)), offset)


VIEWS: dict[str, Callable[..., View]] = {
    "reshape": reshape,
    "permute": permute,
    "expand": expand,
    "slice": strided_slice,
}
