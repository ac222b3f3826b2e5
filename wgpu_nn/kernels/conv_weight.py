"""Plans the weight gradient of 2-d convolution: slices of the batch's pixels, then their sum in a fixed order."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

from wgpu_nn.kernels.conv import Way, Window, constants, traits
from wgpu_nn.kernels.conv_few import FEW, PART, run_filter_grad
from wgpu_nn.kernels.implicit import Convolution, Sliced, run_weight, weight_slices, weight_ways
from wgpu_nn.kernels.map import dense, run_map
from wgpu_nn.kernels.plan import Candidate, Input, Site, Task, View
from wgpu_nn.kernels.reduce import run_reduce
from wgpu_nn.kernels.weight_run import choose_run, run_weight_runs
from wgpu_nn.kernels.weight_tile import fits, run_weight_tiles
from wgpu_nn.kernels.winograd import run_winograd_weight, suits
from wgpu_nn.shape import Shape, row_major, size


def bias_place(shape: Shape) -> int:
    """Return where a bias gradient starts behind a weight gradient of ``shape``: both can then be bound by themselves."""
    return -(-size(shape) // 64) * 64


class _Gradient(NamedTuple):
    """A weight gradient: what is read, and the memory that begins with it and may end with that of the bias."""

    x: View
    g: View
    whole: View
    shape: Shape
    attrs: dict[str, Any]
    sums: bool

    @property
    def window(self) -> Window:
        (top, bottom), (left, right) = self.attrs["padding"]
        padded = max(top, bottom, left, right) > 0
        return Window(self.shape[2:], self.attrs["stride"], self.attrs["dilation"], padded, 1)  # pyright: ignore[reportArgumentType]

    @property
    def convolution(self) -> Convolution:
        corner = (self.attrs["padding"][0][0], self.attrs["padding"][1][0])
        output, groups = self.g.shape[1:], self.attrs["groups"]
        return Convolution("weight", constants(self.window), self.x, output, self.window.kernel, corner, groups)  # pyright: ignore[reportArgumentType]

    @property
    def parts(self) -> list[View]:
        """Return the gradients of weight and bias where they lie."""
        weight = self.whole.seen(self.shape, row_major(self.shape))
        return [weight, self.whole.seen((self.shape[0],), (1,), bias_place(self.shape))] if self.sums else [weight]


def run_weight_grad(
    site: Site, op: str, inputs: Sequence[Input], attrs: dict[str, Any], out: View, both: View | None = None
) -> None:
    """Plan the gradient of a convolution's weight: slices of the batch's rows, then their sum in a fixed order.

    ``both`` [bias_place + out channels] is memory that begins with ``out`` and also receives the bias gradient.
    """
    if out.size == 0:
        return
    x, g = (dense(site, v) for v in inputs if isinstance(v, View))
    if x.size == 0 or g.size == 0:
        run_map(site, "full", [0.0], out if both is None else both)
        return
    task = _Gradient(x, g, out if both is None else both, out.shape, attrs, both is not None)
    ways = _ways(site, task)
    chosen = 0
    if len(ways) > 1:
        sizes = (*x.shape, *g.shape[1:])
        measured = Task(
            "conv2d_weight_grad",
            traits(attrs, out.shape, both),
            sizes,
            (x, g),
            tuple(task.parts),
            size(g.shape) // g.shape[1],
        )
        chosen = site.choose(measured, [Candidate(k, functools.partial(_alone, task, w)) for k, w in ways.items()])
    list(ways.values())[chosen](site, task)


def _alone(task: _Gradient, way: Way, site: Site, views: Sequence[View]) -> None:
    x, g, out = views[:3]
    way(site, task._replace(x=x, g=g, whole=View(out.buffer, task.whole.layout)))


def _ways(site: Site, task: _Gradient) -> dict[str, Way]:
    """Return what the rules say, and behind it, for captured steps, what else may be as good; by name."""
    ways: dict[str, Way] = {}
    few = task.shape[0] // task.attrs["groups"] <= FEW
    sliced = None if few else weight_slices(site, task.convolution)
    if suits(site, task.x, task.g, task.shape[2:], task.attrs):
        ways["winograd"] = _winograd
    if few:
        ways["filters"] = _filters
    elif sliced is not None:
        ways[_name(sliced)] = functools.partial(_blocks, sliced=sliced)
    elif fits(site.target):
        ways["weight tiles"] = _register_tiles
    else:
        ways["runs over 1"] = functools.partial(_runs, share=1.0)
    if site.tuned:
        for way in weight_ways(site, task.convolution):
            ways.setdefault(_name(way), functools.partial(_blocks, sliced=way))
        if fits(site.target):
            ways.setdefault("weight tiles", _register_tiles)
        else:
            for share in (1, 0.5, 2):
                ways.setdefault(f"runs over {share:g}", functools.partial(_runs, share=share))
    return ways


def _name(sliced: Sliced) -> str:
    return f"block {'x'.join(map(str, sliced[0][:6]))}, {sliced[1]} slices"


def _winograd(site: Site, task: _Gradient) -> None:
    weight, *bias = task.parts
    run_winograd_weight(site, task.x, task.g, weight, bias[0] if bias else None, task.attrs)


def _filters(site: Site, task: _Gradient) -> None:
    both = task.whole if task.sums else None
    run_filter_grad(site, task.x, task.g, task.parts[0], task.attrs, both, bias_place(task.shape))


def _register_tiles(site: Site, task: _Gradient) -> None:
    both = task.whole if task.sums else None
    run_weight_tiles(site, task.x, task.g, task.parts[0], task.attrs, both, bias_place(task.shape))


def _runs(site: Site, task: _Gradient, share: float) -> None:
    """Plan runs of pixels, spread over ``share`` of the usual number of invocations."""
    window, wide = task.window, task.g.shape[3]
    group = task.shape[1], task.shape[0] // task.attrs["groups"]
    # Rows whose length is known, and that are not cut into parts.
    row = wide if site.tuned and wide <= PART else None
    run = choose_run(window.kernel, window.stride, window.dilation, group, window.padded, task.sums, row)
    sums_start = bias_place(task.shape) if task.sums else None
    run_weight_runs(site, run, task.x, task.g, task.whole, task.attrs, sums_start, share)


def _blocks(site: Site, task: _Gradient, sliced: Sliced) -> None:
    whole, slices = task.whole, sliced[1]
    partial = whole if slices == 1 else site.empty((slices, *whole.shape), whole.dtype.wide)
    run_weight(site, task.convolution, task.g, sliced, partial, bias_place(task.shape), task.sums)
    if slices > 1:
        run_reduce(site, "sum", partial, (0,), whole)
